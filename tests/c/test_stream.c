/* Streams: a piece is asked for, or said to be welcome, only while there is credit and the client takes what is sent; all
 * pieces arrive, in order; each stream ends once. Held against a model, at random; its clients read now and then. */
#include <sys/socket.h>

#include "echo.h"
#include "base/texts.h"
#include "conn/defer.h"
#include "conn/life.h"
#include "conn/stream.h"
#include "table/deferred.h"
#include "table/table.h"

enum { CLIENTS = 3, MOST = 12, STEPS = 60000, NOBODY = -1, WINDOW = 2000, PIECE_MAX = 9000, WAITING_MAX = 64 * 1024 };

/* One stream; the model of it. */
typedef struct made {
    echo_object *lies_in; /* what is kept of it: it has its number */
    uint64_t handle;
    uint32_t id;
    int client; /* NOBODY: it is over */
    int of;     /* whose it is, or was */
    bool is_pulled, is_unwanted, may_send, ends;
    uint64_t limit, sent;   /* by its own account */
    uint64_t told;          /* by flow */
    uint32_t made, arrived; /* pieces */
} made;

typedef struct reader {
    ps_conn *conn;
    int peer;
    uint8_t bytes[PIECE_MAX + 64];
    size_t have;
} reader;

static echo server; /* its loop doesn't run */
static reader clients[CLIENTS];
static made streams[CLIENTS * MOST];
static uint64_t seed = 88172645463325252u;

static made *made_of(const void *object)
{
    uint32_t number;
    memcpy(&number, ((const echo_object *)object)->data, sizeof number);
    CHECK(number < CLIENTS * MOST);
    return &streams[number];
}

/* -- what a handler does ------------------------------------------------------------------------------------------- */

static uint32_t size_of_piece(const made *it)
{
    static const uint32_t sizes[] = {4, 4, 60, 300, PS_BY_REFERENCE, PIECE_MAX};
    return sizes[(it->id + it->made) % (sizeof sizes / sizeof *sizes)];
}

static void over(made *it)
{
    it->client = NOBODY;
    it->handle = 0;
}

/* A piece begins with its number. 1: more may follow. */
static int send_piece(made *it)
{
    uint32_t size = size_of_piece(it);
    uint8_t *data;
    echo_object *piece = echo_object_new(&server, size, &data);
    memset(data, 'p', size);
    memcpy(data, &it->made, sizeof it->made);
    ps_conn *conn = clients[it->client].conn;
    ps_deferred *record = ps__deferred_find(server.engine, it->handle);
    CHECK(record && record->limit == it->limit && record->sent == it->sent);
    it->made++;
    it->sent += size + PS_STREAM_COST;
    int more = ps__stream_send(server.engine, conn, record, data, size, piece, WAITING_MAX);
    echo_object_unref(&server, piece);
    CHECK(more <= 0 || it->sent < it->limit);
    return more;
}

static int on_pull(void *context, ps_conn *conn, uint64_t handle, void *object, uint64_t until_ns)
{
    made *it = made_of(object);
    CHECK(((echo *)context)->inside && it->is_pulled && !it->is_unwanted && it->handle == handle && until_ns);
    CHECK(conn == clients[it->client].conn && !conn->out_head && it->sent < it->limit);
    for (uint32_t count = 1 + random_below(&seed, 20); count; count--) {
        if (!random_below(&seed, 60)) { /* it returns */
            ps_work work;
            CHECK(ps__defer_done(server.engine, handle, &work) == conn && work.object == it->lies_in);
            ps__send(server.engine, conn, PS_REPLY, 0, work.frame.request_id, &it->made, sizeof it->made, NULL);
            echo_object_unref(&server, work.object);
            over(it);
            return 0;
        }
        if (send_piece(it) <= 0)
            return 0;
    }
    return 0;
}

static int on_close(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    made *it = made_of(object);
    CHECK(((echo *)context)->inside && it->is_pulled && !it->is_unwanted && it->id == frame->request_id);
    CHECK(!conn || conn == clients[it->client].conn);
    it->is_unwanted = true;
    return 0;
}

