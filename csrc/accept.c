#define _GNU_SOURCE
/* accept.c: the master sockets' side of the turn: connections are taken from them, and nothing else ever happens on them.
 *
 * Where accept() fails for want of descriptors or memory the master sockets are left alone for a moment: they would stay
 * readable, and a level-triggered wait would spin. A descriptor that we free ourselves ends the pause at once. */
#include <errno.h>
#include <stdio.h>

#include "internal.h"

enum outcome { ACCEPTED, DONE, AGAIN, EXHAUSTED };

/* accept(2), "Error handling": Linux passes pending network errors of the new socket on as an error of accept(); they
 * concern that connection alone. */
static enum outcome classify(int error)
{
    switch (-error) {
    case EAGAIN:
        return DONE;
    case EMFILE:
    case ENFILE:
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

static void watch_masters(ps_engine *engine, unsigned interest)
{
    for (uint32_t i = 0; i < engine->master_count; i++)
        engine->poll->change(engine->poll_handle, engine->masters[i].fd, i, interest);
}

static void pause_accepting(ps_engine *engine, int error)
{
    PS_ADD(engine->stats.accept_failures, 1u);
    engine->accept_again_ns = engine->now_ns + PS_PAUSE_ACCEPT_MS * 1000000u;
    watch_masters(engine, 0);
    if (engine->now_ns < engine->logged_accept_ns + 1000000000u && engine->logged_accept_ns)
        return;
    engine->logged_accept_ns = engine->now_ns;
    char text[128];
    snprintf(text, sizeof text, "accept() failed with errno %d; accepting pauses until a descriptor is free", -error);
    ps__log(engine, 30, text);
}

void ps__start_accepting(ps_engine *engine)
{
    if (!engine->accept_again_ns)
        return;
    engine->accept_again_ns = 0;
    if (engine->accepting)
        watch_masters(engine, PS_POLL_IN);
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
    for (int i = 0; i < PS_ACCEPTS_MAX && engine->accepting && !engine->accept_again_ns; i++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        bool tcp = engine->masters[master].family != AF_UNIX;
        int fd = ps_sys.accept4(engine->masters[master].fd, tcp ? (struct sockaddr *)&peer : NULL, tcp ? &size : NULL,
                                SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            ps__admit(engine, fd, master, (struct sockaddr *)&peer);
            continue;
        }
        enum outcome outcome = classify(fd);
        if (outcome == EXHAUSTED)
            pause_accepting(engine, fd);
        if (outcome != AGAIN)
            return;
    }
}
