#define _GNU_SOURCE
#include "blyan_fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

/* begin is 0 in a free slot, 1 in one that is being filled. */
typedef struct slot {
    _Atomic uintptr_t begin;
    _Atomic uintptr_t end;
    _Atomic int64_t first_fault;
} slot;

static slot slots[BLYAN_FAULT_SLOTS];
static _Atomic int32_t used_slots; /* slots ever taken: the handler looks no further */
static _Atomic uint64_t fault_count;
static struct sigaction previous;
static uintptr_t page_size;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int32_t install_error;

static void pass_on(int number, siginfo_t *info, void *context) {
    if (previous.sa_flags & SA_SIGINFO) {
        if (previous.sa_sigaction) previous.sa_sigaction(number, info, context);
        return;
    }
    if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(number);
        return;
    }
    /* The read is retried on return and ends the process as it would have without us. */
    signal(SIGBUS, SIG_DFL);
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    int saved = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    int32_t count = atomic_load_explicit(&used_slots, memory_order_acquire);
    for (int32_t i = 0; i < count; i++) {
        uintptr_t begin = atomic_load_explicit(&slots[i].begin, memory_order_acquire);
        uintptr_t end = atomic_load_explicit(&slots[i].end, memory_order_acquire);
        if (begin <= 1 || address < begin || address >= end) continue;
        /* The slot went to another mapping between the two loads: its end says nothing about this begin. */
        if (atomic_load_explicit(&slots[i].begin, memory_order_acquire) != begin) continue;
        uintptr_t page = address & ~(page_size - 1);
        /* Before the zeros can be read: whoever reads them finds the fault counted. */
        int64_t none = -1;
        atomic_compare_exchange_strong(&slots[i].first_fault, &none, (int64_t)(page - begin));
        atomic_fetch_add_explicit(&fault_count, 1, memory_order_release);
        void *zeros = mmap((void *)page, page_size, PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (zeros == MAP_FAILED) break;
        errno = saved;
        return;
    }
    errno = saved;
    pass_on(number, info, context);
}

static void install(void) {
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct sigaction action = {0};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous) != 0) install_error = errno;
}

int32_t blyan_fault_install(void) {
    pthread_once(&once, install);
    return install_error;
}

int32_t blyan_fault_register(const void *address, uint64_t size) {
    /* No byte of it can fault, and its slot would look free. */
    if (!address || !size) return -1;
    for (int32_t i = 0; i < BLYAN_FAULT_SLOTS; i++) {
        uintptr_t unused = 0;
        if (!atomic_compare_exchange_strong(&slots[i].begin, &unused, 1)) continue;
        atomic_store(&slots[i].first_fault, -1);
        atomic_store(&slots[i].end, (uintptr_t)address + size);
        atomic_store_explicit(&slots[i].begin, (uintptr_t)address, memory_order_release);
        int32_t seen = atomic_load(&used_slots);
        while (seen < i + 1 && !atomic_compare_exchange_weak(&used_slots, &seen, i + 1)) {}
        return i;
    }
    return -1;
}

void blyan_fault_release(int32_t slot_index) {
    if (slot_index < 0 || slot_index >= BLYAN_FAULT_SLOTS) return;
    atomic_store(&slots[slot_index].end, 0);
    atomic_store_explicit(&slots[slot_index].begin, 0, memory_order_release);
}

int64_t blyan_fault_offset(int32_t slot_index) {
    if (slot_index < 0 || slot_index >= BLYAN_FAULT_SLOTS) return -1;
    return atomic_load_explicit(&slots[slot_index].first_fault, memory_order_acquire);
}

uint64_t blyan_fault_count(void) { return atomic_load_explicit(&fault_count, memory_order_acquire); }
