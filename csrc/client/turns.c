/* turns.c: who waits for a role or an answer sleeps here, and wakes the next as it goes.
 *
 * Answers that came are given out one by one, where their owners come back at once: who has one comes with the next
 * request, and wakes the next owner as it goes to sleep itself, without the GIL. Were all woken together, they would
 * wait for the GIL one behind the other, which costs two changes of threads each. The one that woke rests meanwhile: it
 * still has the reading, which whoever comes takes over. One of those that rest is the guard, and looks from time to time
 * whether anybody has come: a timer for each of them would cost more than the sleep. */
#include <errno.h>
#include <poll.h>

#include "base/sys.h"
#include "client/share.h"

/* How long until the deadline; -1: for ever. */
static int64_t left_of(const ps_caller *call)
{
    uint64_t now = call->deadline_ns == UINT64_MAX ? 0 : ps__now_ns();
    return call->deadline_ns == UINT64_MAX ? -1 : now < call->deadline_ns ? (int64_t)(call->deadline_ns - now) : 0;
}

static int look_for_signals(ps_caller *call, int slept)
{
    if (slept != -EINTR && slept != -ETIMEDOUT)
        return 0;
    if (slept == -ETIMEDOUT && left_of(call) == 0)
        return -ETIMEDOUT;
    if (slept == -ETIMEDOUT && !ps__is_first_thread())
        return 0;
    call->sink->enter(call->sink->context);
    return call->sink->check(call->sink->context);
}

static int sleep_until_woken(ps_caller *call, int64_t left_ns)
{
    call->sink->leave(call->sink->context);
    return look_for_signals(call, ps__futex_wait(&call->woken, 0, ps__share_nap(left_ns)));
}

/* It waits until the kernel takes more, while another reads, who may end: that is seen at the next look. */
static int wait_to_write(ps_link *link, ps_caller *call)
{
    struct pollfd fd = {.fd = link->fd, .events = POLLOUT};
    int64_t left = left_of(call);
    if (left == 0)
        return -ETIMEDOUT;
    call->sink->leave(call->sink->context);
    int ready = ps_sys.ppoll(&fd, 1, ps__share_sooner(left, PS_SHARE_NAP_NS));
    return ready < 0 && ready != -EINTR ? ready : look_for_signals(call, ready);
}

/* One whose answer has come, and who sleeps still. */
static ps_caller *first_ready(ps_link *link)
{
    ps_caller *call = link->calls;
    while (call && !(call->finished && call->sleeps))
        call = call->next;
    return call;
}

/* Until it is woken; the guard also until nobody has begun to read for a while. 0, or why it woke by itself. The lock is
 * held then. */
static int sleep_at_rest(ps_link *link, ps_caller *call, bool guards, uint64_t turn)
{
    int64_t most = guards ? PS_SHARE_REST_NS : PS_SHARE_SIGNAL_NAP_NS;
    for (int64_t all = most;; all += most) {
        int64_t left = ps__share_sooner(left_of(call), most);
        int slept = left ? ps__futex_wait(&call->woken, 0, left) : -ETIMEDOUT;
        ps__share_lock(link);
        if (slept != -ETIMEDOUT || left < most || all >= PS_SHARE_SIGNAL_NAP_NS)
            return slept;
        if (!call->sleeps || link->turn == turn)
            return 0;
        turn = link->turn;
        ps__share_unlock(link);
    }
}

/* It sleeps, and leaves the reading to whoever comes. */
static int rest(ps_link *link, ps_caller *call, bool guards, uint64_t turn)
{
    int slept = sleep_at_rest(link, call, guards, turn);
    if (guards && call->sleeps) { /* it woke by itself */
        bool idle = !link->reader || link->reader->rests;
        link->guard = NULL;
        link->brisk = link->brisk && !(idle && slept == 0);
        if (idle)
            ps__share_read(link, call);
    }
    call->rests = call->sleeps = false;
    call->reads = link->reader == call;
    int result = call->finished ? 1 : link->broken ? link->lost : 2;
    ps__share_unlock(link);
    int error = result == 2 ? look_for_signals(call, slept) : 0;
    return error ? error : result;
}

/* Under the lock, which it gives back. One that was woken and isn't back in the program yet wakes the next when it comes:
 * were this one woken as well, both would want the GIL, and who waits for it may wait for long where others pass it on. */
static int wake_one(ps_link *link, ps_caller *call, ps_caller *next)
{
    bool wakes = !__atomic_load_n(&link->entering, __ATOMIC_RELAXED);
    if (wakes)
        ps__share_awaken(link, next);
    bool guards = !link->guard;
    if (guards)
        link->guard = call;
    uint64_t turn = link->turn;
    call->woken = 0;
    call->sleeps = call->rests = true;
    ps__share_unlock(link);
    call->sink->leave(call->sink->context);
    if (wakes)
        ps__futex_wake(&next->woken);
    return rest(link, call, guards, turn);
}

int ps__share_pass(ps_link *link, ps_caller *call)
{
    ps__share_lock(link);
    ps_caller *next = call->finished ? NULL : first_ready(link);
    int result = call->finished;
    if (!next) {
        ps__share_unlock(link);
        return result;
    }
    link->woke_ns = ps__now_ns();
    if (link->brisk)
        return wake_one(link, call, next);
    for (; next; next = first_ready(link))
        ps__share_rouse(link, next);
    ps__share_unlock(link);
    return 0;
}

int ps__share_follow(ps_link *link, ps_caller *call, bool wants_to_write)
{
    int result = 0;
    ps__share_lock(link);
    bool ready = call->finished || link->broken || ps__share_may_read(link, call) || (wants_to_write && !link->writer);
    if (call->finished)
        result = 1;
    else if (link->broken)
        result = link->lost;
    else if (ps__share_may_read(link, call))
        ps__share_read(link, call);
    if (!ready && !call->writes) {
        link->wants_to_write = link->wants_to_write || wants_to_write;
        call->naps = call->listens && call->turn != link->turn;
        call->turn = link->turn;
        call->woken = 0;
        call->sleeps = true;
    }
    ps__share_unlock(link);
    if (ready)
        return result;
    if (call->writes)
        return wait_to_write(link, call);
    int64_t left = left_of(call);
    result = left == 0 ? -ETIMEDOUT : sleep_until_woken(call, call->naps ? ps__share_sooner(left, PS_SHARE_NAP_NS) : left);
    return result;
}

static bool is_alone(const ps_link *link, bool with_listeners)
{
    for (const ps_caller *call = link->calls; call; call = call->next)
        if (!call->waits_for_end && (with_listeners || !call->listens))
            return false;
    return true;
}

static int wait_for_others(ps_link *link, ps_caller *call, bool with_listeners)
{
    int result = 0;
    while (result == 0) {
        ps__share_lock(link);
        bool alone = is_alone(link, with_listeners);
        call->woken = 0;
        call->sleeps = !alone;
        ps__share_unlock(link);
        if (alone)
            return 0;
        result = sleep_until_woken(call, -1);
    }
    return result;
}

int ps__share_drain(ps_link *link, ps_sink *sink)
{
    ps_caller call = {.sink = sink, .deadline_ns = UINT64_MAX, .waits_for_end = true};
    int result = ps__share_join(link, &call);
    if (result)
        return result == -EPIPE ? 0 : result;
    result = wait_for_others(link, &call, false);
    ps__share_leave(link, &call, 0);
    ps__share_entered(link, &call);
    return result;
}
