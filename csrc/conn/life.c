/* life.c: the life of one connection, from the accepted descriptor to the freed slot.
 *
 * A connection never dies in the middle of its own event: ps__lost and ps__settle close the descriptor and put the slot
 * on the list of the dead, and ps__bury frees it at the end of the turn, after the disconnect hook. So a pointer to a
 * connection stays good through everything a handler may do; only its state must be looked at again. */
#include <string.h>

#include "base/causes.h"
#include "base/host.h"
#include "base/socket.h"
#include "base/sys.h"
#include "base/endings.h"
#include "conn/life.h"
#include "conn/part.h"
#include "conn/queue.h"
#include "table/access.h"
#include "table/backlog.h"
#include "table/deferred.h"
#include "table/descriptors.h"
#include "table/gone.h"
#include "table/table.h"
#include "table/timers.h"
#include "table/via.h"
#include "transport/transport.h"

int ps__conn_event(ps_conn *conn, enum ps_conn_event event)
{
    int next = ps_conn_next(conn->state, (int)event);
    if (next > 0)
        __atomic_store_n(&conn->state, (uint8_t)next, __ATOMIC_RELAXED); /* other threads read it in ps_engine_info */
    return next < 0 ? next : 0;
}

static uint64_t poll_key(const ps_conn *conn)
{
    return conn->awaits_header ? PS_HEADER_KEY + (uint64_t)conn->slot : ps__id(conn);
}

static void set_interest(ps_engine *engine, ps_conn *conn, unsigned wanted)
{
    if (wanted == conn->interest)
        return;
    int error = 0;
    if (!wanted) /* taken out: a hang-up would be told again and again, and what was sent before it is still to be read */
        engine->poll->remove(engine->poll_handle, conn->fd);
    else if (!conn->interest)
        error = engine->poll->add(engine->poll_handle, conn->fd, poll_key(conn), wanted);
    else
        error = engine->poll->change(engine->poll_handle, conn->fd, poll_key(conn), wanted);
    conn->interest = error < 0 ? 0 : wanted & 0x3;
    if (error < 0)
        ps__no_memory(engine, conn); /* the kernel has none to watch it */
}

void ps__update_interest(ps_engine *engine, ps_conn *conn)
{
    bool kept = conn->flags & PS_PAUSED_PENDING && conn->interest & PS_POLL_IN;
    bool in = conn->state <= PS_CONN_ESTABLISHED && !(conn->flags & (PS_PAUSED_OUTPUT | PS_IS_MOVING)) &&
              (kept || !(conn->flags & PS_PAUSED_PENDING));
    bool out = (conn->out_head || conn->holds || conn->flags & PS_IS_SENDING) && !(conn->flags & (PS_IS_STARVED | PS_OUTPUT_WAITS));
    set_interest(engine, conn, (in ? PS_POLL_IN : 0u) | (out ? PS_POLL_OUT : 0u));
}

bool ps__stop_watching_input(ps_engine *engine, ps_conn *conn)
{
    if (!(conn->interest & PS_POLL_IN) || !(conn->flags & PS_PAUSED_PENDING) || conn->state > PS_CONN_ESTABLISHED)
        return false;
    set_interest(engine, conn, conn->interest & PS_POLL_OUT);
    return true;
}

/* -- the end ------------------------------------------------------------------------------------------------------- */

static void count_gone(ps_engine *engine, const ps_conn *conn)
{
    if (conn->was_let_in) {
        PS_TAKE_ONE(engine->stats.clients);
        PS_ADD(engine->stats.disconnected, 1u);
        engine->left[conn->reason]++;
    } else {
        PS_TAKE_ONE(engine->stats.pending);
    }
    if (conn->reason == PS_TIMED_OUT)
        PS_ADD(engine->stats.timeouts, 1u);
    else if (conn->reason == PS_OVER_A_LIMIT)
        PS_ADD(engine->stats.over_limit, 1u);
}

void ps__drop_proof(ps_conn *conn)
{
    if (conn->was_let_in)
        return;
    ps__free(conn->expected);
    conn->expected = NULL;
}

static bool is_watched(const ps_engine *engine, const ps_conn *conn)
{
    return conn->was_let_in &&
           (conn->object || ps__is_attached(conn) || engine->options.watch_disconnects);
}

/* In one step for whoever looks, under the lock: it isn't a client any more, and has left. Who is told of that may ask who it
 * was. */
