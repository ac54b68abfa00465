/* command.c: what others ask of the loop: pushes, closing a client, looking at the table.
 *
 * In the loop's own thread (a handler) a request is carried out at once. From any other thread it becomes a command: a
 * copy on a list under the lock, and one byte in the wakeup pipe if the list was empty. Only the loop touches
 * connections; other threads read the table under the lock, which the loop takes where it adds, removes or names a
 * client. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* -- in the loop --------------------------------------------------------------------------------------------------- */

int ps__push(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    bool is_asked_for = conn->flags & PS_IS_HOLDING && conn->state <= PS_CONN_CHALLENGED;
    if (conn->state != PS_CONN_ESTABLISHED && !is_asked_for)
        return 0;
    if (size > conn->max_reply)
        return -EMSGSIZE;
    PS_ADD(engine->stats.pushes, 1u);
    ps__send(engine, conn, PS_PUSH, 0, 0, data, size, NULL);
    return conn->state != PS_CONN_CLOSED; /* by this one, over its limit */
}

static int64_t push_to_all(ps_engine *engine, const uint8_t *data, size_t size)
{
    int64_t reached = 0;
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (conn->state == PS_CONN_ESTABLISHED)
            reached += ps__push(engine, conn, data, size) > 0;
    }
    return reached;
}

static int disconnect(ps_engine *engine, ps_conn *conn)
{
    ps__end(engine, conn, PS_EV_DRAIN, PS_CLOSED_BY_SERVER);
    return 1;
}

static void carry_out(ps_engine *engine, const ps_command *command)
{
    ps_conn *conn = ps__table_find(&engine->table, command->client_id);
    if (command->kind == PS_DO_BROADCAST)
        push_to_all(engine, command->data, command->size);
    else if (conn && command->kind == PS_DO_PUSH)
        ps__push(engine, conn, command->data, command->size);
    else if (conn)
        disconnect(engine, conn);
}

static ps_command *take_commands(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    ps_command *commands = engine->commands;
    engine->commands = NULL;
    engine->commands_end = &engine->commands;
    engine->commands_size = 0;
    engine->woken = false;
    pthread_mutex_unlock(&engine->lock);
    return commands;
}

void ps__run_commands(ps_engine *engine)
{
    uint8_t bytes[256];
    ssize_t got;
    ps__look_at_descriptors(engine);
    if (engine->wake[0] < 0)
        return; /* the loop ends */
    do
        got = ps_sys.read(engine->wake[0], bytes, sizeof bytes);
    while (got == (ssize_t)sizeof bytes);
    if (got < 0 && got != -EAGAIN && got != -EINTR)
        ps__fail(engine, (int)got); /* it would stay readable, and the loop could not sleep any more */
    for (ps_command *command = take_commands(engine), *next; command; command = next) {
        next = command->next;
        carry_out(engine, command);
        ps__free(command);
    }
}

void ps__free_commands(ps_engine *engine)
{
    for (ps_command *command = take_commands(engine), *next; command; command = next) {
        next = command->next;
        ps__free(command);
    }
}

/* -- from anywhere ------------------------------------------------------------------------------------------------- */

int ps__open_wake(ps_engine *engine)
{
    engine->commands_end = &engine->commands;
    int error = ps_sys.pipe2(engine->wake, O_CLOEXEC | O_NONBLOCK);
    if (error == 0)
        engine->wake_file = ps__file_of(engine->wake[0]);
    return error;
}

/* With the lock held: nobody writes to a descriptor that is somebody else's by now. */
void ps__close_wake(ps_engine *engine)
{
    for (int i = 0; i < 2; i++) {
        if (engine->wake[i] >= 0)
            ps_sys.close(engine->wake[i]);
        engine->wake[i] = -1;
    }
}

int ps_engine_wakeup_fd(const ps_engine *engine)
{
    return engine->wake[1];
}

static bool in_loop(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    bool mine = engine->running && pthread_equal(engine->thread, pthread_self());
    pthread_mutex_unlock(&engine->lock);
    return mine;
}

/* With the lock held: 0, or why the loop does not hear of it. A full pipe is as good as one more byte. */
static int wake(ps_engine *engine)
{
    ssize_t written = 1;
    if (!engine->woken && engine->wake[1] >= 0 && !ps__wake_is_ours(engine))
        return -EBADF; /* it will find that out by itself */
    while (!engine->woken && engine->wake[1] >= 0) {
        written = ps_sys.write(engine->wake[1], "", 1);
        if (written != -EINTR)
            break;
    }
    if (written < 0 && written != -EAGAIN)
        return (int)written;
    engine->woken = true;
    return 0;
}