static int on_ended(void *context, void *object, enum ps_why why)
{
    made *it = made_of(object);
    CHECK(((echo *)context)->inside && !it->is_pulled && !it->is_unwanted && why);
    it->is_unwanted = true;
    return 1;
}

static int on_flow(void *context, void *object, int64_t left, uint64_t limit)
{
    made *it = made_of(object);
    CHECK(((echo *)context)->inside && !it->is_pulled && limit >= it->told && limit <= it->limit);
    it->told = limit;
    it->may_send = left > 0;
    CHECK(left <= (int64_t)(it->limit - it->sent) || left == 0);
    return 0;
}

/* -- the other end ------------------------------------------------------------------------------------------------- */

static made *stream_of(int client, uint32_t id)
{
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (streams[i].id == id && streams[i].of == client)
            return &streams[i];
    return NULL;
}

static void take(int client, const ps_frame *frame)
{
    made *it = stream_of(client, frame->request_id);
    CHECK(it && !it->ends);
    it->ends = frame->kind == PS_ERROR || !(frame->flags & PS_MORE);
    if (frame->kind == PS_ERROR)
        return;
    uint32_t number;
    memcpy(&number, frame->payload, sizeof number);
    CHECK(frame->kind == PS_REPLY && number == it->arrived);
    it->arrived += !it->ends;
}

/* So many bytes at most. */
static void read_some(int client, size_t most)
{
    reader *it = &clients[client];
    for (ssize_t got; most; most -= (size_t)got) {
        size_t room = sizeof it->bytes - it->have;
        got = recv(it->peer, it->bytes + it->have, room < most ? room : most, MSG_DONTWAIT);
        if (got <= 0)
            return;
        it->have += (size_t)got;
        ps_frame frame;
        size_t at = 0;
        while (it->have - at >= PS_HEADER_SIZE) {
            ps__read_header(it->bytes + at, &frame);
            if (it->have - at - PS_HEADER_SIZE < frame.size)
                break;
            frame.payload = it->bytes + at + PS_HEADER_SIZE;
            take(client, &frame);
            at += PS_HEADER_SIZE + frame.size;
        }
        memmove(it->bytes, it->bytes + at, it->have -= at);
    }
}

