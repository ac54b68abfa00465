/* echo.h: an engine in a thread of its own, whose hooks send every request back, all in C. What a test
 * starts with echo_begin it ends with echo_end, which checks that nothing is left over. */
#ifndef PYSOCK_ECHO_H
#define PYSOCK_ECHO_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "plug.h"
#include "conn/output.h"
#include "loop/engine.h"
#include "loop/guest.h"
#include "loop/turn.h"
#include "table/table.h"

/* What a payload lies in, as bytes objects are for Python. */
typedef struct echo_object {
    atomic_int users;
    uint8_t data[];
} echo_object;

typedef struct echo {
    ps_engine *engine;
    pthread_t thread;
    int master, family;
    struct sockaddr_storage address;
    socklen_t address_size;
    int result;
    bool inside;
    atomic_int objects, let_in, gone, last_reason, drained, noted;
} echo;

static inline int echo_plug(const echo *e)
{
    return plug(&e->address, e->address_size);
}

/* -- hooks --------------------------------------------------------------------------------------------------------- */

static inline void echo_enter(void *context)
{
    echo *e = context;
    CHECK(!e->inside);
    e->inside = true;
}

static inline void echo_leave(void *context)
{
    echo *e = context;
    CHECK(e->inside);
    e->inside = false;
}

static inline int echo_check(void *context)
{
    echo *e = context;
    CHECK(e->inside);
    return 0;
}

static inline void *echo_object_new(void *context, size_t size, uint8_t **data)
{
    echo *e = context;
    echo_object *o = malloc(sizeof *o + size);
    CHECK(o && e->inside);
    o->users = 1;
    e->objects++;
    *data = o->data;
    return o;
}

static inline void *echo_object_resize(void *context, void *old, size_t size, uint8_t **data)
{
    echo *e = context;
    echo_object *o = realloc(old, sizeof *o + size);
    CHECK(o && e->inside && o->users == 1);
    *data = o->data;
    return o;
}

static inline void echo_object_ref(void *context, void *object)
{
    echo *e = context;
    echo_object *o = object;
    CHECK(e->inside && o->users > 0);
    o->users++;
}

static inline void echo_object_unref(void *context, void *object)
{
    echo *e = context;
    echo_object *o = object;
    CHECK(e->inside && o->users > 0);
    if (--o->users)
        return;
    free(o);
    e->objects--;
}

/* A name that begins with "!" is not let in. */
static inline int echo_connect(void *context, ps_conn *conn, char *reason, size_t room)
{
    echo *e = context;
    CHECK(e->inside);
    if (conn->name && conn->name[0] == '!') {
        snprintf(reason, room, "%s may not come in", conn->name);
        return 1;
    }
    e->let_in++;
    return 0;
}

static inline int echo_request(void *context, ps_conn *conn, const ps_frame *frame, void *o)
{
    echo *e = context;
    const uint8_t *data = frame->payload;
    CHECK(e->inside && conn->state == PS_CONN_ESTABLISHED);
    if (!o && frame->size >= PS_BY_REFERENCE) { /* a large reply comes in an object, as a handler's does */
        uint8_t *copy;
        o = echo_object_new(e, frame->size, &copy);
        data = memcpy(copy, frame->payload, frame->size);
    }
    if (!(frame->flags & PS_NO_REPLY))
        ps__send(e->engine, conn, PS_REPLY, 0, frame->request_id, data, frame->size, o);
    if (o)
        echo_object_unref(e, o);
    return 0;
}

static inline int echo_batches(void *context, bool all, uint64_t *due_ns)
{
    echo *e = context;
    (void)all;
    CHECK(e->inside);
    *due_ns = UINT64_MAX;
    return 0;
}

static inline int echo_disconnect(void *context, ps_conn *conn)
{
    echo *e = context;
    CHECK(e->inside && conn->state == PS_CONN_CLOSED);
    e->last_reason = conn->reason;
    e->gone++;
    return 0;
}

static inline int echo_tell(void *context, enum ps_tell what, uint64_t first, uint64_t second)
{
    echo *e = context;
    CHECK(e->inside && (what != PS_TELL_NOTED || (first < PS_CAUSES && second)));
    e->drained += what == PS_TELL_DRAINING;
    e->noted += what == PS_TELL_NOTED;
    return 0;
}

/* A key that is none: the proof is the client's own nonce. */
static inline int echo_challenge(void *context, const uint8_t *nonce, const char *name, ps_challenge *made)
{
    echo *e = context;
    CHECK(e->inside && name);
    made->size = ps__put_field(made->fields, PS_TAG_NONCE, nonce, PS_NONCE_SIZE);
    memcpy(made->expected, nonce, PS_MAC_SIZE);
    return 0;
}

static inline int echo_prove(void *context, const uint8_t *expected, const uint8_t *got)
{
    echo *e = context;
    CHECK(e->inside);
    return memcmp(expected, got, PS_MAC_SIZE) == 0;
}

/* -- the server ---------------------------------------------------------------------------------------------------- */

static inline ps_options echo_options(uint32_t framing)
{
    const uint64_t second = 1000000000;
    return (ps_options){
        .limits = {.cir_timeout_ns = 30 * second, .frame_timeout_ns = 30 * second, .output_timeout_ns = 30 * second,
                   .output_pause = 1 << 20, .output_drop = 64 << 20, .push_soft = 8 << 20,
                   .push_soft_seconds_ns = 10000000000, .push_hard = 32 << 20, .max_clients = 1000, .max_pending_cir = 100,
                   .max_cir_bytes = 4096, .max_payload = 16 << 20, .max_in_flight = 1024},
        .linger_ns = PS_LINGER_AUTO,
        .inside_max_ns = 6000000,
        .framing = framing,
        .services = 1,
        .watch_disconnects = 1,
    };
}

