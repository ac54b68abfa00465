/* fork.c: what fork() does to an engine. A client's link is left by whoever has it.
 *
 * The child has copies of all descriptors, and epoll goes on reporting for them (epoll(7)): they are closed, nothing else.
 * No shutdown(), no epoll_ctl(): both act on what parent and child share. The loop does not exist in the child, unless it
 * is the loop itself that forked, in a handler: then it ends when the handler returns, without another word to anybody.
 *
 * So that the child can know every descriptor, fork() waits for the lock of every engine: while a loop holds it, a
 * descriptor may be open and written down nowhere, or closed and written down still. It waits for a system call at most,
 * for no loop needs anything else under its lock. This must be pthread_atfork(): Python's own hooks can lose the GIL
 * between the lock and the fork, to a loop that then waits for the lock.
 *
 * The list of the engines is the only global there is: whoever forks knows none of them. */
#include <errno.h>

#include "base/causes.h"
#include "base/meter.h"
#include "conn/life.h"
#include "conn/queue.h"
#include "loop/fork.h"
#include "table/deferred.h"
#include "table/descriptors.h"
#include "table/table.h"
#include "table/timers.h"

static pthread_mutex_t engines_lock = PTHREAD_MUTEX_INITIALIZER;
static ps_engine *engines;
static bool is_watching;

/* -- in the child -------------------------------------------------------------------------------------------------- */

static void forget_everybody(ps_engine *engine)
{
    for (uint32_t slot = 0; slot < engine->table.made; slot++)
        ps__conn_leave(ps__slot(&engine->table, slot));
    ps__timers_clear(engine);
    ps__causes_clear(engine);
    ps__gathered_clear(engine);
    engine->dirty = engine->dead = PS_NO_SLOT;
    ps__deferred_forget(engine);
    engine->batch_due_ns = UINT64_MAX;
    engine->accept_again_ns = engine->send_again_ns = 0;
}

void ps_engine_abandon(ps_engine *engine)
{
    ps__descriptors_are_ours(engine);
    ps__leave_fd(&engine->poll_handle);
    ps__leave_fd(&engine->wake[0]);
    ps__leave_fd(&engine->wake[1]);
    ps__leave_fd(&engine->timer);
    ps__leave_fd(&engine->newcomer);
    ps__leave_fd(&engine->reserve);
    if (engine->meter)
        ps__meter_leave(engine->meter);
    if (engine->table.chunks)
        forget_everybody(engine);
    engine->accepting = false;
    engine->leave_by_ns = 0;
    engine->options.seats = NULL; /* the parent sits there */
    engine->fatal = -ECHILD;
}

/* -- around a fork -------------------------------------------------------------------------------------------------- */

static void before_fork(void)
{
    pthread_mutex_lock(&engines_lock);
    for (ps_engine *engine = engines; engine; engine = engine->next)
        pthread_mutex_lock(&engine->lock);
}

static void in_parent(void)
{
    for (ps_engine *engine = engines; engine; engine = engine->next)
        pthread_mutex_unlock(&engine->lock);
    pthread_mutex_unlock(&engines_lock);
}

/* Only what is safe in a signal's handler may be done here. The locks are made anew: they are held by the thread that
 * forked, whom some systems know by another number now. */
static void in_child(void)
{
    for (ps_engine *engine = engines; engine; engine = engine->next) {
        ps_engine_abandon(engine);
        pthread_mutex_init(&engine->lock, NULL);
    }
    pthread_mutex_init(&engines_lock, NULL);
}

/* From now on forks are prepared for. */
int ps__watch_forks(ps_engine *engine)
{
    int error = 0;
    pthread_mutex_lock(&engines_lock);
    if (!is_watching)
        error = pthread_atfork(before_fork, in_parent, in_child);
    if (error == 0) {
        is_watching = true;
        engine->next = engines;
        engines = engine;
    }
    pthread_mutex_unlock(&engines_lock);
    return -error;
}

void ps__unwatch_forks(ps_engine *engine)
{
    pthread_mutex_lock(&engines_lock);
    for (ps_engine **at = &engines; *at; at = &(*at)->next) {
        if (*at == engine) {
            *at = engine->next;
            break;
        }
    }
    pthread_mutex_unlock(&engines_lock);
}
