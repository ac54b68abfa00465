#define _GNU_SOURCE
/* accept.c: the master sockets' side of the turn: connections are taken from them, and nothing else ever happens on them.
 *
 * Where accept() fails for want of descriptors or memory the master sockets are left alone for a moment: they would stay
 * readable, and a level-triggered wait would spin. A descriptor that we free ourselves ends the pause at once; one that is
 * freed elsewhere in the process is found when the pause is over. */
#include <errno.h>

#include "internal.h"

enum outcome { ACCEPTED, DONE, AGAIN, NO_DESCRIPTORS, EXHAUSTED };

/* accept(2), "Error handling": Linux passes pending network errors of the new socket on as an error of accept(); they
 * concern that connection alone. */
static enum outcome classify(int error)
{
    switch (-error) {
    case EAGAIN:
        return DONE;
    case EMFILE:
    case ENFILE:
        return NO_DESCRIPTORS;
    case ENOBUFS:
    case ENOMEM:
        return EXHAUSTED;
    case EINTR:
    case ECONNABORTED:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM: /* a firewall rule */
        return AGAIN;
    default:
        return EXHAUSTED; /* whatever it is, it must not make the loop spin */
    }
}

static int watch_masters(ps_engine *engine, unsigned interest)
{
    int failed = 0;
    for (uint32_t i = 0; i < engine->master_count; i++) {
        if (engine->masters[i].shut)
            continue;
        int error = engine->poll->change(engine->poll_handle, engine->masters[i].fd, i, interest);
        failed = error < 0 ? error : failed;
    }
    return failed;
}

static void pause_accepting(ps_engine *engine)
{
    ps__note(engine, PS_CAUSE_ACCEPT);
    engine->accept_again_ns = engine->now_ns + PS_PAUSE_ACCEPT_MS * 1000000u;
    watch_masters(engine, 0);
}

/* Who made an inherited socket may shut it down: nobody comes through it any more, and it would count as ready for ever. */
void ps__shut(ps_engine *engine, uint8_t master)
{
    ps__note(engine, PS_CAUSE_ACCEPT);
    engine->masters[master].shut = true;
    engine->poll->remove(engine->poll_handle, engine->masters[master].fd);
}

/* -- the reserve: one descriptor that is given up so that those who wait can be told that there is none for them ------ */

void ps__open_reserve(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock); /* see fork.c */
    if (engine->reserve < 0)
        engine->reserve = ps_sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* any kind will do */
    pthread_mutex_unlock(&engine->lock);
}

void ps__close_reserve(ps_engine *engine)
{
    if (engine->reserve >= 0)
        ps__close_fd(engine, &engine->reserve);
}

static void refuse_waiting(ps_engine *engine, int master)
{
    ps__close_reserve(engine);
    for (int i = 0; i < PS_ACCEPTS_MAX; i++) {
        int fd = ps__accept_newcomer(engine, master, NULL, NULL);
        if (fd < 0) /* none waits any more; or somebody else has taken the descriptor */
            break;
        PS_ADD(engine->stats.accepted, 1u);
        ps__turn_away(engine, fd, PS_CAUSE_FULL);
    }
    ps__open_reserve(engine);
}

/* -- the turn's part ------------------------------------------------------------------------------------------------ */

void ps__start_accepting(ps_engine *engine)
{
    if (!engine->accept_again_ns)
        return;
    engine->accept_again_ns = 0;
    ps__open_reserve(engine);
    if (engine->accepting && watch_masters(engine, PS_POLL_IN) < 0) /* nobody would come in any more: try again */
        engine->accept_again_ns = engine->now_ns + PS_PAUSE_ACCEPT_MS * 1000000u;
}

void ps__stop_accepting(ps_engine *engine)
{
    engine->accepting = false;
    engine->accept_again_ns = 0;
    for (uint32_t i = 0; i < engine->master_count; i++)
        engine->poll->remove(engine->poll_handle, engine->masters[i].fd);
}

void ps__accept(ps_engine *engine, uint8_t master)
{
    int failed = 0;
    for (int i = 0; i < PS_ACCEPTS_MAX && engine->accepting && !engine->accept_again_ns; i++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        bool tcp = engine->masters[master].family != AF_UNIX;
        int fd = ps__accept_newcomer(engine, engine->masters[master].fd, tcp ? (struct sockaddr *)&peer : NULL,
                                     tcp ? &size : NULL);
        if (fd >= 0) {
            ps__admit(engine, fd, master, (struct sockaddr *)&peer);
            continue;
        }
        enum outcome outcome = classify(fd);
        if (outcome == NO_DESCRIPTORS)
            refuse_waiting(engine, engine->masters[master].fd);
        if (outcome == NO_DESCRIPTORS || outcome == EXHAUSTED)
            pause_accepting(engine);
        if (outcome != AGAIN)
            return;
        if (++failed == PS_ACCEPTS_MAX) /* not each connection's own trouble: a rule that forbids them all, say */
            pause_accepting(engine);
    }
}
