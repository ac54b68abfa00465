/* turn.c: the turn: read, dispatch, send; and the beginning and the end of the loop around it. */
#include <errno.h>

#include "base/causes.h"
#include "base/host.h"
#include "base/sys.h"
#include "conn/defer.h"
#include "conn/dismiss.h"
#include "conn/input.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/proxied.h"
#include "conn/rules.h"
#include "conn/slow.h"
#include "conn/stream.h"
#include "conn/windup.h"
#include "loop/accept.h"
#include "loop/command.h"
#include "loop/gate.h"
#include "loop/publish.h"
#include "loop/turn.h"
#include "loop/wait.h"
#include "moving/hold.h"
#include "table/descriptors.h"
#include "table/table.h"
#include "table/timers.h"

static void check_signals(ps_engine *engine)
{
    ps__fail(engine, engine->hooks.check(engine->hooks.context));
}

/* -- the turn ------------------------------------------------------------------------------------------------------ */

/* The server stops, and this one was read for the CREDITs of its streams: they are over. */
static void drain_at_last(ps_engine *engine, ps_conn *conn)
{
    if (conn->flags & PS_REFUSES && conn->state == PS_CONN_ESTABLISHED && !ps__has_streams(engine, conn))
        ps__end(engine, conn, PS_EV_DRAIN, PS_SERVER_STOPPING);
}

/* All that it had accepted is answered, so that what has no answer was not run: its client is told, for it can't know when
 * a request of its own was too late. */
static void settle_at_last(ps_engine *engine, ps_conn *conn)
{
    if (!conn->unsettled || conn->state != PS_CONN_DRAINING || conn->reason != PS_SERVER_STOPPING || conn->in_flight)
        return;
    conn->unsettled = 0;
    ps__last_words(engine, conn, PS_END_SETTLED, 0, NULL);
}

static void flush(ps_engine *engine, ps_conn *conn)
{
    if (conn->state == PS_CONN_CLOSED || conn->flags & PS_OUTPUT_WAITS)
        return;
    ps__send_queue(engine, conn);
    if (conn->state == PS_CONN_CLOSED)
        return;
    ps__streams_go_on(engine, conn);
    ps__resume(engine, conn);
    drain_at_last(engine, conn);
    settle_at_last(engine, conn);
    if (conn->state != PS_CONN_CLOSED)
        ps__settle(engine, conn);
}

/* What becomes dirty meanwhile is dealt with in the next turn, which does not sleep then: nobody is starved. */
static void flush_dirty(ps_engine *engine)
{
    uint32_t slot = engine->dirty;
    engine->dirty = PS_NO_SLOT;
    while (slot != PS_NO_SLOT) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        slot = conn->next_dirty;
        conn->flags &= (uint16_t)~PS_IS_DIRTY;
        flush(engine, conn);
    }
}

static void client_event(ps_engine *engine, const ps_event *event)
{
    ps_conn *conn = ps__table_find(&engine->table, event->key);
    if (!conn)
        return; /* an event from before it was closed */
    if (event->ready & PS_POLL_OUT) {
        if (conn->flags & PS_IS_SENDING)
            conn->flags |= PS_IS_SENT;
        flush(engine, conn);
    }
    bool comes = event->ready & (PS_POLL_IN | PS_POLL_GONE);
    if (comes && ps__reads(engine, conn) && !conn->unread)
        ps__readable(engine, conn);
    else if (comes && ps__stop_watching_input(engine, conn))
        return; /* what is to come is looked at when it is read */
    else if (event->ready & PS_POLL_GONE)
        ps__lost(engine, conn, PS_CLOSED_BY_PEER); /* both directions are shut: nobody takes the replies any more */
}

static void master_event(ps_engine *engine, const ps_event *event)
{
    uint8_t number = (uint8_t)event->key;
    ps__accept(engine, number);
    if (event->ready & PS_POLL_GONE && engine->accepting)
        ps__shut(engine, number);
}

static void watched_event(ps_engine *engine, const ps_event *event)
{
    if (ps__enter(engine) == 0)
        ps__fail(engine, engine->hooks.watched(engine->hooks.context, (int)(event->key - PS_WATCH_KEY)));
}

static void header_event(ps_engine *engine, const ps_event *event)
{
    ps_conn *conn = ps__slot(&engine->table, (uint32_t)event->key - PS_HEADER_KEY);
    if (conn->state == PS_CONN_ACCEPTED)
        ps__take_header(engine, conn);
}