static void leave_table(ps_engine *engine, ps_conn *conn, enum ps_conn_event event)
{
    if (!conn->was_let_in) {
        ps__conn_event(conn, event);
        return;
    }
    struct ps_gone *gone = ps__make_gone(conn);
    pthread_mutex_lock(&engine->lock);
    ps__remember_peer(conn);
    ps__conn_event(conn, event);
    gone = ps__remember_gone(engine, conn, gone);
    pthread_mutex_unlock(&engine->lock);
    ps__free(gone);
}

/* event: one that leads to CLOSED. */
static void close_data_socket(ps_engine *engine, ps_conn *conn, enum ps_conn_event event)
{
    leave_table(engine, conn, event);
    ps__close_client(engine, conn);
    for (int link = 0; link < PS_TIMER_LINKS; link++)
        ps__timer_stop(engine, conn, (enum ps_timer_link)link);
    ps__drop_input(engine, conn);
    ps__drop_output(engine, conn);
    ps__deferred_orphan(engine, conn, conn->reason == PS_SERVER_STOPPING ? PS_WHY_STOPPED : PS_WHY_GONE);
    ps__drop_proof(conn);
    ps__uncount_peer(engine, conn);
    count_gone(engine, conn);
    conn->next = engine->dead;
    engine->dead = conn->slot;
    engine->descriptor_freed = true;
}

void ps__stay(ps_engine *engine, ps_conn *conn)
{
    bool held = ps__is_held(conn);
    conn->flags &= (uint16_t)~(PS_IS_MOVING | PS_OUTPUT_WAITS);
    pthread_mutex_lock(&engine->lock);
    __atomic_store_n(&conn->attached, conn->attached & PS_ATTACHED, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&engine->lock);
    ps__timer_wake(engine, conn, PS_LINK_INPUT);
    ps__timer_wake(engine, conn, PS_LINK_IDLE);
    if (!held)
        return;
    ps__timer_wake(engine, conn, PS_LINK_OUTPUT);
    ps__backlog_wake(engine, conn);
}

void ps__moved_away(ps_engine *engine, ps_conn *conn)
{
    ps__drop_proof(conn);
    if (conn->was_let_in)
        PS_TAKE_ONE(engine->stats.clients);
    else
        PS_TAKE_ONE(engine->stats.pending);
    pthread_mutex_lock(&engine->lock);
    ps__conn_event(conn, PS_EV_LOST);
    __atomic_store_n(&conn->was_let_in, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&engine->lock);
    ps__close_client(engine, conn);
    ps__drop_input(engine, conn);
    ps__drop_output(engine, conn);
    ps__uncount_peer(engine, conn);
    conn->next = engine->dead;
    engine->dead = conn->slot;
    engine->descriptor_freed = true;
}

/* It leaves instead of proving that it has the auth key: most likely it has another one. */
static void note_no_proof(ps_engine *engine, const ps_conn *conn, enum ps_reason reason)
{
    if (conn->state == PS_CONN_CHALLENGED && reason == PS_CLOSED_BY_PEER)
        ps__note(engine, PS_CAUSE_PROOF);
}

void ps__lost(ps_engine *engine, ps_conn *conn, enum ps_reason reason)
{
    note_no_proof(engine, conn, reason);
    if (ps_conn_next(conn->state, PS_EV_LOST) < 0)
        return;
    if (conn->reason == PS_NO_REASON)
        conn->reason = reason & 0x7;
    close_data_socket(engine, conn, PS_EV_LOST);
}

void ps__cut_off(ps_engine *engine, ps_conn *conn, enum ps_end end)
{
    ps__note(engine, (enum ps_cause)ps__endings[end].cause);
    ps__lost(engine, conn, (enum ps_reason)ps__endings[end].reason);
}

void ps__no_memory(ps_engine *engine, ps_conn *conn)
{
    ps__cut_off(engine, conn, PS_END_NO_MEMORY);
}

