/* accept.c: the door: connections are taken from the master sockets, and let in as far as their CIR or turned away. Nothing
 * else ever happens on a master socket.
 *
 * Where accept() fails for want of descriptors or memory the master sockets are left alone for a moment: they would stay
 * readable, and a level-triggered wait would spin. A descriptor that we free ourselves ends the pause at once; one that is
 * freed elsewhere in the process is found when the pause is over. */
#include <errno.h>
#include <string.h>

#include "base/causes.h"
#include "base/socket.h"
#include "base/sys.h"
#include "base/endings.h"
#include "base/wire.h"
#include "conn/admit.h"
#include "conn/dismiss.h"
#include "conn/life.h"
#include "loop/accept.h"
#include "loop/command.h"
#include "loop/gate.h"
#include "table/access.h"
#include "table/descriptors.h"
#include "table/table.h"
#include "table/timers.h"
#include "transport/transport.h"

enum { PS_REARM_NS = 1000 * 1000 * 1000 };

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

/* -- one that comes ------------------------------------------------------------------------------------------------ */

/* As long as the longest text of the table that is said to who isn't let in. */
#define NOTHING 1
#define REFUSED(code, text) sizeof(text)
#define BY_STATE 0
#define ROOM(name, before, ...) char name[before];
typedef union longest_text {
    PS_ENDINGS(ROOM)
} longest_text;
#undef NOTHING
#undef REFUSED
#undef BY_STATE
#undef ROOM

/* No room for it, or no right to come in: say so where the framing or the transport can, and close. */
static void turn_away(ps_engine *engine, int fd, const ps_listener *listener, enum ps_end end)
{
    const ps_ending *row = &ps__endings[end];
    uint8_t frame[PS_HEADER_SIZE + sizeof(longest_text)];
    PS_ADD(engine->stats.refused, 1u); /* before it is told: it may ask */
    ps__note(engine, (enum ps_cause)row->cause);
    if (listener->framing->has_texts || listener->transport->open) { /* who greets has words of its own */
        uint32_t size = (uint32_t)strlen(row->before.text);
        ps__write_header(frame, size, row->before.kind, 0, row->before.code, 0);
        memcpy(frame + PS_HEADER_SIZE, row->before.text, size);
        listener->transport->last_words(fd, frame, PS_HEADER_SIZE + size);
        ps__discard_input(fd, engine->in, PS_READ_MAX);
    }
    ps__close_fd(engine, &engine->newcomer);
}

static void drop_from_crowd(ps_engine *engine, ps_conn *oldest)
{
    ps__dismiss(engine, oldest, PS_END_CROWD, 0, NULL);
}

/* Is there room for one more? A crowd of silent clients must not keep the door shut: the one that has waited longest
 * goes, where too many wait, and where the server is full and it had time enough to say something. */
static bool make_way(ps_engine *engine)
{
    const ps_limits *limits = &engine->options.limits;
    ps_conn *oldest = ps__timer_first(engine, PS_TIMER_CIR);
    if (oldest && engine->stats.pending >= limits->max_pending_cir)
        drop_from_crowd(engine, oldest);
    if (engine->stats.clients + engine->stats.pending < limits->max_clients)
        return true;
    oldest = ps__timer_first(engine, PS_TIMER_CIR);
    if (!oldest || ps__timer_age_ms(engine, oldest, PS_TIMER_CIR) < PS_CROWD_MS)
        return false;
    drop_from_crowd(engine, oldest);
    return true;
}

static ps_conn *take_slot(ps_engine *engine, const ps_conn *newcomer)
{
    pthread_mutex_lock(&engine->lock);
    ps_conn *conn = ps__table_add(&engine->table);
    if (conn) {
        conn->fd = newcomer->fd;
        engine->newcomer = -1;
        conn->listener = newcomer->listener;
        conn->family = newcomer->family;
        conn->origin = newcomer->origin;
        conn->peer_port = newcomer->peer_port;
        memcpy(conn->peer, newcomer->peer, sizeof conn->peer);
        conn->reason = PS_NO_REASON;
        conn->max_reply = engine->options.limits.max_payload;
        conn->connected_at_ns = ps__wall_ns();
    }
    pthread_mutex_unlock(&engine->lock);
    return conn;
}