static bool handle_event(ps_engine *engine, const ps_event *event)
{
    if (event->key >> 32)
        client_event(engine, event);
    else if (event->key == PS_WAKE_KEY)
        return true;
    else if (event->key >= PS_HEADER_KEY)
        header_event(engine, event);
    else if (event->key >= PS_WATCH_KEY)
        watched_event(engine, event);
    else if (event->key != PS_TIMER_KEY && engine->accepting)
        master_event(engine, event);
    return false;
}

static void woken(ps_engine *engine)
{
    ps__run_commands(engine);
    if (ps__enter(engine) == 0)
        check_signals(engine);
}

static void run_batches(ps_engine *engine, bool all)
{
    if (engine->batch_due_ns == UINT64_MAX || (!all && engine->batch_due_ns > engine->now_ns))
        return;
    if (ps__enter(engine) == 0)
        ps__fail(engine, engine->hooks.batches(engine->hooks.context, all, &engine->batch_due_ns));
}

static void for_each(ps_engine *engine, void (*act)(ps_engine *, ps_conn *))
{
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (conn->state && conn->state != PS_CONN_CLOSED && !ps__is_packed(conn))
            act(engine, conn);
    }
}

static void send_again(ps_engine *engine, ps_conn *conn)
{
    if (!(conn->flags & PS_IS_STARVED))
        return;
    conn->flags &= (uint16_t)~PS_IS_STARVED;
    flush(engine, conn);
}

static void feed_the_starved(ps_engine *engine)
{
    if (!engine->send_again_ns || engine->send_again_ns > engine->now_ns)
        return;
    engine->send_again_ns = 0;
    for_each(engine, send_again);
}

static void held_up(ps_engine *engine, uint64_t worked_ns)
{
    uint64_t requests = engine->stats.requests - engine->requests_before;
    if (ps__enter(engine) == 0)
        ps__fail(engine, engine->hooks.held_up(engine->hooks.context, worked_ns, requests));
    engine->now_ns = ps__now_ns();
}

/* Handlers may have taken long: whatever is reckoned from now on begins now. How long it took until they might run, where
 * another thread had the GIL, is none of theirs. */
static void work_done(ps_engine *engine)
{
    engine->now_ns = ps__now_ns();
    uint64_t began_ns = engine->look_ns > engine->inside_since_ns ? engine->look_ns : engine->inside_since_ns;
    if (engine->now_ns - began_ns >= __atomic_load_n(&engine->notice_ns, __ATOMIC_RELAXED))
        held_up(engine, engine->now_ns - began_ns);
    engine->requests_before = engine->stats.requests;
    ps__timers_worked(engine);
}

static void expire(ps_engine *engine)
{
    static const uint8_t ends[PS_TIMER_LISTS] = {
        [PS_TIMER_CIR] = PS_END_CIR_LATE,
        [PS_TIMER_FRAME] = PS_END_FRAME_LATE,
        [PS_TIMER_OUTPUT] = PS_END_OUTPUT_STALLED,
        [PS_TIMER_IDLE] = PS_END_IDLE,
    };
    enum ps_timer_list list;
    for (ps_conn *late; (late = ps__timers_pop_late(engine, &list)) != NULL;)
        ps__dismiss(engine, late, (enum ps_end)ends[list], 0, NULL);
    if (ps__timer_first(engine, PS_TIMER_OUTPUT) && !engine->full_looks) /* else nobody is slow, or not all are looked at */
        ps__slow_end(engine);
}

static void end_turn(ps_engine *engine)
{
    run_batches(engine, false);
    ps__defer_tell(engine);
    ps__streams_step(engine);
    expire(engine);
    feed_the_starved(engine);
    if (engine->tell_again_ns && engine->tell_again_ns <= engine->now_ns)
        ps__tell_rest(engine);
    flush_dirty(engine);
    ps__defer_tell(engine); /* whoever works for a client that has gone just now, before that is buried */
    ps__bury(engine);
    ps__start_accepting(engine); /* here: what was closed in this turn has made room */
    if (!engine->inside)
        return;
    check_signals(engine);
    work_done(engine);
    ps__share(engine);
}

static void poll_failed(ps_engine *engine, int error)
{
    ps__look_at_poll(engine);
    ps__fail(engine, error);
}

static void begin_shared_turn(ps_engine *engine, int count)
{
    ps__seat_turn(engine);
    if (count == 0)
        ps__look_at_masters(engine);
}

static void deal_with(ps_engine *engine, int count)
{
    bool wake = false;
    engine->full_looks = count == PS_EVENTS_MAX ? engine->full_looks + 1 : 0;
    if (ps__is_shared(engine))
        begin_shared_turn(engine, count);
    if (count == -EINTR)
        wake = true;
    else if (count < 0)
        poll_failed(engine, count);
    for (int i = 0; i < count; i++)
        wake |= handle_event(engine, &engine->events[i]);
    ps__shake_hands(engine);
    if (wake)
        woken(engine);
    end_turn(engine);
    if (ps__is_shared(engine))
        ps__seat_rest(engine);
}

