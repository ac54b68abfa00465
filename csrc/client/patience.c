/* patience.c: how the client waits: it lingers, as the engine does, then sleeps until something can move. */
#include <errno.h>
#include <poll.h>

#include "base/linger.h"
#include "base/sys.h"
#include "base/trial.h"
#include "client/patience.h"

/* A little longer than CPython's switch interval, as in base/host.c: other threads may go on, the server perhaps among
 * them. */
enum { INSIDE_NS = 6 * 1000 * 1000 };

static void weigh_lingering(ps_link *link, uint64_t now)
{
    ps_trial *trial = &link->linger.trial;
    if (!link->linger.tried || !ps__trial_is_due(trial, now, link->frames))
        return;
    if (pthread_equal(link->waiter, pthread_self()))
        ps__trial_step(trial, now, ps__cpu_ns(), link->frames);
    else
        ps__trial_begin_half(trial, now, ps__cpu_ns(), link->frames); /* what it began on another thread's clock */
    link->waiter = pthread_self();
}

/* Who listens beside requests is no part of the trial: its wait is for something else. */
static void begin_to_wait(ps_link *link, const ps_caller *call, ps_patience *p, uint64_t now)
{
    if (!call->listens)
        weigh_lingering(link, now);
    p->lingers = !(call->listens && link->linger.tried) && ps__linger_now(&link->linger);
    p->began_ns = now;
    p->linger_until_ns = p->lingers ? now + link->linger.window_ns : now;
}

void ps__link_waited(ps_link *link, ps_patience *p)
{
    if (p->lingers) {
        ps__linger_polled(&link->linger, p->linger_until_ns, ps__now_ns());
        ps__linger_hit(&link->linger);
    }
    *p = (ps_patience){.deadline_ns = p->deadline_ns};
}

static int64_t time_to_sleep(const ps_caller *call, bool wants_to_write, uint64_t now)
{
    int64_t left = ps__share_nap(call->deadline_ns == UINT64_MAX ? -1 : (int64_t)(call->deadline_ns - now));
    bool naps = wants_to_write && !call->writes; /* another writes: nobody wakes who reads when it is done */
    return naps ? ps__share_sooner(left, PS_SHARE_NAP_NS) : left;
}

int ps__link_wait(ps_link *link, ps_caller *call, ps_patience *p, bool wants_to_write)
{
    ps_sink *sink = call->sink;
    uint64_t now = ps__now_ns();
    if (!p->linger_until_ns)
        begin_to_wait(link, call, p, now);
    if (now >= p->deadline_ns)
        return -ETIMEDOUT;
    if (now < p->linger_until_ns) {
        if (now - p->began_ns > INSIDE_NS || ps__share_is_shared(link))
            sink->leave(sink->context);
        return 0;
    }
    if (p->lingers)
        ps__linger_polled(&link->linger, p->linger_until_ns, now);
    struct pollfd fd = {.fd = link->fd, .events = (short)(POLLIN | (call->writes ? POLLOUT : 0))};
    sink->leave(sink->context);
    ps__share_doze(link, call);
    int ready = ps_sys.ppoll(&fd, 1, time_to_sleep(call, wants_to_write, now));
    bool reads = ps__share_awake(link, call);
    if (p->lingers)
        ps__linger_miss(&link->linger, ps__now_ns() - now);
    p->lingers = false;
    if (ready != -EINTR && ready != 0)
        return ready < 0 && reads ? ready : 0;
    sink->enter(sink->context);
    return sink->check(sink->context);
}
