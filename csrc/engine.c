/* engine.c: the turn: wait, read, dispatch, send; and the beginning and end of the loop around it.
 *
 * An engine is the memory of one server: no globals, so several engines in several threads work. It knows no Python: what
 * happens to a request is up to the hooks. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "internal.h"

enum { WELCOME_ROOM = 11, WAKE_KEY = 0xFFFF }; /* the field with the client id is put in front of the welcome */

/* Where in the one block of both the output lies behind the input. Requests are read and replies are written at the same
 * pace. Were the two addresses equal in the low 12 bits, the processor would take each read to depend on the write before
 * (Intel, Optimization Reference Manual, "4-KByte Aliasing"): 8 x 256 costs a fifth more. */
enum { PS_OUT_AT = (PS_HEADER_SIZE + PS_READ_MAX + 4095) / 4096 * 4096 + 2048 };

/* -- birth and death ----------------------------------------------------------------------------------------------- */

static void init(ps_engine *engine, const ps_options *options, const ps_hooks *hooks)
{
    memset(engine, 0, sizeof *engine);
    engine->options = *options;
    ps__linger_init(&engine->linger, options->linger_ns);
    engine->hooks = *hooks;
    engine->poll = &ps__epoll;
    engine->poll_handle = engine->wake[0] = engine->wake[1] = engine->reserve = engine->newcomer = -1;
    engine->state = PS_SERVER_NEW;
    engine->dirty = engine->dead = PS_NOBODY;
    engine->batch_due_ns = UINT64_MAX;
    engine->now_ns = engine->look_ns = ps__now_ns();
    engine->users.seed = engine->addresses.seed = (uint64_t)(uintptr_t)engine ^ engine->now_ns;
    ps__timers_clear(engine);
    pthread_mutex_init(&engine->lock, NULL);
}

static int copy_ids(ps_engine *engine)
{
    ps_options *options = &engine->options;
    size_t uids = options->uid_count * sizeof *options->uids, gids = options->gid_count * sizeof *options->gids;
    engine->ids = ps_sys.allocate(uids + gids + 1);
    if (!engine->ids)
        return -ENOMEM;
    if (uids)
        memcpy(engine->ids, options->uids, uids);
    if (gids)
        memcpy(engine->ids + options->uid_count, options->gids, gids);
    options->uids = engine->ids;
    options->gids = engine->ids + options->uid_count;
    return 0;
}

static int allocate(ps_engine *engine)
{
    engine->in = ps_sys.allocate(PS_OUT_AT + PS_OUT_ROOM + PS_HEADER_SIZE); /* the slack: see gather() in output.c */
    engine->welcome = ps_sys.allocate(WELCOME_ROOM + engine->options.welcome_size);
    if (!engine->in || !engine->welcome || copy_ids(engine) < 0)
        return -ENOMEM;
    engine->out = engine->in + PS_OUT_AT;
    if (engine->options.welcome_size)
        memcpy(engine->welcome + WELCOME_ROOM, engine->options.welcome, engine->options.welcome_size);
    return ps__table_open(&engine->table, engine->options.limits.max_clients + PS_DEAD_ROOM);
}

static int open_poll(ps_engine *engine)
{
    int error = ps__open_wake(engine);
    if (error < 0)
        return error;
    error = engine->poll->open(&engine->poll_handle);
    if (error < 0)
        return error;
    return engine->poll->add(engine->poll_handle, engine->wake[0], WAKE_KEY, PS_POLL_IN);
}

ps_engine *ps__engine_new(const ps_options *options, const ps_hooks *hooks, int *error)
{
    ps_engine *engine = ps_sys.allocate(sizeof *engine);
    *error = -ENOMEM;
    if (!engine)
        return NULL;
    init(engine, options, hooks);
    *error = allocate(engine);
    if (*error == 0)
        *error = open_poll(engine);
    ps__open_reserve(engine);
    if (*error == 0)
        *error = ps__watch_forks(engine);
    if (*error == 0)
        return engine;
    ps__engine_free(engine);
    return NULL;
}