void ps__loop_turn(ps_engine *engine, int count)
{
    engine->now_ns = engine->look_ns = ps__now_ns();
    deal_with(engine, count);
}

void ps__measured_turn(ps_engine *engine, int count)
{
    engine->now_ns = engine->look_ns = ps__now_ns();
    ps__publish_begin(engine);
    deal_with(engine, count);
    ps__publish(engine);
}

/* -- the end ------------------------------------------------------------------------------------------------------- */

static void lose(ps_engine *engine, ps_conn *conn)
{
    ps__defer_cut_short(engine, conn);
    ps__lost(engine, conn, PS_SERVER_STOPPING);
}

static void stop_accepting(ps_engine *engine)
{
    ps__stop_accepting(engine);
    engine->leave_by_ns = 0;
    if (engine->state == PS_SERVER_SERVING)
        engine->state = (uint8_t)ps_server_next(engine->state, PS_SERVER_DRAIN);
    ps__tell(engine, PS_TELL_DRAINING, 0, 0); /* even if a hook has ended the loop: the master sockets are to be closed */
}

static void drain(ps_engine *engine)
{
    stop_accepting(engine);
    ps__moving_stops(engine);
    run_batches(engine, true);
    for_each(engine, ps__wind_up);
    run_batches(engine, true); /* what was held back for a paused client */
    ps__defer_tell(engine);
    flush_dirty(engine);
    ps__bury(engine);
    work_done(engine);
}

/* Has a stop been asked for, and is its time up? */
static bool stop_wanted(ps_engine *engine, bool *now)
{
    pthread_mutex_lock(&engine->lock);
    bool wanted = engine->stop_wanted;
    *now = wanted && engine->stop_at_ns <= engine->now_ns;
    pthread_mutex_unlock(&engine->lock);
    return wanted;
}

bool ps__loop_goes_on(ps_engine *engine)
{
    bool now;
    if (!stop_wanted(engine, &now))
        return !engine->fatal;
    if (engine->state == PS_SERVER_SERVING)
        ps__look_at_descriptors(engine);
    if (engine->state == PS_SERVER_SERVING && !engine->fatal && (now || !ps__lets_in_first(engine)))
        drain(engine);
    return !engine->fatal && !now && engine->table.used;
}

static void set_running(ps_engine *engine, bool running)
{
    pthread_mutex_lock(&engine->lock);
    engine->thread = pthread_self();
    __atomic_store_n(&engine->running, running, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&engine->lock);
}

static void close_all(ps_engine *engine)
{
    ps__look_at_poll(engine);
    if (engine->accepting || engine->leave_by_ns) /* not in a forked child */
        stop_accepting(engine);
    ps__defer_tell(engine); /* each is told what happened first */
    ps__moving_ends(engine);
    for_each(engine, lose);
    ps__defer_tell(engine);
    flush_dirty(engine); /* only empties the list: all are closed */
    ps__bury(engine);
    ps__tell_rest(engine);
    ps__enter(engine);
    engine->hooks.batches(engine->hooks.context, true, &engine->batch_due_ns); /* its clients are gone: it drops them */
    ps__leave(engine);
}

int ps__loop_begin(ps_engine *engine)
{
    if (engine->state != PS_SERVER_NEW)
        return -EINVAL;
    engine->state = (uint8_t)ps_server_next(engine->state, PS_SERVER_ADOPT);
    engine->state = (uint8_t)ps_server_next(engine->state, PS_SERVER_SERVE);
    engine->accepting = true;
    engine->now_ns = engine->look_ns = engine->rearmed_ns = ps__now_ns();
    ps__seat_open(engine, true);
    set_running(engine, true);
    return 0;
}

int ps__loop_end(ps_engine *engine)
{
    if (engine->meter)
        ps__publish_begin(engine);
    close_all(engine);
    ps__seat_open(engine, false);
    if (engine->meter)
        ps__publish(engine);
    set_running(engine, false);
    engine->state = (uint8_t)ps_server_next(engine->state, PS_SERVER_CLOSE);
    return engine->fatal;
}

int ps__engine_run(ps_engine *engine)
{
    int error = ps__loop_begin(engine);
    if (error < 0)
        return error;
    bool more = !engine->fatal;
    while (more && !engine->meter) {
        ps__loop_turn(engine, ps__wait(engine));
        more = ps__loop_goes_on(engine);
    }
    while (more) {
        ps__measured_turn(engine, ps__wait(engine));
        more = ps__loop_goes_on(engine);
    }
    return ps__loop_end(engine);
}
