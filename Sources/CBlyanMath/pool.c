/* Threads that share a step's work. A worker spins for a moment after a task, since the next one follows within
 * microseconds while a token is computed, then parks on a condition variable.
 *
 * Whoever runs work waits for those workers alone that have begun on it: one that the system has not let run yet, since
 * something else has its processor, finds the round closed and holds nobody up. And he waits asleep, not by yielding: a
 * processor that is idle takes over a worker that stands behind other work, one that spins does not. */
#define _GNU_SOURCE
#include "blyan_math.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

/* About 20 µs on the machines at hand. */
#define SPINS 4000
/* About 200 µs: falling asleep and being woken takes a part of that. */
#define YIELDS 200

/* `gate`: the number of the round, whether it still takes workers, and how many are at it. */
#define WORKERS 0xffffffu
#define OPEN (1ull << 24)
#define ROUND (1ull << 25)

struct blyan_pool {
    uint32_t threads;
    int background;
    pthread_t *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_cond_t done;
    _Atomic uint32_t parked;
    _Atomic uint32_t sleeping; /* whether the caller waits for `done` */
    _Atomic uint64_t gate;
    _Atomic int stopping;
    void (*work)(void *, uint32_t);
    void *context;
    uint32_t tasks;
    _Atomic uint32_t next;
};

static void take_tasks(blyan_pool *pool) {
    for (;;) {
        uint32_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->tasks) return;
        pool->work(pool->context, task);
    }
}

void blyan_thread_background(void) {
#if defined(__linux__)
    struct sched_param none = {0};
    sched_setscheduler(0, SCHED_IDLE, &none);
#endif
}

/* Whether the caller of this worker may take tasks of a round: it counts as one that is at it. */
static int enter(blyan_pool *pool, uint64_t gate) {
    while (gate & OPEN)
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) return 1;
    return 0;
}

static void leave(blyan_pool *pool) {
    uint64_t gate = atomic_fetch_sub(&pool->gate, 1) - 1;
    if (gate & (OPEN | WORKERS) || !atomic_load(&pool->sleeping)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
}

int blyan_thread_is_background(void) {
#if defined(__linux__)
    return (sched_getscheduler(0) & ~SCHED_RESET_ON_FORK) == SCHED_IDLE;
#else
    return 0;
#endif
}

static void *worker(void *argument) {
    blyan_pool *pool = argument;
    if (pool->background) blyan_thread_background();
    uint64_t seen = 0;
    for (;;) {
        uint32_t spins = 0;
        uint64_t gate;
        while ((gate = atomic_load_explicit(&pool->gate, memory_order_acquire)) / ROUND == seen) {
            if (spins++ < SPINS) {
                PAUSE();
                continue;
            }
            pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->parked, 1);
            while (atomic_load(&pool->gate) / ROUND == seen && !atomic_load(&pool->stopping))
                pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->parked, 1);
            pthread_mutex_unlock(&pool->lock);
            if (atomic_load(&pool->stopping)) return NULL;
        }
        seen = gate / ROUND;
        if (!enter(pool, gate)) continue;
        take_tasks(pool);
        leave(pool);
    }
}

blyan_pool *blyan_pool_new(uint32_t threads, int background) {
    blyan_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->threads = threads < 1 ? 1 : threads;
    pool->background = background;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->workers = calloc(pool->threads, sizeof *pool->workers);
    uint32_t started = 0;
    while (pool->workers && started + 1 < pool->threads &&
           pthread_create(&pool->workers[started], NULL, worker, pool) == 0)
        started++;
    if (started + 1 == pool->threads) return pool;
    pool->threads = started + 1;
    blyan_pool_free(pool);
    return NULL;
}

void blyan_pool_free(blyan_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stopping, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i + 1 < pool->threads; i++) pthread_join(pool->workers[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool);
}

uint32_t blyan_pool_threads(const blyan_pool *pool) { return pool->threads; }

void blyan_pool_run(blyan_pool *pool, uint32_t tasks, void (*work)(void *context, uint32_t task), void *context) {
    if (pool->threads == 1 || tasks <= 1) {
        for (uint32_t i = 0; i < tasks; i++) work(context, i);
        return;
    }
    pool->work = work;
    pool->context = context;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    /* Nobody is at the last round any more, and it is closed. */
    atomic_fetch_add(&pool->gate, ROUND | OPEN);
    if (atomic_load(&pool->parked) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
    take_tasks(pool);
    if ((atomic_fetch_and(&pool->gate, ~OPEN) & WORKERS) == 0) return;
    for (uint32_t i = 0; i < SPINS + YIELDS; i++) {
        if ((atomic_load_explicit(&pool->gate, memory_order_acquire) & WORKERS) == 0) return;
        if (i < SPINS) {
            PAUSE();
        } else if (!pool->background) {
            sched_yield();
        }
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->sleeping, 1);
    while (atomic_load(&pool->gate) & WORKERS) pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->sleeping, 0);
    pthread_mutex_unlock(&pool->lock);
}