/* What is left can still be asked from other threads: it has no clients, and nothing reaches its loop. */
void ps__engine_close(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    ps__descriptors_are_ours(engine);
    if (engine->poll_handle >= 0)
        engine->poll->close(engine->poll_handle);
    engine->poll_handle = -1;
    ps__close_wake(engine);
    ps__table_close(&engine->table);
    pthread_mutex_unlock(&engine->lock);
    ps__free(engine->in);
    ps__free(engine->welcome);
    ps__free(engine->ids);
    engine->in = engine->out = engine->welcome = NULL;
    engine->ids = NULL;
    ps__peers_close(&engine->users);
    ps__peers_close(&engine->addresses);
    ps__close_reserve(engine);
    engine->state = PS_SERVER_CLOSED;
}

void ps__engine_free(ps_engine *engine)
{
    if (!engine)
        return;
    ps__unwatch_forks(engine);
    ps__engine_close(engine);
    ps__free_commands(engine);
    pthread_mutex_destroy(&engine->lock);
    ps__free(engine);
}

int ps_engine_add_master(ps_engine *engine, int fd, int flags)
{
    if (engine->listener_count == PS_MASTERS_MAX)
        return -ENOSPC;
    int family = ps__family(fd);
    if (family < 0)
        return family;
    int error = engine->poll->add(engine->poll_handle, fd, engine->listener_count, PS_POLL_IN);
    if (error < 0)
        return error;
    engine->listeners[engine->listener_count++] = (ps_listener){
        .fd = fd,
        .family = family,
        .framing = &ps__framings[engine->options.framing],
        .transport = &ps__plain,
        .checked = flags & PS_MASTER_CHECKED,
        .prepared = flags & PS_MASTER_PREPARED,
    };
    return 0;
}

static void check(ps_engine *engine)
{
    ps__fail(engine, engine->hooks.check(engine->hooks.context));
}

/* -- the turn ------------------------------------------------------------------------------------------------------ */

static void flush(ps_engine *engine, ps_conn *conn)
{
    if (conn->state == PS_CONN_CLOSED || conn->flags & PS_IS_HOLDING)
        return;
    ps__send_queue(engine, conn);
    if (conn->state == PS_CONN_CLOSED)
        return;
    ps__resume(engine, conn);
    ps__settle(engine, conn);
}

