/* Threads that share a step's work. A worker spins for a moment after a task, since the next one follows within
 * microseconds while a token is computed, then parks on a condition variable. */
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

struct blyan_pool {
    uint32_t threads;
    int background;
    pthread_t *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic uint32_t parked;
    _Atomic uint64_t round;   /* one higher for each run */
    _Atomic int stopping;
    void (*work)(void *, uint32_t);
    void *context;
    uint32_t tasks;
    _Atomic uint32_t next;
    _Atomic uint32_t busy;    /* workers that have not finished this round */
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

static void *worker(void *argument) {
    blyan_pool *pool = argument;
    if (pool->background) blyan_thread_background();
    uint64_t seen = 0;
    for (;;) {
        uint32_t spins = 0;
        while (atomic_load_explicit(&pool->round, memory_order_acquire) == seen) {
            if (spins++ < SPINS) {
                PAUSE();
                continue;
            }
            pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->parked, 1);
            while (atomic_load(&pool->round) == seen && !atomic_load(&pool->stopping))
                pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->parked, 1);
            pthread_mutex_unlock(&pool->lock);
            if (atomic_load(&pool->stopping)) return NULL;
        }
        seen++;
        take_tasks(pool);
        atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
    }
}

blyan_pool *blyan_pool_new(uint32_t threads, int background) {
    blyan_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->threads = threads < 1 ? 1 : threads;
    pool->background = background;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
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
    atomic_store_explicit(&pool->busy, pool->threads - 1, memory_order_relaxed);
    atomic_fetch_add(&pool->round, 1);
    if (atomic_load(&pool->parked) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
    take_tasks(pool);
    uint32_t spins = 0;
    while (atomic_load_explicit(&pool->busy, memory_order_acquire) > 0) {
        if (spins++ < SPINS) {
            PAUSE();
        } else {
            sched_yield();
        }
    }
}
