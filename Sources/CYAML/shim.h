/* The part of Debian's libyaml-dev that Blyan uses. */
#include <yaml.h>