/* What becomes dirty meanwhile is dealt with in the next turn, which does not sleep then: nobody is starved. */
static void flush_dirty(ps_engine *engine)
{
    uint32_t slot = engine->dirty;
    engine->dirty = PS_NOBODY;
    while (slot != PS_NOBODY) {
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
        conn->flags |= conn->flags & PS_IS_SENDING ? PS_IS_SENT : 0;
        flush(engine, conn);
    }
    if (event->ready & (PS_POLL_IN | PS_POLL_GONE) && ps__reads(engine, conn) && !conn->held)
        ps__readable(engine, conn);
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

static bool handle_event(ps_engine *engine, const ps_event *event)
{
    if (event->key >> 32)
        client_event(engine, event);
    else if (event->key == WAKE_KEY)
        return true;
    else if (engine->accepting)
        master_event(engine, event);
    return false;
}

static void woken(ps_engine *engine)
{
    ps__run_commands(engine);
    if (ps__enter(engine) == 0)
        check(engine);
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
        if (conn->state && conn->state != PS_CONN_CLOSED)
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

/* Handlers may have taken long: whatever is reckoned from now on begins now. */
static void work_done(ps_engine *engine)
{
    engine->now_ns = ps__now_ns();
    ps__timers_worked(engine);
}

static void expire(ps_engine *engine)
{
    enum ps_timer_list list;
    for (ps_conn *late; (late = ps__timers_pop_late(engine, &list)) != NULL;)
        ps__too_late(engine, late, list);
}

static void end_turn(ps_engine *engine)
{
    run_batches(engine, false);
    expire(engine);
    feed_the_starved(engine);
    if (engine->tell_again_ns && engine->tell_again_ns <= engine->now_ns)
        ps__tell_rest(engine);
    flush_dirty(engine);
    ps__bury(engine);
    ps__start_accepting(engine); /* here: what was closed in this turn has made room */
    if (!engine->inside)
        return;
    check(engine);
    work_done(engine);
    ps__share(engine);
}

static void poll_failed(ps_engine *engine, int error)
{
    ps__look_at_descriptors(engine);
    ps__fail(engine, error);
}

static void turn(ps_engine *engine)
{
    bool wake = false;
    int count = ps__wait(engine);
    engine->now_ns = engine->look_ns = ps__now_ns();
    engine->full_looks = count == PS_EVENTS_MAX ? engine->full_looks + 1 : 0;
    if (count == -EINTR)
        wake = true;
    else if (count < 0)
        poll_failed(engine, count);
    for (int i = 0; i < count; i++)
        wake |= handle_event(engine, &engine->events[i]);
    if (wake)
        woken(engine);
    end_turn(engine);
}

/* -- the end ------------------------------------------------------------------------------------------------------- */

/* What was read is served; what lies in the kernel came too late and is told so: a client learns that it was not run. */
static void wind_up(ps_engine *engine, ps_conn *conn)
{
    ps__resume(engine, conn);
    ps__say_goodbye(engine, conn);
    engine->refusing = true;
    if (conn->state == PS_CONN_ESTABLISHED)
        ps__readable(engine, conn);
    engine->refusing = false;
    ps__end(engine, conn, PS_EV_DRAIN, PS_SERVER_STOPPING);
    ps__mark_dirty(engine, conn);
}

static void lose(ps_engine *engine, ps_conn *conn)
{
    ps__lost(engine, conn, PS_SERVER_STOPPING);
}

static void stop_accepting(ps_engine *engine)
{
    ps__stop_accepting(engine);
    if (engine->state == PS_SERVER_SERVING)
        engine->state = (uint8_t)ps_server_next(engine->state, PS_SERVER_DRAIN);
    ps__enter(engine); /* told even if a hook has ended the loop: the master sockets are to be closed */
    ps__fail(engine, engine->hooks.draining(engine->hooks.context));
}

static void drain(ps_engine *engine)
{
    stop_accepting(engine);
    run_batches(engine, true);
    for_each(engine, wind_up);
    run_batches(engine, true); /* what was held back for a paused client */
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

static void serve(ps_engine *engine)
{
    bool now = false;
    while (!engine->fatal && !now) {
        turn(engine);
        if (!stop_wanted(engine, &now))
            continue;
        if (engine->state == PS_SERVER_SERVING)
            ps__look_at_descriptors(engine);
        if (engine->state == PS_SERVER_SERVING && !engine->fatal)
            drain(engine);
        if (engine->table.used == 0)
            return;
    }
}

static void set_running(ps_engine *engine, bool running)
{
    pthread_mutex_lock(&engine->lock);
    engine->thread = pthread_self();
    engine->running = running;
    pthread_mutex_unlock(&engine->lock);
}

static void close_all(ps_engine *engine)
{
    ps__look_at_descriptors(engine);
    if (engine->accepting)
        stop_accepting(engine);
    for_each(engine, lose);
    flush_dirty(engine); /* only empties the list: all are closed */
    ps__bury(engine);
    ps__tell_rest(engine);
    ps__enter(engine);
    engine->hooks.batches(engine->hooks.context, true, &engine->batch_due_ns); /* its clients are gone: it drops them */
    ps__leave(engine);
}

int ps__engine_run(ps_engine *engine)
{
    if (engine->state != PS_SERVER_NEW)
        return -EINVAL;
    engine->state = (uint8_t)ps_server_next(engine->state, PS_SERVER_ADOPT);
    engine->state = (uint8_t)ps_server_next(engine->state, PS_SERVER_SERVE);
    engine->accepting = true;
    engine->now_ns = engine->look_ns = ps__now_ns();
    set_running(engine, true);
    serve(engine);
    close_all(engine);
    set_running(engine, false);
    engine->state = (uint8_t)ps_server_next(engine->state, PS_SERVER_CLOSE);
    return engine->fatal;
}