static void come(int client)
{
    const int small = 4096;
    int peer;
    ps_conn *conn = echo_seat(&server, SOCK_STREAM | SOCK_NONBLOCK, &peer);
    CHECK_EQ(setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    conn->reason = PS_NO_REASON;
    conn->max_reply = 1 << 20;
    conn->stream_window = WINDOW;
    conn->features = PS_FEATURE_CANCEL | PS_FEATURE_STREAM;
    server.engine->stats.clients++;
    clients[client] = (reader){.conn = conn, .peer = peer};
}

/* -- steps --------------------------------------------------------------------------------------------------------- */

static made *any_stream(bool there)
{
    size_t count = sizeof streams / sizeof *streams, from = random_below(&seed, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        made *it = &streams[(from + i) % count];
        if ((it->client != NOBODY) == there && (there || it->ends))
            return it;
    }
    return NULL;
}

static void begin_one(void)
{
    static uint32_t next_id;
    made *it = any_stream(false);
    if (!it)
        return;
    uint8_t *data;
    uint32_t number = (uint32_t)(it - streams);
    echo_object *object = echo_object_new(&server, sizeof number, &data);
    memcpy(data, &number, sizeof number);
    int client = (int)random_below(&seed, CLIENTS);
    const ps_frame frame = {.kind = PS_SRM, .flags = PS_TAKES_STREAM, .size = 10, .request_id = ++next_id};
    uint64_t handle = ps__defer(server.engine, clients[client].conn, &frame);
    CHECK(handle && ps__defer_keep(server.engine, handle, object));
    *it = (made){.lies_in = object, .handle = handle, .id = next_id, .client = client, .of = client,
                 .is_pulled = random_below(&seed, 2), .limit = WINDOW};
    ps_deferred *record = ps__deferred_find(server.engine, handle);
    record->is_stream = true;
    if (it->is_pulled)
        ps__stream_pull(server.engine, handle);
    else
        ps__stream_tell(server.engine, record);
}

/* One that sends by itself, as far as it was told that it may; now and then it ends. */
static void send_one(void)
{
    made *it = any_stream(true);
    if (!it || it->is_pulled)
        return;
    while (it->may_send && !it->is_unwanted && it->sent < it->told && random_below(&seed, 10)) {
        it->may_send = send_piece(it) > 0;
        ps__stream_seen(server.engine, it->handle);
    }
    if (random_below(&seed, it->is_unwanted ? 2 : 40))
        return;
    ps_work work;
    ps_conn *conn = ps__defer_done(server.engine, it->handle, &work);
    CHECK(!conn == it->is_unwanted && work.object == it->lies_in);
    if (conn)
        ps__send(server.engine, conn, PS_REPLY, 0, work.frame.request_id, &it->made, sizeof it->made, NULL);
    echo_object_unref(&server, work.object);
    over(it);
}

static void credit_one(void)
{
    made *it = any_stream(true);
    uint8_t bytes[4];
    uint32_t more = random_below(&seed, 3) ? random_below(&seed, 3000) : random_below(&seed, 100000);
    ps_frame frame = {.kind = PS_CREDIT, .size = sizeof bytes, .payload = bytes, .request_id = it ? it->id : 0};
    if (it && !it->is_unwanted)
        it->limit += more;
    ps__put32(bytes, more);
    ps__stream_credit(server.engine, clients[it ? it->client : 0].conn, &frame);
}

static void cancel_one(void)
{
    made *it = any_stream(true);
    if (it && !random_below(&seed, 4))
        CHECK_EQ(ps__defer_cancel(server.engine, clients[it->client].conn, it->id), !it->is_unwanted);
}

static void read_one(void)
{
    read_some((int)random_below(&seed, CLIENTS), random_below(&seed, 20000));
}

/* Those that the loop asks are over then. */
static void tell(void)
{
    ps__defer_tell(server.engine);
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (streams[i].client != NOBODY && streams[i].is_pulled && streams[i].is_unwanted)
            over(&streams[i]);
}

/* As the end of a turn, for all of them. */
static void turn(void)
{
    ps__streams_step(server.engine);
    tell();
    for (int client = 0; client < CLIENTS; client++) {
        ps_conn *conn = clients[client].conn;
        ps__send_queue(server.engine, conn);
        ps__streams_go_on(server.engine, conn);
    }
    ps__leave(server.engine);
}

static void forget_client(int client)
{
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        if (streams[i].of != client)
            continue;
        CHECK(streams[i].client == NOBODY || streams[i].is_unwanted);
        streams[i].ends = true; /* what was on its way to it is lost */
        over(&streams[i]);
    }
}

static void lose_one(void)
{
    int client = (int)random_below(&seed, CLIENTS);
    if (random_below(&seed, 40))
        return;
    ps__lost(server.engine, clients[client].conn, PS_CLOSED_BY_PEER);
    tell();
    forget_client(client);
    server.engine->dirty = PS_NO_SLOT;
    clients[client].conn->flags = 0;
    ps__bury(server.engine);
    ps__leave(server.engine);
    CHECK_EQ(close(clients[client].peer), 0);
    come(client);
}

static void look(void)
{
    unsigned held = 0, ready = 0, there = 0;
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        const made *it = &streams[i];
        const ps_deferred *record = it->handle ? ps__deferred_find(server.engine, it->handle) : NULL;
        CHECK(!record == (it->client == NOBODY));
        CHECK(it->arrived <= it->made);
        if (!record)
            continue;
        there++;
        held += record->is_held;
        ready += record->is_ready;
        CHECK(!record->is_ready || (it->is_pulled && !record->is_held && it->sent < it->limit));
        if (it->is_pulled && !it->is_unwanted && !record->why && it->sent < it->limit)
            CHECK(record->is_ready || record->is_held);
    }
    CHECK_EQ(server.engine->deferred.held, held);
    CHECK(server.engine->deferred.used >= there); /* those that are over, and were to be told something, wait for that */
    uint32_t last = PS_NO_SLOT;
    for (uint32_t slot = server.engine->deferred.ready; slot != PS_NO_SLOT; slot = ps__deferred_at(server.engine, slot)->next_ready) {
        CHECK_EQ(ps__deferred_at(server.engine, slot)->previous_ready, last);
        last = slot;
        CHECK(ready--);
    }
    CHECK(!ready && (last == PS_NO_SLOT || last == server.engine->deferred.last_ready));
}

