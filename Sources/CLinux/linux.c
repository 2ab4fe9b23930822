/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "linux.h"

#include <fcntl.h>
#include <sys/mman.h>

int linux_memory_file(const char *name) {
    return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int linux_seal(int fd) {
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
}
