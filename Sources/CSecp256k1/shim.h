/* The part of Debian's libsecp256k1-dev that Blyan uses. */
#include <secp256k1.h>