static int post(ps_engine *engine, enum ps_command_kind kind, uint64_t client_id, const uint8_t *data, size_t size)
{
    ps_command *command = ps_sys.allocate(sizeof *command + size);
    if (!command)
        return -ENOMEM;
    *command = (ps_command){.client_id = client_id, .size = size, .kind = kind};
    if (size)
        memcpy(command->data, data, size);
    pthread_mutex_lock(&engine->lock);
    size_t cost = size + PS_COMMAND_COST;
    bool closes = kind == PS_DO_DISCONNECT; /* it must be possible always */
    bool fits = closes || !engine->commands || engine->commands_size + cost <= PS_COMMANDS_BYTES;
    int error = fits ? wake(engine) : -ENOBUFS; /* the loop takes no command before the lock is free */
    if (error == 0) {
        *engine->commands_end = command;
        engine->commands_end = &command->next;
        engine->commands_size += cost;
    }
    pthread_mutex_unlock(&engine->lock);
    if (error < 0)
        ps__free(command);
    return error < 0 ? error : 1;
}

/* The state of a client as other threads may ask for it; 0 = there is none. */
static int state_of(ps_engine *engine, uint64_t client_id)
{
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_find(&engine->table, client_id);
    int state = conn ? ps__state(conn) : 0;
    pthread_mutex_unlock(&engine->lock);
    return state;
}

/* The largest push that a client takes, as other threads may ask for it; -1 = there is no such client. */
static int64_t most_of(ps_engine *engine, uint64_t client_id)
{
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_find(&engine->table, client_id);
    bool ready = conn && ps__state(conn) == PS_CONN_ESTABLISHED;
    int64_t most = ready ? (int64_t)__atomic_load_n(&conn->max_reply, __ATOMIC_RELAXED) : -1;
    pthread_mutex_unlock(&engine->lock);
    return most;
}

static int post_push(ps_engine *engine, uint64_t client_id, const uint8_t *data, size_t size)
{
    int64_t most = most_of(engine, client_id);
    if (most < 0)
        return 0;
    return size > (size_t)most ? -EMSGSIZE : post(engine, PS_DO_PUSH, client_id, data, size);
}

int ps_engine_push(ps_engine *engine, uint64_t client_id, const uint8_t *data, size_t size)
{
    if (!in_loop(engine))
        return post_push(engine, client_id, data, size);
    ps_conn *conn = ps__table_find(&engine->table, client_id);
    return conn ? ps__push(engine, conn, data, size) : 0;
}

/* How many would get a push of this size, as other threads may ask for it. */
static int64_t count_takers(ps_engine *engine, size_t size)
{
    int64_t takers = 0;
    pthread_mutex_lock(&engine->lock);
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        takers += ps__state(conn) == PS_CONN_ESTABLISHED && size <= __atomic_load_n(&conn->max_reply, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&engine->lock);
    return takers;
}

int64_t ps_engine_broadcast(ps_engine *engine, const uint8_t *data, size_t size)
{
    if (in_loop(engine))
        return push_to_all(engine, data, size);
    int64_t takers = count_takers(engine, size);
    int posted = takers ? post(engine, PS_DO_BROADCAST, 0, data, size) : 0;
    return posted < 0 ? posted : takers;
}

int ps_engine_disconnect(ps_engine *engine, uint64_t client_id)
{
    if (!in_loop(engine))
        return state_of(engine, client_id) ? post(engine, PS_DO_DISCONNECT, client_id, NULL, 0) : 0;
    ps_conn *conn = ps__table_find(&engine->table, client_id);
    return conn ? disconnect(engine, conn) : 0;
}

int ps_engine_stop(ps_engine *engine, uint64_t grace_ns)
{
    uint64_t now = ps__now_ns(), at = grace_ns > UINT64_MAX - now ? UINT64_MAX : now + grace_ns;
    pthread_mutex_lock(&engine->lock);
    if (!engine->stop_wanted || at < engine->stop_at_ns)
        __atomic_store_n(&engine->stop_at_ns, at, __ATOMIC_RELAXED); /* the loop reads it without the lock as well */
    engine->stop_wanted = true;
    engine->woken = false; /* in a signal handler the loop may be about to sleep: always write */
    int error = wake(engine);
    pthread_mutex_unlock(&engine->lock);
    return error;
}

