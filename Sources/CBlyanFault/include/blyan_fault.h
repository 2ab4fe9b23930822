/* SPDX-License-Identifier: Apache-2.0
 *
 * blyan_fault.h: reads of a mapped file that the disk cannot serve (truncation, I/O error) raise SIGBUS. The guard
 * turns that into a recorded fault: the handler maps a page of zeros in place, so that the read goes on, and
 * remembers which registered mapping was hit and where. Whoever computed with those bytes checks afterwards and
 * throws its result away. Addresses outside registered mappings go to the handler that stood before.
 */
#ifndef BLYAN_FAULT_H
#define BLYAN_FAULT_H

#include <stdint.h>

/** Mappings that can be registered at once. */
#define BLYAN_FAULT_SLOTS 65536

/** Installs the handler for the process, once. 0, or an errno. [any-thread] */
int32_t blyan_fault_install(void);
/** Registers a mapping; returns its slot, or -1 if all are taken or the mapping is empty. [any-thread] */
int32_t blyan_fault_register(const void *address, uint64_t size);
/** Releases a slot; call before unmapping. [any-thread] */
void blyan_fault_release(int32_t slot);
/** Offset of the first fault of a registered mapping, or -1. [any-thread] */
int64_t blyan_fault_offset(int32_t slot);
/** Faults so far in the whole process; compare before and after a step. [any-thread] */
uint64_t blyan_fault_count(void);

#endif
