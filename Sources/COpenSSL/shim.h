/* The part of Debian's libssl-dev that Blyan uses. */
/* SHA256() of one short message has a third of the cost of the EVP calls; it is deprecated only in name. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
