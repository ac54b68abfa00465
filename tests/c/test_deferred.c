/* Requests whose answer comes later: each is answered once, its worker is told once when nobody waits, and its place in
 * flight is free when the work has ended; whatever comes first. Held against a model, at random. */
#include <sys/socket.h>

#include "echo.h"
#include "base/texts.h"
#include "conn/defer.h"
#include "conn/life.h"
#include "conn/pending.h"
#include "conn/rules.h"
#include "loop/command.h"
#include "table/deferred.h"
#include "table/due.h"
#include "table/table.h"

enum { CLIENTS = 4, MOST = 40, STEPS = 60000, NOBODY = -1 };

/* One deferred request; the model of it. */
typedef struct work {
    uint64_t handle, deadline_ns;
    uint32_t id;
    int client; /* NOBODY: it is over */
    enum ps_why why; /* that its worker is to be told, or was */
    bool told, was_told, begun;
    int objects; /* references to it, which are the engine's */
} work;

static echo server; /* its loop doesn't run */
static struct {
    ps_conn *conn;
    int peer;
} clients[CLIENTS];
static work works[CLIENTS * MOST];
static uint64_t seed = 88172645463325252u;

static int on_ended(void *context, void *object, enum ps_why why)
{
    work *it = object;
    CHECK(((echo *)context)->inside && it->objects > 0);
    CHECK(it->why == why && !it->was_told);
    it->was_told = true;
    return it->begun;
}

static void on_ref(void *context, void *object)
{
    (void)context;
    ((work *)object)->objects++;
}

static void on_unref(void *context, void *object)
{
    (void)context;
    CHECK(((work *)object)->objects-- > 0);
}

static void come(int client)
{
    ps_conn *conn = echo_seat(&server, SOCK_STREAM | SOCK_NONBLOCK, &clients[client].peer);
    conn->max_reply = 1 << 20;
    conn->features = PS_FEATURE_CANCEL | PS_FEATURE_DEADLINE;
    server.engine->stats.clients++;
    clients[client].conn = conn;
}

static void begin(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.max_in_flight = MOST;
    echo_new(&server, &options);
    server.engine->hooks.ended = on_ended;
    server.engine->hooks.object_ref = on_ref;
    server.engine->hooks.object_unref = on_unref;
    echo_listen(&server, AF_UNIX);
    CHECK_EQ(ps_engine_add_master(server.engine, server.master, 0), 0);
    for (int client = 0; client < CLIENTS; client++)
        come(client);
}

static work *find_work(int client, bool any)
{
    size_t count = sizeof works / sizeof *works, from = random_below(&seed, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        work *it = &works[(from + i) % count];
        if (any ? it->client != NOBODY : client == NOBODY ? it->client == NOBODY && !it->objects : it->client == client)
            return it;
    }
    return NULL;
}

static unsigned in_flight(int client)
{
    unsigned count = 0;
    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        count += works[i].client == client;
    return count;
}

static void drain_peer(int client)
{
    uint8_t bytes[4096];
    while (recv(clients[client].peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

static void defer_one(void)
{
    static uint32_t next_id;
    int client = (int)random_below(&seed, CLIENTS);
    work *it = find_work(NOBODY, false);
    if (!it || in_flight(client) >= MOST)
        return;
    uint64_t deadline = random_below(&seed, 2) ? server.engine->now_ns + 1 + random_below(&seed, 1000) : 0;
    ps_frame frame = {.kind = PS_SRM, .size = 10, .request_id = ++next_id, .deadline_ns = deadline};
    uint64_t handle = ps__defer(server.engine, clients[client].conn, &frame);
    CHECK(handle && ps__is_in_flight(server.engine, clients[client].conn, &frame));
    *it = (work){.handle = handle, .deadline_ns = deadline, .id = next_id, .client = client};
    it->begun = random_below(&seed, 4);
    it->objects = 1;
    CHECK(ps__defer_keep(server.engine, handle, it));
}

static void answer_one(void)
{
    work *it = find_work(0, true);
    if (!it)
        return;
    ps_work done;
    ps_conn *conn = ps__defer_done(server.engine, it->handle, &done);
    CHECK(conn == (it->was_told ? NULL : clients[it->client].conn));
    CHECK(done.object == it && done.frame.request_id == it->id && it->objects == 1);
    it->objects = 0;
    it->client = NOBODY;
    CHECK(!ps__deferred_find(server.engine, it->handle));
    CHECK(!ps__defer_done(server.engine, it->handle, &done) && !done.object); /* nobody finds it a second time */
    if (conn)
        ps__send(server.engine, conn, PS_REPLY, 0, it->id, "!", 1, NULL);
}

static void cancel_one(void)
{
    work *it = find_work(0, true);
    if (!it)
        return;
    bool is_waiting = !it->was_told;
    CHECK_EQ(ps__defer_cancel(server.engine, clients[it->client].conn, it->id), is_waiting);
    if (!it->why)
        it->why = PS_WHY_CANCELLED;
}

/* The end of a turn, some time later. */
static void tell_all(void)
{
    server.engine->now_ns += random_below(&seed, 400);
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        work *it = &works[i];
        if (it->client != NOBODY && it->deadline_ns && it->deadline_ns <= server.engine->now_ns && !it->why)
            it->why = PS_WHY_LATE;
    }
    ps__defer_tell(server.engine);
    CHECK_EQ(server.engine->deferred.told, PS_NO_SLOT);
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        work *it = &works[i];
        if (it->client == NOBODY)
            continue;
        CHECK_EQ(it->was_told, it->why != PS_WHY_NONE);
        if (it->was_told && !it->begun) /* it is over */
            it->client = NOBODY;
        CHECK_EQ(it->objects, it->client != NOBODY);
    }
    ps__leave(server.engine);
}

static void lose_one(void)
{
    int client = (int)random_below(&seed, CLIENTS);
    if (random_below(&seed, 40))
        return;
    ps__lost(server.engine, clients[client].conn, PS_CLOSED_BY_PEER);
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        work *it = &works[i];
        if (it->client != client)
            continue;
        if (!it->why)
            it->why = PS_WHY_GONE;
        CHECK(!ps__deferred_find(server.engine, it->handle));
        it->client = NOBODY;
    }
    tell_all();
    server.engine->dirty = PS_NO_SLOT;
    clients[client].conn->flags = 0;
    ps__bury(server.engine);
    ps__leave(server.engine);
    CHECK_EQ(close(clients[client].peer), 0);
    come(client);
}

