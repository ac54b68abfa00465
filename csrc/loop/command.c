/* command.c: what others ask of the loop: pushes, closing a client, a stop; and that a server is lame.
 *
 * In the loop's own thread (a handler) a request is carried out at once. From any other thread it becomes a command: a
 * copy on a list under the lock, and one byte in the wakeup pipe if the list was empty. Only the loop touches
 * connections. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/host.h"
#include "base/sys.h"
#include "conn/push.h"
#include "loop/command.h"
#include "table/descriptors.h"
#include "table/table.h"

enum ps_command_kind { PS_DO_PUSH, PS_DO_BROADCAST, PS_DO_PUSH_TO, PS_DO_DISCONNECT, PS_DO_ASK, PS_DO_ANSWER,
                       PS_DO_MORE, PS_DO_CALL };

typedef struct ps_command {
    struct ps_command *next;
    uint64_t id;  /* of the client; of an answer the handle of its request */
    void *object; /* the answer, or what is to be called; the command's, or NULL */
    size_t size;  /* of the payload */
    size_t count; /* of ids, in data */
    ps_many many; /* what they get, or all */
    enum ps_command_kind kind;
    _Alignas(uint64_t) uint8_t data[];
} ps_command;

/* -- in the loop --------------------------------------------------------------------------------------------------- */

static void carry_out_within(ps_engine *engine, const ps_command *command)
{
    const ps_hooks *hooks = &engine->hooks;
    if (ps__enter(engine) < 0)
        return;
    if (command->kind == PS_DO_ANSWER)
        ps__fail(engine, hooks->answer(hooks->context, command->id, command->object));
    else if (command->kind == PS_DO_MORE)
        ps__fail(engine, hooks->more(hooks->context, command->id, command->object));
    else
        ps__fail(engine, hooks->call(hooks->context, command->object));
}

static void carry_out(ps_engine *engine, const ps_command *command)
{
    ps_conn *conn = ps__table_find(&engine->table, command->id);
    if (command->kind == PS_DO_BROADCAST)
        ps__push_to_all(engine, &command->many, command->size);
    else if (command->kind == PS_DO_PUSH_TO)
        ps__push_to(engine, (const uint64_t *)(const void *)command->data, command->count, &command->many, command->size);
    else if (conn && command->kind == PS_DO_PUSH)
        ps__push(engine, conn, command->data, command->size);
    else if (conn && command->kind == PS_DO_ASK)
        ps__ask(engine, conn, command->data, command->size, 0); /* it was looked at before */
    else if (conn)
        ps__disconnect(engine, conn);
}

/* One with an object only between hooks.enter and hooks.leave. */
static void free_command(ps_engine *engine, ps_command *command)
{
    if (command->object)
        engine->hooks.object_unref(engine->hooks.context, command->object);
    ps__many_drop(&command->many);
    ps__free(command);
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
        if (command->object)
            carry_out_within(engine, command);
        else
            carry_out(engine, command);
        free_command(engine, command);
    }
}