static void begin_life(ps_engine *engine, ps_conn *conn)
{
    const ps_transport *transport = ps__listener(engine, conn)->transport;
    PS_ADD(engine->stats.pending, 1u);
    if (conn->family != AF_UNIX && !ps__listener(engine, conn)->prepared) {
        ps__no_delay(conn->fd);
        ps__watch_over(conn->fd, &engine->options.limits);
    }
    bool proxied = ps__listener(engine, conn)->proxy; /* then it says first for whom it is, see conn/proxied.c */
    conn->awaits_header = proxied;
    uint64_t key = proxied ? PS_HEADER_KEY + (uint64_t)conn->slot : ps__id(conn);
    if ((!proxied && ps__count_peer(engine, conn) < 0) || (transport->open && transport->open(engine, conn) < 0) ||
        engine->poll->add(engine->poll_handle, conn->fd, key, PS_POLL_IN) < 0) {
        ps__no_memory(engine, conn);
        return;
    }
    conn->interest = PS_POLL_IN;
    if (engine->options.limits.idle_timeout_ns && !transport->open)
        ps__timer_start(engine, conn, PS_TIMER_IDLE);
    if (transport->open || proxied || ps__framing(engine, conn)->has_cir)
        ps__timer_start_now(engine, conn, PS_TIMER_CIR);
    else
        ps__let_in(engine, conn);
}

static void count_accepted(ps_engine *engine, const ps_listener *listener)
{
    bool by_tcp = listener->family != AF_UNIX, with_tls = listener->transport != &ps__plain;
    PS_ADD(engine->stats.accepted, 1u);
    engine->came[with_tls ? PS_CAME_TLS : by_tcp ? PS_CAME_TCP : PS_CAME_UNIX]++;
}

static void take_in(ps_engine *engine, int fd, uint8_t number, const struct sockaddr *peer)
{
    const ps_listener *listener = &engine->listeners[number];
    ps_conn newcomer = {.fd = fd, .listener = number, .family = (unsigned)listener->family & 0xFu,
                        .origin = (unsigned)listener->family & 0xFu};
    count_accepted(engine, listener);
    int end = ps__may_connect(engine, &newcomer, peer);
    if (end == PS_NO_END && !make_way(engine))
        end = PS_END_DOOR_FULL;
    ps_conn *conn = end == PS_NO_END ? take_slot(engine, &newcomer) : NULL;
    if (conn)
        begin_life(engine, conn);
    else
        turn_away(engine, fd, listener, end == PS_NO_END ? PS_END_DOOR_NO_MEMORY : (enum ps_end)end);
}

/* -- the master sockets --------------------------------------------------------------------------------------------- */

/* Anew, behind all that wait for it: one that is shared can't be changed (epoll_ctl(2), EPOLLEXCLUSIVE). */
static int watch_shared(ps_engine *engine, uint32_t number, bool watch)
{
    int fd = engine->listeners[number].fd;
    engine->poll->remove(engine->poll_handle, fd);
    return watch ? engine->poll->add(engine->poll_handle, fd, number, PS_POLL_IN | PS_POLL_SHARED) : 0;
}

static int watch_masters(ps_engine *engine, bool watch)
{
    int failed = 0;
    for (uint32_t i = 0; i < engine->listener_count; i++) {
        if (engine->listeners[i].shut)
            continue;
        int error = ps__is_shared(engine)
                        ? watch_shared(engine, i, watch)
                        : engine->poll->change(engine->poll_handle, engine->listeners[i].fd, i, watch ? PS_POLL_IN : 0);
        failed = error < 0 ? error : failed;
    }
    return failed;
}

static void pause_accepting(ps_engine *engine)
{
    ps__note(engine, PS_CAUSE_ACCEPT);
    engine->descriptor_freed = false;
    engine->accept_again_ns = engine->now_ns + PS_PAUSE_ACCEPT_MS * 1000000u;
    watch_masters(engine, false);
    ps__seat_open(engine, false);
}

/* Others are to have the next ones: until when? */
static void leave_next_ones(ps_engine *engine)
{
    engine->accept_again_ns = engine->now_ns + ps__gate_pause_ns(engine);
    watch_masters(engine, false);
}

/* Once a second at most, by a loop that has nothing to do: a worker that has been stopped, or killed at the wrong moment,
 * may have been woken for a client that still waits, and the kernel wakes no other for it. */
void ps__look_at_masters(ps_engine *engine)
{
    if (!engine->accepting || engine->accept_again_ns || engine->now_ns - engine->rearmed_ns < PS_REARM_NS)
        return;
    engine->rearmed_ns = engine->now_ns;
    watch_masters(engine, true);
}