static void look(void)
{
    for (int client = 0; client < CLIENTS; client++) {
        CHECK_EQ(clients[client].conn->in_flight, in_flight(client));
        CHECK_EQ(clients[client].conn->in_flight_bytes, 10 * in_flight(client));
        drain_peer(client);
        ps__send_queue(server.engine, clients[client].conn);
    }
    uint64_t due = UINT64_MAX;
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        const ps_deferred *record = works[i].client == NOBODY ? NULL : ps__deferred_find(server.engine, works[i].handle);
        if (record && record->due_at != PS_NO_SLOT && works[i].deadline_ns < due)
            due = works[i].deadline_ns;
    }
    CHECK_EQ(ps__due_ns(server.engine), due);
}

static void at_random(void)
{
    static void (*const steps[])(void) = {defer_one, defer_one, defer_one, answer_one, cancel_one, tell_all, lose_one};
    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        works[i].client = NOBODY;
    begin();
    for (unsigned step = 0; step < STEPS; step++) {
        steps[random_below(&seed, sizeof steps / sizeof *steps)]();
        look();
    }
    tell_all();
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        if (!works[i].why)
            works[i].why = PS_WHY_STOPPED;
    }
    for (int client = 0; client < CLIENTS; client++) {
        ps__defer_cut_short(server.engine, clients[client].conn);
        ps__lost(server.engine, clients[client].conn, PS_SERVER_STOPPING);
        CHECK_EQ(close(clients[client].peer), 0);
    }
    ps__defer_tell(server.engine);
    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        CHECK(works[i].objects == 0);
    CHECK_EQ(server.engine->ids_in_flight.used, 0);
    server.engine->dirty = PS_NO_SLOT;
    ps__bury(server.engine);
    ps__leave(server.engine);
    ps__engine_free(server.engine);
    CHECK_EQ(ps_socket_close(server.master), 0);
}

/* -- where there is no memory -------------------------------------------------------------------------------------- */

static int fails_in; /* so many allocations from now one fails */

static bool fails(void)
{
    return fails_in && --fails_in == 0;
}

static void *no_block(size_t size)
{
    return fails() ? NULL : malloc(size);
}

static void *no_growth(void *block, size_t size)
{
    return fails() ? NULL : realloc(block, size);
}

static bool defers(uint32_t id)
{
    const ps_frame frame = {.kind = PS_SRM, .size = 10, .request_id = id};
    uint64_t handle = ps__defer(server.engine, clients[0].conn, &frame);
    ps_work done;
    if (handle)
        CHECK(ps__defer_done(server.engine, handle, &done) == clients[0].conn && done.frame.request_id == id);
    CHECK_EQ(clients[0].conn->in_flight, 0);
    return handle;
}

static void each_allocation_fails_once(void)
{
    begin();
    ps_sys.allocate = no_block;
    ps_sys.resize = no_growth;
    for (int at = 1; at <= 2; at++) { /* the records, and their deadlines */
        fails_in = at;
        CHECK(!defers(1) && fails_in == 0);
    }
    fails_in = 3; /* the ids in flight: then it is one that can't be cancelled */
    CHECK(defers(2) && fails_in == 0);
    CHECK(defers(3));
    CHECK_EQ(server.engine->ids_in_flight.used, 0);
    work answer = {.objects = 1};
    fails_in = 1;
    CHECK_EQ(ps__post_answer(server.engine, 1, &answer), -ENOMEM);
    CHECK_EQ(answer.objects, 1); /* it is still the caller's */
    ps_sys.allocate = malloc;
    ps_sys.resize = realloc;
    for (int client = 0; client < CLIENTS; client++) {
        ps__lost(server.engine, clients[client].conn, PS_SERVER_STOPPING);
        CHECK_EQ(close(clients[client].peer), 0);
    }
    server.engine->dirty = PS_NO_SLOT;
    ps__bury(server.engine);
    ps__leave(server.engine);
    ps__engine_free(server.engine);
    CHECK_EQ(ps_socket_close(server.master), 0);
}

int main(void)
{
    RUN(at_random);
    RUN(each_allocation_fails_once);
    return 0;
}