/* -- looking ------------------------------------------------------------------------------------------------------- */

static void format_peer(const ps_conn *conn, char *to, size_t room)
{
    char host[INET6_ADDRSTRLEN];
    to[0] = 0;
    if (conn->family != AF_UNIX && inet_ntop(conn->family, conn->peer, host, sizeof host))
        snprintf(to, room, conn->family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, conn->peer_port);
}

static void copy_row(const ps_conn *conn, ps_info *info)
{
    *info = (ps_info){
        .client_id = ps__id(conn),
        .connected_at_ns = conn->connected_at_ns,
        .requests = __atomic_load_n(&conn->requests, __ATOMIC_RELAXED),
        .bytes_in = __atomic_load_n(&conn->bytes_in, __ATOMIC_RELAXED),
        .bytes_out = __atomic_load_n(&conn->bytes_out, __ATOMIC_RELAXED),
        .queued = __atomic_load_n(&conn->queued, __ATOMIC_RELAXED),
        .in_flight = __atomic_load_n(&conn->in_flight, __ATOMIC_RELAXED),
        .state = (uint32_t)ps__state(conn),
        .fd = conn->fd,
        .master = conn->master,
    };
    if (conn->name)
        strcpy(info->name, conn->name);
    format_peer(conn, info->address, sizeof info->address);
    ps__peer_credentials(conn, info);
}

int ps_engine_info(ps_engine *engine, uint64_t client_id, ps_info *info)
{
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_row(&engine->table, client_id);
    if (conn)
        copy_row(conn, info);
    pthread_mutex_unlock(&engine->lock);
    return conn != NULL;
}

/* A free slot has state 0, and still the marks of the client that was there. */
static bool is_client(const ps_conn *conn)
{
    int state = ps__state(conn);
    return state && state != PS_CONN_CLOSED && __atomic_load_n(&conn->established, __ATOMIC_RELAXED);
}

int ps_engine_attach(ps_engine *engine, uint64_t client_id)
{
    pthread_mutex_lock(&engine->lock);
    ps_conn *conn = ps__table_find(&engine->table, client_id);
    bool client = conn && is_client(conn);
    if (client)
        __atomic_store_n(&conn->attached, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&engine->lock);
    return client;
}

uint64_t ps_engine_find(ps_engine *engine, const char *name)
{
    const ps_conn *found = NULL;
    pthread_mutex_lock(&engine->lock);
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        if (!is_client(conn) || !conn->name || strcmp(conn->name, name) != 0)
            continue;
        if (!found || conn->connected_at_ns >= found->connected_at_ns)
            found = conn;
    }
    uint64_t id = found ? ps__id(found) : 0;
    pthread_mutex_unlock(&engine->lock);
    return id;
}

typedef struct arrival {
    uint64_t at_ns, client_id;
} arrival;

static int compare_arrivals(const void *left, const void *right)
{
    const arrival *a = left, *b = right;
    return a->at_ns < b->at_ns ? -1 : a->at_ns > b->at_ns;
}

static size_t list_arrivals(ps_engine *engine, arrival *list, size_t room)
{
    size_t count = 0;
    pthread_mutex_lock(&engine->lock);
    for (uint32_t slot = 0; slot < engine->table.made && count < room; slot++) {
        const ps_conn *conn = ps__slot(&engine->table, slot);
        if (is_client(conn))
            list[count++] = (arrival){conn->connected_at_ns, ps__id(conn)};
    }
    pthread_mutex_unlock(&engine->lock);
    return count;
}

/* Sorted here and not under the lock, for which the loop would have to wait. */
int64_t ps_engine_ids(ps_engine *engine, uint64_t *ids, size_t room)
{
    arrival *list = ps_sys.allocate(room * sizeof *list);
    if (!list)
        return -ENOMEM;
    size_t count = list_arrivals(engine, list, room);
    qsort(list, count, sizeof *list, compare_arrivals);
    for (size_t i = 0; i < count; i++)
        ids[i] = list[i].client_id;
    ps__free(list);
    return (int64_t)count;
}

void ps_engine_stats(ps_engine *engine, ps_stats *stats)
{
    const uint64_t *from = (const uint64_t *)&engine->stats;
    uint64_t *to = (uint64_t *)stats;
    for (size_t i = 0; i < sizeof *stats / sizeof *to; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
