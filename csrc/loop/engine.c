/* engine.c: how an engine comes to be, is given its listeners, and goes.
 *
 * An engine is the memory of one server: no globals, so several engines in several threads work. It knows no Python: what
 * happens to a request is up to the hooks. */
#include <errno.h>
#include <string.h>

#include "base/framing.h"
#include "base/linger.h"
#include "base/peers.h"
#include "base/poll.h"
#include "base/socket.h"
#include "base/sys.h"
#include "loop/accept.h"
#include "loop/command.h"
#include "loop/engine.h"
#include "loop/fork.h"
#include "table/backlog.h"
#include "table/deferred.h"
#include "table/descriptors.h"
#include "table/gone.h"
#include "table/table.h"
#include "table/timers.h"
#include "table/via.h"
#include "transport/sessions.h"
#include "transport/tls.h"

enum { WELCOME_ROOM = 25 }; /* the fields that aren't the same for all clients are put in front of the welcome */

/* Where in the one block of both the output lies behind the input. Requests are read and replies are written at the same
 * pace. Were the two addresses equal in the low 12 bits, the processor would take each read to depend on the write before
 * (Intel, Optimization Reference Manual, "4-KByte Aliasing"): 8 x 256 costs a fifth more. */
enum { PS_OUT_AT = (PS_HEADER_SIZE + PS_READ_MAX + 4095) / 4096 * 4096 + 2048 };

static void init(ps_engine *engine, const ps_options *options, const ps_hooks *hooks)
{
    memset(engine, 0, sizeof *engine);
    engine->options = *options;
    if (!options->held_up_ns || !hooks->held_up)
        engine->options.held_up_ns = UINT64_MAX;
    engine->notice_ns = engine->options.held_up_ns;
    ps__linger_init(&engine->linger, options->linger_ns);
    engine->hooks = *hooks;
    engine->poll = &ps__epoll;
    engine->poll_handle = engine->wake[0] = engine->wake[1] = engine->reserve = engine->newcomer = engine->timer = -1;
    engine->state = PS_SERVER_NEW;
    engine->dirty = engine->dead = engine->deferred.free = engine->deferred.told = PS_NO_SLOT;
    engine->deferred.ready = PS_NO_SLOT;
    engine->batch_due_ns = UINT64_MAX;
    engine->now_ns = engine->look_ns = ps__now_ns();
    engine->users.seed = engine->addresses.seed = engine->ids_in_flight.seed =(uint64_t)(uintptr_t)engine ^ engine->now_ns;
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
    engine->poll_file = ps__file_of(engine->poll_handle);
    return engine->poll->add(engine->poll_handle, engine->wake[0], PS_WAKE_KEY, PS_POLL_IN);
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
    ps__sessions_close(engine);
    ps__security_close(engine);
    pthread_mutex_lock(&engine->lock);
    ps__poll_is_ours(engine);
    if (engine->poll_handle >= 0)
        engine->poll->close(engine->poll_handle);
    engine->poll_handle = -1;
    if (engine->timer >= 0)
        ps_sys.close(engine->timer);
    engine->timer = -1;
    ps__close_wake(engine);
    ps__backlog_close(engine);
    ps__via_close(engine);
    ps__table_close(&engine->table);
    pthread_mutex_unlock(&engine->lock);
    ps__free(engine->in);
    ps__free(engine->welcome);
    ps__free(engine->ids);
    for (uint32_t i = 0; i < engine->listener_count; i++) {
        ps__free(engine->listeners[i].trusted);
        engine->listeners[i].trusted = NULL;
    }
    engine->in = engine->out = engine->welcome = NULL;
    engine->ids = NULL;
    ps__peers_close(&engine->users);
    ps__peers_close(&engine->addresses);
    ps__ids_close(&engine->ids_in_flight);
    ps__deferred_close(engine);
    ps__close_reserve(engine);
    engine->state = PS_SERVER_CLOSED;
}

void ps__engine_notice(ps_engine *engine, uint64_t least_ns)
{
    uint64_t held_up_ns = engine->options.held_up_ns;
    __atomic_store_n(&engine->notice_ns, least_ns < held_up_ns ? least_ns : held_up_ns, __ATOMIC_RELAXED);
}

void ps__engine_free(ps_engine *engine)
{
    if (!engine)
        return;
    ps__unwatch_forks(engine);
    ps__engine_close(engine);
    ps__free_commands(engine);
    ps__forget_gone(engine);
    ps__free(engine->meter);
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
    unsigned shared = engine->options.seats ? PS_POLL_SHARED : 0;
    int error = engine->poll->add(engine->poll_handle, fd, engine->listener_count, PS_POLL_IN | shared);
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

int ps_engine_expect_proxies(ps_engine *engine, int versions, const ps_network *networks, uint32_t count)
{
    if (!engine->listener_count)
        return -EINVAL;
    ps_listener *last = &engine->listeners[engine->listener_count - 1];
    last->trusted = ps_sys.allocate(count * sizeof *networks + 1);
    if (!last->trusted)
        return -ENOMEM;
    if (count)
        memcpy(last->trusted, networks, count * sizeof *networks);
    last->trusted_count = count;
    last->proxy = (uint8_t)versions;
    return 0;
}
