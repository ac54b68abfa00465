/* wait.c: where the time of the loop goes that is not work: polling and sleeping. */
#include "base/host.h"
#include "base/linger.h"
#include "base/sys.h"
#include "base/trial.h"
#include "loop/wait.h"
#include "table/backlog.h"
#include "table/descriptors.h"
#include "table/due.h"
#include "table/timers.h"

enum {
    PS_LOOK_NS = 1000 * 1000 * 1000, /* the longest sleep: nobody can wake a loop that has lost its descriptors */
    PS_CONTENDED_LINGER = 10, /* times as long the loop polls where another thread computes: a sleep costs far more then */
};

/* -- waiting for events -------------------------------------------------------------------------------------------- */

static uint64_t until(uint64_t moment_ns, uint64_t now_ns)
{
    return moment_ns == UINT64_MAX ? UINT64_MAX : moment_ns > now_ns ? moment_ns - now_ns : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int64_t ps__sleep_ns(const ps_engine *engine)
{
    if (engine->dirty != PS_NO_SLOT || engine->dead != PS_NO_SLOT || engine->fatal)
        return 0;
    if (engine->deferred.told != PS_NO_SLOT || engine->deferred.ready != PS_NO_SLOT)
        return 0;
    uint64_t now = engine->now_ns, left = least(ps__timers_due_ns(engine), until(engine->batch_due_ns, now));
    left = least(left, until(ps__due_ns(engine), now));
    if (ps__timer_first(engine, PS_TIMER_OUTPUT)) /* else nobody is slow */
        left = least(left, ps__backlog_left_ns(engine));
    if (engine->accept_again_ns)
        left = least(left, until(engine->accept_again_ns, now));
    if (engine->send_again_ns)
        left = least(left, until(engine->send_again_ns, now));
    if (engine->tell_again_ns)
        left = least(left, until(engine->tell_again_ns, now));
    if (engine->leave_by_ns && engine->state == PS_SERVER_SERVING)
        left = least(left, until(engine->leave_by_ns, now));
    if (engine->leave_by_ns || engine->state == PS_SERVER_DRAINING)
        left = least(left, until(__atomic_load_n(&engine->stop_at_ns, __ATOMIC_RELAXED), now));
    return (int64_t)least(left, PS_LOOK_NS);
}

static int look(ps_engine *engine, int64_t timeout_ns)
{
    return engine->poll->wait(engine->poll_handle, engine->events, timeout_ns);
}

/* A request that comes now finds the loop awake, and still inside if it was. For the time of the window from now, not from
 * the beginning of the turn: a client that is being woken by the last reply needs it all. */
static int poll_for(ps_engine *engine, uint64_t window_ns)
{
    int count = look(engine, 0);
    if (count != 0)
        return count;
    uint64_t now = ps__now_ns(), end = now + window_ns;
    while (count == 0 && now < end) {
        count = look(engine, 0);
        now = ps__now_ns();
    }
    ps__linger_polled(&engine->linger, end, now);
    return count;
}

static void try_lingering(ps_engine *engine)
{
    ps_linger *linger = &engine->linger;
    uint64_t done = engine->stats.requests;
    if (linger->tried && ps__trial_is_due(&linger->trial, engine->now_ns, done))
        ps__trial_step(&linger->trial, ps__now_ns(), ps__cpu_ns(), done);
}

/* How long to poll before this sleep. */
static uint64_t linger_window(ps_engine *engine, int64_t most_ns)
{
    uint64_t window = engine->linger.window_ns;
    try_lingering(engine);
    if (!ps__linger_now(&engine->linger))
        return 0;
    if (engine->inside && engine->now_ns < engine->contended_until_ns)
        window *= PS_CONTENDED_LINGER;
    return least(window, (uint64_t)most_ns);
}

static int sleep_for(ps_engine *engine, int64_t most_ns, bool lingered)
{
    ps__leave(engine);
    uint64_t before = lingered ? ps__now_ns() : 0;
    int count = look(engine, most_ns);
    if (lingered)
        ps__linger_miss(&engine->linger, ps__now_ns() - before);
    if (count == 0 && most_ns == PS_LOOK_NS)
        ps__look_at_descriptors(engine);
    return count;
}

/* What is answered later other threads work on: they are let inside as soon as nothing more comes, and not when the loop has
 * polled in vain. But one that computes would stay there. */
static bool workers_wait(const ps_engine *engine)
{
    return engine->deferred.used && engine->now_ns >= engine->contended_until_ns;
}

/* Inside as long as the loop may be, then outside. */
static int poll_before_sleep(ps_engine *engine, uint64_t window_ns)
{
    if (engine->inside) {
        uint64_t here = least(window_ns, until(engine->inside_since_ns + engine->options.inside_max_ns, engine->now_ns));
        if (workers_wait(engine))
            here = 0;
        int count = poll_for(engine, here);
        window_ns -= here;
        if (count != 0 || !window_ns)
            return count;
        ps__leave(engine);
    }
    return poll_for(engine, window_ns);
}

/* The number of events, or -errno; -EINTR if a signal came. */
int ps__wait(ps_engine *engine)
{
    int64_t timeout = ps__sleep_ns(engine);
    if (timeout == 0)
        return look(engine, 0);
    uint64_t window = linger_window(engine, timeout);
    int count = 0;
    if (window)
        count = poll_before_sleep(engine, window);
    else if (engine->inside)
        count = look(engine, 0); /* before it leaves, for nothing perhaps */
    if (count == 0)
        return sleep_for(engine, timeout, window > 0);
    if (window)
        ps__linger_hit(&engine->linger);
    return count;
}
