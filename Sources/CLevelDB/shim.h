/* The part of Debian's libleveldb-dev that Blyan uses. */
#include <leveldb/c.h>
