/* SPDX-License-Identifier: Apache-2.0
 * System calls of Linux that Swift's Glibc module does not show. */
#ifndef BLYAN_LINUX_H
#define BLYAN_LINUX_H

/** A file in memory, closed on exec and open to sealing; -1 and errno on failure. See memfd_create(2). */
int linux_memory_file(const char *name);

/** Forbids every later change of a memory file's size and bytes; -1 and errno on failure. See fcntl(2), F_ADD_SEALS. */
int linux_seal(int fd);

#endif