void ps__end(ps_engine *engine, ps_conn *conn, enum ps_conn_event event, enum ps_reason reason)
{
    note_no_proof(engine, conn, reason);
    if (ps__conn_event(conn, event) < 0)
        return;
    if (conn->reason == PS_NO_REASON)
        conn->reason = reason & 0x7;
    ps__deferred_end_streams(engine, conn, event == PS_EV_VIOLATION);
    if (conn->flags & PS_IS_MOVING)
        ps__stay(engine, conn);
    ps__drop_input(engine, conn);
    if (conn->was_let_in) /* one that wasn't let in keeps the deadline for that, or it could stay by taking no refusal */
        ps__timer_stop(engine, conn, PS_LINK_INPUT);
    ps__timer_stop(engine, conn, PS_LINK_IDLE);
    ps__mark_dirty(engine, conn);
}

static void empty_input(ps_engine *engine, const ps_conn *conn)
{
    if (conn->reason != PS_LEFT && conn->reason != PS_CLOSED_BY_PEER)
        ps__discard_input(conn->fd, engine->in, PS_READ_MAX);
}

/* Once a TCP socket is closed, whatever the client still sends is answered by a reset, and then what the kernel took from
 * us and has not sent yet is lost. So it is closed only when all is on its way. */
static bool is_sending(ps_engine *engine, ps_conn *conn)
{
    bool may_get_more = conn->reason != PS_LEFT && conn->reason != PS_CLOSED_BY_PEER;
    if (conn->family == AF_UNIX || !may_get_more || conn->flags & PS_IS_SENT)
        return false;
    if (!(conn->flags & PS_IS_SENDING) && ps__tell_when_sent(conn->fd) < 0)
        return false;
    conn->flags |= PS_IS_SENDING;
    if (!(conn->flags & PS_TIMED_OUTPUT))
        ps__timer_start_now(engine, conn, PS_TIMER_OUTPUT);
    return true;
}

void ps__finish(ps_engine *engine, ps_conn *conn)
{
    const ps_transport *transport = ps__listener(engine, conn)->transport;
    if (transport->finish)
        transport->finish(engine, conn);
}

/* So is the last word of its transport, if it has one. */
static bool holds_last(ps_engine *engine, ps_conn *conn)
{
    ps__finish(engine, conn);
    return conn->holds;
}

void ps__settle(ps_engine *engine, ps_conn *conn)
{
    if (conn->state == PS_CONN_CLOSED || conn == engine->out_conn)
        return;
    if (conn->state != PS_CONN_DRAINING || conn->out_head || conn->in_flight || holds_last(engine, conn) ||
        is_sending(engine, conn)) {
        ps__update_interest(engine, conn);
        return;
    }
    if (conn->unsettled && conn->reason == PS_SERVER_STOPPING) {
        ps__mark_dirty(engine, conn); /* turn.c has a word to say before */
        return;
    }
    empty_input(engine, conn);
    close_data_socket(engine, conn, PS_EV_FLUSHED);
}

static void bury_one(ps_engine *engine, ps_conn *conn)
{
    if (is_watched(engine, conn)) {
        ps__enter(engine);
        ps__fail(engine, engine->hooks.disconnect(engine->hooks.context, conn));
    }
    if (conn->object) {
        ps__enter(engine);
        engine->hooks.object_unref(engine->hooks.context, conn->object);
        conn->object = NULL;
    }
    if (ps__listener(engine, conn)->transport->forget)
        ps__listener(engine, conn)->transport->forget(engine, conn);
    pthread_mutex_lock(&engine->lock);
    ps__complete_gone(engine, conn);
    ps__free(conn->name);
    conn->name = NULL;
    ps__backlog_clear(engine, conn);
    ps__via_forget(engine, conn);
    ps__table_remove(&engine->table, conn);
    pthread_mutex_unlock(&engine->lock);
}

void ps__bury(ps_engine *engine)
{
    uint32_t slot = engine->dead;
    engine->dead = PS_NO_SLOT;
    while (slot != PS_NO_SLOT) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        slot = conn->next;
        if (conn->flags & PS_IS_DIRTY) { /* still on that list: wait for the next turn */
            conn->next = engine->dead;
            engine->dead = conn->slot;
        } else {
            bury_one(engine, conn);
        }
    }
}

/* In a forked child. Nobody is told that it is gone: the parent still has it. */
void ps__conn_leave(ps_conn *conn)
{
    if (!conn->state)
        return;
    ps__leave_fd(&conn->fd);
    if (conn->state != PS_CONN_CLOSED)
        ps__conn_event(conn, PS_EV_LOST);
    conn->was_let_in = conn->attached = 0;
    conn->flags = 0;
    conn->deferred = PS_NO_SLOT;
}
