/* guest.c: the engine as a guest: somebody else's loop watches the engine's poll, and calls for a turn when it is readable.
 *
 * That loop must not be told of moments, so a timerfd in the poll makes it readable at the next one. It is armed when the
 * earliest moment moves forward, and else left: going off too early it costs a turn, and each setting a system call.
 *
 * The host's tasks want their turn, too: so after a few looks, or a little time, the host's loop goes on, and is told
 * again of what is left, for the poll is level-triggered. Nobody lingers here, since the time isn't the engine's.
 *
 * Between the turns the host's own tasks run in the same thread. What they ask for is left as a command, as another
 * thread's is: they are not within a turn, at whose end it would be sent. But for answers to deferred requests: those are
 * many, so who gives one asks for a turn. */
#include <errno.h>
#include <sys/timerfd.h>
#include <time.h>

#include "base/host.h"
#include "base/sys.h"
#include "loop/command.h"
#include "loop/guest.h"
#include "loop/turn.h"
#include "loop/wait.h"
#include "table/descriptors.h"

enum {
    GUEST_LOOKS = 4,
    GUEST_TURN_NS = 200 * 1000,
    GUEST_CHECK_NS = 1000 * 1000 * 1000, /* the host calls as often, even if nothing is readable */
};

/* -- the timer ----------------------------------------------------------------------------------------------------- */

/* To set it makes it unreadable again. */
static int set_timer(ps_engine *engine, uint64_t at_ns, uint64_t left_ns)
{
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(left_ns / 1000000000u),
                                           .tv_nsec = (long)(left_ns % 1000000000u)}};
    engine->timer_ns = at_ns;
    return engine->timer < 0 ? 0 : ps_sys.timerfd_settime(engine->timer, 0, &when, NULL);
}

/* Without it the engine can't be a guest: an error is the caller's to tell, or ends it. */
static int arm(ps_engine *engine)
{
    uint64_t left = (uint64_t)ps__sleep_ns(engine), at = engine->now_ns + left;
    if (engine->timer_ns > engine->now_ns && at >= engine->timer_ns)
        return 0;
    return set_timer(engine, at, left ? left : 1);
}

/* Watched, and set; where that fails nothing is left of it. */
static int open_timer(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    int fd = ps_sys.timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    engine->timer = fd < 0 ? -1 : fd;
    pthread_mutex_unlock(&engine->lock);
    if (fd < 0)
        return fd;
    int error = engine->poll->add(engine->poll_handle, fd, PS_TIMER_KEY, PS_POLL_IN);
    if (error == 0)
        error = arm(engine);
    if (error < 0)
        ps__close_fd(engine, &engine->timer);
    return error;
}

/* -- between the host and the engine ------------------------------------------------------------------------------- */

void ps__guest_enter(ps_engine *engine, bool anew)
{
    engine->inside = true;
    if (anew)
        engine->now_ns = engine->inside_since_ns = ps__now_ns();
    __atomic_store_n(&engine->running, true, __ATOMIC_RELAXED);
}

void ps__guest_leave(ps_engine *engine)
{
    __atomic_store_n(&engine->running, false, __ATOMIC_RELAXED);
    ps__enter(engine); /* the turn may have let others in */
    engine->inside = false;
}

int ps__guest_begin(ps_engine *engine)
{
    if (engine->state != PS_SERVER_NEW)
        return -EINVAL;
    engine->now_ns = ps__now_ns();
    engine->timer_ns = 0;
    int error = open_timer(engine);
    if (error == 0)
        error = ps__loop_begin(engine);
    if (error < 0)
        return error;
    __atomic_store_n(&engine->running, false, __ATOMIC_RELAXED);
    return engine->fatal;
}

static void look_now_and_then(ps_engine *engine)
{
    if (engine->now_ns - engine->descriptors_ns < GUEST_CHECK_NS)
        return;
    engine->descriptors_ns = engine->now_ns;
    ps__look_at_descriptors(engine);
}

static bool look_and_turn(ps_engine *engine, bool first, bool *found)
{
    int count = engine->poll->wait(engine->poll_handle, engine->events, 0);
    *found = count != 0;
    if (!count && !first)
        return true;
    if (engine->meter)
        ps__measured_turn(engine, count);
    else
        ps__loop_turn(engine, count);
    return ps__loop_goes_on(engine);
}

bool ps__guest_turn(ps_engine *engine)
{
    ps__guest_enter(engine, true);
    look_now_and_then(engine);
    uint64_t end = engine->now_ns + GUEST_TURN_NS;
    bool more = !engine->fatal, found = true;
    for (unsigned looks = 0; more && found && looks < GUEST_LOOKS && engine->now_ns < end; looks++) {
        ps__enter(engine);
        more = look_and_turn(engine, looks == 0, &found);
    }
    if (more)
        ps__fail(engine, arm(engine));
    ps__guest_leave(engine);
    return more && !engine->fatal;
}

int ps__guest_end(ps_engine *engine)
{
    ps__guest_enter(engine, true);
    int error = ps__loop_end(engine);
    ps__guest_leave(engine);
    return error;
}