void ps__free_commands(ps_engine *engine)
{
    for (ps_command *command = take_commands(engine), *next; command; command = next) {
        next = command->next;
        free_command(engine, command);
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

bool ps__in_loop(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    bool mine = __atomic_load_n(&engine->running, __ATOMIC_RELAXED) && pthread_equal(engine->thread, pthread_self());
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

/* These must be possible always: there are only so many clients, and only so many requests in flight. */
static bool is_bounded(const ps_command *command)
{
    return command->kind == PS_DO_DISCONNECT || command->object;
}

/* 1: the loop will do it; else the command is freed. */
static int append(ps_engine *engine, ps_command *command)
{
    pthread_mutex_lock(&engine->lock);
    size_t cost = command->size + command->count * sizeof(uint64_t) + PS_COMMAND_COST;
    bool nobody = command->object && engine->wake[1] < 0; /* who would give it back? */
    bool fits = is_bounded(command) || !engine->commands || engine->commands_size + cost <= PS_COMMANDS_BYTES;
    int error = nobody ? -EPIPE : fits ? wake(engine) : -ENOBUFS; /* the loop takes no command before the lock is free */
    if (error == 0) {
        *engine->commands_end = command;
        engine->commands_end = &command->next;
        engine->commands_size += cost;
    }
    pthread_mutex_unlock(&engine->lock);
    if (error < 0) {
        ps__many_drop(&command->many);
        ps__free(command);
    }
    return error < 0 ? error : 1;
}

static int post(ps_engine *engine, enum ps_command_kind kind, uint64_t client_id, const uint8_t *data, size_t size)
{
    ps_command *command = ps_sys.allocate(sizeof *command + size);
    if (!command)
        return -ENOMEM;
    *command = (ps_command){.id = client_id, .size = size, .kind = kind};
    if (size)
        memcpy(command->data, data, size);
    return append(engine, command);
}

/* To these clients, or to all. */
static int post_many(ps_engine *engine, enum ps_command_kind kind, const uint64_t *ids, size_t count, const uint8_t *data,
                     size_t size)
{
    ps_command *command = ps_sys.allocate(sizeof *command + count * sizeof *ids);
    if (!command)
        return -ENOMEM;
    *command = (ps_command){.size = size, .count = count, .kind = kind};
    if (count)
        memcpy(command->data, ids, count * sizeof *ids);
    if (ps__many_make(engine, data, size, &command->many) == 0)
        return append(engine, command);
    ps__free(command);
    return -ENOMEM;
}

static int post_object(ps_engine *engine, enum ps_command_kind kind, uint64_t id, void *object)
{
    ps_command *command = ps_sys.allocate(sizeof *command);
    if (!command)
        return -ENOMEM;
    *command = (ps_command){.id = id, .object = object, .kind = kind};
    return append(engine, command);
}

int ps__post_answer(ps_engine *engine, uint64_t handle, void *object)
{
    return post_object(engine, PS_DO_ANSWER, handle, object);
}

int ps__post_more(ps_engine *engine, uint64_t handle, void *piece)
{
    return post_object(engine, PS_DO_MORE, handle, piece);
}

int ps__post_call(ps_engine *engine, void *object)
{
    return post_object(engine, PS_DO_CALL, 0, object);
}

/* The state of a client as other threads may ask for it; 0 = there is none. */
static int state_of(ps_engine *engine, uint64_t client_id)
{
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_find(&engine->table, client_id);
    int state = conn && !ps__is_packed(conn) ? ps__state(conn) : 0;
    pthread_mutex_unlock(&engine->lock);
    return state;
}

/* The largest push that a client takes, as other threads may ask for it; -1 = there is no such client. */
static int64_t most_of(ps_engine *engine, uint64_t client_id)
{
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_find(&engine->table, client_id);
    bool ready = conn && ps__state(conn) == PS_CONN_ESTABLISHED && !ps__is_packed(conn);
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
    if (!ps__in_loop(engine))
        return post_push(engine, client_id, data, size);
    ps_conn *conn = ps__table_find(&engine->table, client_id);
    return conn ? ps__push(engine, conn, data, size) : 0;
}

static int post_ask(ps_engine *engine, uint64_t client_id, const uint8_t *frame, size_t size, size_t request)
{
    int64_t most = most_of(engine, client_id);
    if (most < 0)
        return 0;
    pthread_mutex_lock(&engine->lock);
    const ps_conn *conn = ps__table_find(&engine->table, client_id);
    bool answers = !conn || __atomic_load_n(&conn->features, __ATOMIC_RELAXED) & PS_FEATURE_ASK;
    pthread_mutex_unlock(&engine->lock);
    if (!answers)
        return -EOPNOTSUPP;
    return request > (size_t)most ? -EMSGSIZE : post(engine, PS_DO_ASK, client_id, frame, size);
}

int ps__engine_ask(ps_engine *engine, uint64_t client_id, const uint8_t *frame, size_t size, size_t request)
{
    if (!ps__in_loop(engine))
        return post_ask(engine, client_id, frame, size, request);
    ps_conn *conn = ps__table_find(&engine->table, client_id);
    return conn ? ps__ask(engine, conn, frame, size, request) : 0;
}

/* The next two with the lock held: as other threads may ask for it. */
static bool would_take(const ps_conn *conn, size_t size)
{
    return ps__state(conn) == PS_CONN_ESTABLISHED && !ps__is_packed(conn) && size <= __atomic_load_n(&conn->max_reply, __ATOMIC_RELAXED);
}

static int64_t count_takers(const ps_engine *engine, size_t size)
{
    int64_t takers = 0;
    for (uint32_t slot = 0; slot < engine->table.made; slot++)
        takers += would_take(ps__slot(&engine->table, slot), size);
    return takers;
}

static int64_t count_among(const ps_engine *engine, const uint64_t *ids, size_t count, size_t size)
{
    int64_t takers = 0;
    for (size_t i = 0; i < count; i++) {
        const ps_conn *conn = ps__table_find(&engine->table, ids[i]);
        takers += conn && would_take(conn, size);
    }
    return takers;
}

/* ids: NULL: to all. */
static int64_t push_inside(ps_engine *engine, const uint64_t *ids, size_t count, const uint8_t *data, size_t size)
{
    ps_many many;
    int error = ps__many_make(engine, data, size, &many);
    if (error < 0)
        return error;
    int64_t reached =
        ids ? ps__push_to(engine, ids, count, &many, size) : ps__push_to_all(engine, &many, size);
    ps__many_drop(&many);
    return reached;
}

static int64_t push_outside(ps_engine *engine, const uint64_t *ids, size_t count, const uint8_t *data, size_t size)
{
    pthread_mutex_lock(&engine->lock);
    int64_t takers = ids ? count_among(engine, ids, count, size) : count_takers(engine, size);
    pthread_mutex_unlock(&engine->lock);
    enum ps_command_kind kind = ids ? PS_DO_PUSH_TO : PS_DO_BROADCAST;
    /* One that is let in meanwhile gets it, too, if it is for all. */
    int posted = takers || !ids ? post_many(engine, kind, ids, count, data, size) : 0;
    return posted < 0 ? posted : takers;
}

int64_t ps_engine_broadcast(ps_engine *engine, const uint8_t *data, size_t size)
{
    return ps__in_loop(engine) ? push_inside(engine, NULL, 0, data, size) : push_outside(engine, NULL, 0, data, size);
}

int64_t ps_engine_push_to(ps_engine *engine, const uint64_t *ids, size_t count, const uint8_t *data, size_t size)
{
    if (!count)
        return 0;
    return ps__in_loop(engine) ? push_inside(engine, ids, count, data, size) : push_outside(engine, ids, count, data, size);
}

int ps_engine_disconnect(ps_engine *engine, uint64_t client_id)
{
    if (!ps__in_loop(engine))
        return state_of(engine, client_id) ? post(engine, PS_DO_DISCONNECT, client_id, NULL, 0) : 0;
    ps_conn *conn = ps__table_find(&engine->table, client_id);
    return conn ? ps__disconnect(engine, conn) : 0;
}

/* No command: nothing is to be done before somebody asks, and it must be possible always. */
void ps_engine_lame(ps_engine *engine, int lame)
{
    __atomic_store_n(&engine->lame, lame != 0, __ATOMIC_RELEASE);
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