static bool echo_as_guest; /* how the servers that begin from now on run */

static inline void *echo_main(void *context)
{
    echo *e = context;
    e->result = ps__engine_run(e->engine);
    return NULL;
}

/* In a loop of somebody else's: this one watches the engine's poll, and nothing but that wakes it. */
static inline void *echo_guest_rest(void *context)
{
    echo *e = context;
    struct pollfd watched = {.fd = e->engine->poll_handle, .events = POLLIN};
    while (ps__guest_turn(e->engine))
        CHECK_EQ(poll(&watched, 1, -1), 1);
    e->result = ps__guest_end(e->engine);
    e->inside = false;
    return NULL;
}

static inline void echo_guest_begin(echo *e)
{
    e->inside = true;
    CHECK_EQ(ps__guest_begin(e->engine), 0);
}

static inline void *echo_guest_main(void *context)
{
    echo_guest_begin(context);
    return echo_guest_rest(context);
}

/* An address of the loopback interface for this process alone: at 127.0.0.1 the port of a server that has ended may be given
 * to one of another process. */
static inline uint32_t echo_host(void)
{
    uint32_t host = INADDR_LOOPBACK;
#ifdef __linux__
    host = 127u << 24 | 64u << 16 | (uint32_t)getpid(); /* 2 to the 22nd pids at most: proc(5), pid_max */
#endif
    return htonl(host);
}

/* A Unix socket gets an abstract name from the kernel, a TCP one a port. */
static inline void echo_listen(echo *e, int family)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_addr.s_addr = echo_host()};
    bool tcp = family != AF_UNIX;
    e->family = family;
    e->master = ps_socket_open(family);
    CHECK(e->master >= 0);
    CHECK_EQ(ps_socket_bind(e->master, tcp ? (const uint8_t *)&inet : (const uint8_t *)&local,
                            tcp ? sizeof inet : sizeof local.sun_family), 0);
    CHECK_EQ(ps_socket_listen(e->master, 4096), 0);
    e->address_size = sizeof e->address;
    CHECK_EQ(getsockname(e->master, (struct sockaddr *)&e->address, &e->address_size), 0);
    CHECK_EQ(fcntl(e->master, F_SETFL, O_NONBLOCK), 0); /* the loop accepts until there is nothing left */
}

static inline ps_hooks echo_hooks(echo *e)
{
    return (ps_hooks){
        .context = e, .enter = echo_enter, .leave = echo_leave, .check = echo_check, .connect = echo_connect,
        .request = echo_request, .batches = echo_batches, .disconnect = echo_disconnect, .tell = echo_tell,
        .challenge = echo_challenge, .prove = echo_prove, .object_new = echo_object_new, .object_resize = echo_object_resize,
        .object_ref = echo_object_ref, .object_unref = echo_object_unref,
    };
}

static inline void echo_new(echo *e, const ps_options *options)
{
    const ps_hooks hooks = echo_hooks(e);
    int error;
    memset(e, 0, sizeof *e);
    e->engine = ps__engine_new(options, &hooks, &error);
    CHECK(e->engine);
}

/* A client that was let in, where no loop runs. *peer: its own end. */
static inline ps_conn *echo_seat(echo *e, int type, int *peer)
{
    int ends[2];
    CHECK_EQ(socketpair(AF_UNIX, type, 0, ends), 0);
    ps_conn *conn = ps__table_add(&e->engine->table);
    CHECK(conn && conn->deferred == PS_NO_SLOT);
    conn->fd = ends[0];
    conn->family = AF_UNIX;
    conn->state = PS_CONN_ESTABLISHED;
    conn->interest = PS_POLL_IN;
    conn->was_let_in = 1;
    *peer = ends[1];
    return conn;
}

static inline void echo_open(echo *e, const ps_options *options, int family)
{
    echo_new(e, options);
    echo_listen(e, family);
    CHECK_EQ(ps_engine_add_master(e->engine, e->master, 0), 0);
}

static inline void echo_start(echo *e)
{
    CHECK_EQ(pthread_create(&e->thread, NULL, echo_as_guest ? echo_guest_main : echo_main, e), 0);
}

static inline void echo_begin(echo *e, const ps_options *options, int family)
{
    echo_open(e, options, family);
    echo_start(e);
}

static inline ps_stats echo_stats(echo *e)
{
    ps_stats stats;
    ps_engine_stats(e->engine, &stats);
    return stats;
}

/* Wait for the loop to end, and look at what it leaves behind. */
static inline void echo_wait(echo *e)
{
    CHECK_EQ(pthread_join(e->thread, NULL), 0);
    CHECK_EQ(e->result, 0);
    CHECK(!e->inside);
    CHECK_EQ(e->objects, 0);
    CHECK_EQ(e->drained, 1);
    ps_stats stats = echo_stats(e);
    CHECK_EQ(stats.clients, 0);
    CHECK_EQ(stats.pending, 0);
    CHECK_EQ(stats.established, stats.disconnected);
    CHECK_EQ(stats.established, e->gone);
    ps__engine_free(e->engine);
    CHECK_EQ(ps_socket_close(e->master), 0);
}

static inline void echo_end(echo *e)
{
    CHECK_EQ(ps_engine_stop(e->engine, (uint64_t)PATIENCE_S * 1000000000), 0);
    echo_wait(e);
}

#endif