/* Who made an inherited socket may shut it down: nobody comes through it any more, and it would count as ready for ever. */
void ps__shut(ps_engine *engine, uint8_t number)
{
    ps_listener *listener = &engine->listeners[number];
    ps__note(engine, PS_CAUSE_ACCEPT);
    listener->shut = true;
    engine->poll->remove(engine->poll_handle, listener->fd);
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

static void refuse_waiting(ps_engine *engine, const ps_listener *listener)
{
    ps__close_reserve(engine);
    for (int i = 0; i < PS_ACCEPTS_MAX; i++) {
        int fd = ps__accept_newcomer(engine, listener->fd, NULL, NULL);
        if (fd < 0) /* none waits any more; or somebody else has taken the descriptor */
            break;
        count_accepted(engine, listener);
        turn_away(engine, fd, listener, PS_END_DOOR_FULL);
    }
    ps__open_reserve(engine);
}

/* -- the turn's part ------------------------------------------------------------------------------------------------ */

/* Is the pause over? */
void ps__start_accepting(ps_engine *engine)
{
    if (!engine->accept_again_ns || engine->frozen || (engine->accept_again_ns > engine->now_ns && !engine->descriptor_freed))
        return;
    engine->accept_again_ns = 0;
    engine->descriptor_freed = false;
    ps__open_reserve(engine);
    if (engine->accepting && ps__is_shared(engine)) {
        ps__seat_open(engine, true);
        if (ps__gate_is_shut(engine)) {
            engine->accept_again_ns = engine->now_ns + ps__gate_pause_ns(engine);
            return;
        }
    }
    if (engine->accepting && watch_masters(engine, true) < 0) /* nobody would come in any more: try again */
        engine->accept_again_ns = engine->now_ns + PS_PAUSE_ACCEPT_MS * 1000000u;
}

void ps__freeze(ps_engine *engine)
{
    if (engine->frozen || engine->state > PS_SERVER_SERVING)
        return;
    engine->frozen = true;
    engine->accept_again_ns = UINT64_MAX;
    watch_masters(engine, false);
    ps__seat_open(engine, false);
}

void ps__unfreeze(ps_engine *engine)
{
    if (engine->frozen && engine->accept_again_ns)
        engine->accept_again_ns = 1; /* over when this turn ends */
    engine->frozen = false;
}

void ps__stop_accepting(ps_engine *engine)
{
    engine->accepting = false;
    engine->accept_again_ns = 0;
    ps__seat_open(engine, false);
    for (uint32_t i = 0; i < engine->listener_count; i++)
        engine->poll->remove(engine->poll_handle, engine->listeners[i].fd);
}

/* A stop is wanted. Where others accept on, nobody is to be refused for it: the next ones are theirs from now on, and who has
 * come to this one already is let in before all are told goodbye; for at most half of the grace, as of whoever says nothing.
 * Is there somebody left? */
bool ps__lets_in_first(ps_engine *engine)
{
    if (!ps__is_shared(engine))
        return false;
    if (engine->accepting) {
        if (!ps__gate_others_accept(engine))
            return false;
        ps__stop_accepting(engine);
        engine->leave_by_ns = engine->now_ns + (engine->stop_at_ns - engine->now_ns) / 2;
    }
    return engine->stats.pending && engine->now_ns < engine->leave_by_ns;
}

void ps__accept(ps_engine *engine, uint8_t number)
{
    const ps_listener *listener = &engine->listeners[number];
    bool tcp = listener->family != AF_UNIX;
    int failed = 0, most = ps__is_shared(engine) ? PS_SHARED_ACCEPTS : PS_ACCEPTS_MAX;
    for (int i = 0; i < most && engine->accepting && !engine->accept_again_ns; i++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        int fd = ps__accept_newcomer(engine, listener->fd, tcp ? (struct sockaddr *)&peer : NULL, tcp ? &size : NULL);
        if (fd >= 0) {
            take_in(engine, fd, number, (struct sockaddr *)&peer);
            if (ps__is_shared(engine) && ps__gate_is_shut(engine))
                leave_next_ones(engine);
            continue;
        }
        enum outcome outcome = classify(fd);
        if (outcome == NO_DESCRIPTORS)
            refuse_waiting(engine, listener);
        if (outcome == NO_DESCRIPTORS || outcome == EXHAUSTED)
            pause_accepting(engine);
        if (outcome != AGAIN)
            return;
        if (++failed == most) /* not each connection's own trouble: a rule that forbids them all, say */
            pause_accepting(engine);
    }
}