static void end(void)
{
    for (int client = 0; client < CLIENTS; client++) {
        ps__lost(server.engine, clients[client].conn, PS_SERVER_STOPPING);
        CHECK_EQ(close(clients[client].peer), 0);
    }
    ps__defer_tell(server.engine);
    server.engine->dirty = PS_NO_SLOT;
    ps__bury(server.engine);
    ps__leave(server.engine);
    CHECK_EQ(server.objects, 0);
    CHECK_EQ(server.engine->ids_in_flight.used, 0);
    ps__engine_free(server.engine);
    CHECK_EQ(ps_socket_close(server.master), 0);
}

static void begin(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.max_in_flight = CLIENTS * MOST + 1;
    echo_new(&server, &options);
    server.engine->hooks.pull = on_pull;
    server.engine->hooks.close = on_close;
    server.engine->hooks.ended = on_ended;
    server.engine->hooks.flow = on_flow;
    echo_listen(&server, AF_UNIX);
    CHECK_EQ(ps_engine_add_master(server.engine, server.master, 0), 0);
    for (int client = 0; client < CLIENTS; client++)
        come(client);
}

static void at_random(void)
{
    static void (*const steps[])(void) = {begin_one, send_one, send_one, credit_one, credit_one, credit_one,
                                          cancel_one, read_one, read_one, turn, turn, lose_one};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        streams[i] = (made){.client = NOBODY, .ends = true};
    begin();
    for (unsigned step = 0; step < STEPS; step++) {
        ps__enter(server.engine);
        steps[random_below(&seed, sizeof steps / sizeof *steps)]();
        look();
    }
    end();
}

/* -- the bounds ---------------------------------------------------------------------------------------------------- */

static void credit_has_32_bits(void)
{
    uint8_t bytes[4];
    const ps_frame frame = {.kind = PS_SRM, .flags = PS_TAKES_STREAM, .request_id = 7};
    const ps_frame credit = {.kind = PS_CREDIT, .size = 4, .payload = bytes, .request_id = 7};
    begin();
    ps__enter(server.engine);
    uint8_t *data;
    uint32_t number = 0;
    echo_object *object = echo_object_new(&server, sizeof number, &data);
    memcpy(data, &number, sizeof number);
    ps_conn *conn = clients[0].conn;
    uint64_t handle = ps__defer(server.engine, conn, &frame);
    streams[0] = (made){.handle = handle, .id = 7, .lies_in = object, .limit = 1ull << 40};
    CHECK(ps__defer_keep(server.engine, handle, object));
    ps__stream_credit(server.engine, conn, &credit); /* it isn't one yet */
    CHECK_EQ(ps__deferred_find(server.engine, handle)->limit, WINDOW);
    ps__deferred_find(server.engine, handle)->is_stream = true;
    ps__put32(bytes, UINT32_MAX - WINDOW);
    ps__stream_credit(server.engine, conn, &credit);
    CHECK_EQ(conn->state, PS_CONN_ESTABLISHED);
    CHECK_EQ(ps__deferred_find(server.engine, handle)->limit, UINT32_MAX);
    ps__put32(bytes, 1);
    ps__stream_credit(server.engine, conn, &credit);
    CHECK_EQ(conn->state, PS_CONN_DRAINING);
    CHECK_EQ(conn->reason, PS_PROTOCOL_VIOLATION);
    CHECK_EQ(ps__deferred_find(server.engine, handle)->why, PS_WHY_GONE);
    ps__defer_tell(server.engine);
    CHECK(streams[0].is_unwanted);
    ps_work work;
    CHECK(!ps__defer_done(server.engine, handle, &work));
    echo_object_unref(&server, work.object);
    end();
}

int main(void)
{
    RUN(at_random);
    RUN(credit_has_32_bits);
    return 0;
}
