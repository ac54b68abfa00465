/* Two engines run, clients come and go, and other threads push, ask, disconnect and answer all the while: nothing for TSan to
 * find (make -C csrc tsan), and nothing lost. */
#include "echo.h"
#include "conn/defer.h"
#include "conn/stream.h"
#include "loop/command.h"
#include "table/table.h"

enum { ENGINES = 2, CLIENTS = 3, RUN_MS = 1500, REQUESTS = 30, DEFERRED_SIZE = 5, JOBS = 64, PIECES = 6 };

typedef struct world {
    echo server; /* first: the hooks get this one */
    atomic_bool over, all_served;
    atomic_uint conversations, answered, cut_short, pushed, asked, disconnected, deferred, pieces;
    pthread_mutex_t lock;
    uint64_t jobs[JOBS]; /* handles of requests that others answer */
    unsigned job_count;
} world;

/* -- requests that other threads answer ---------------------------------------------------------------------------- */

static echo_object *new_object(world *w)
{
    echo_object *o = malloc(sizeof *o);
    CHECK(o);
    o->users = 1;
    w->server.objects++;
    return o;
}

static int request(void *context, ps_conn *conn, const ps_frame *frame, void *o)
{
    world *w = context;
    if (frame->size != DEFERRED_SIZE)
        return echo_request(context, conn, frame, o);
    uint64_t handle = ps__defer(w->server.engine, conn, frame);
    CHECK(handle && ps__defer_keep(w->server.engine, handle, new_object(w)));
    ps__deferred_find(w->server.engine, handle)->is_stream = true;
    pthread_mutex_lock(&w->lock);
    CHECK(w->job_count < JOBS);
    w->jobs[w->job_count++] = handle;
    pthread_mutex_unlock(&w->lock);
    return 0;
}

static int give_answer(void *context, uint64_t handle, void *answer)
{
    world *w = context;
    ps_work work;
    CHECK(w->server.inside && ((echo_object *)answer)->users == 1);
    ps_conn *conn = ps__defer_done(w->server.engine, handle, &work);
    if (conn)
        ps__send(w->server.engine, conn, PS_REPLY, 0, work.frame.request_id, "later", 5, NULL);
    if (work.object)
        echo_object_unref(context, work.object);
    w->deferred += conn != NULL;
    return 0;
}

/* In pieces, of a client that takes what it likes of them. */
static int give_piece(void *context, uint64_t handle, void *piece)
{
    world *w = context;
    CHECK(w->server.inside && ((echo_object *)piece)->users == 1);
    ps_deferred *record = ps__deferred_find(w->server.engine, handle);
    if (!record || record->is_answered || record->why)
        return 0;
    ps_conn *conn = ps__table_find(&w->server.engine->table, record->pending.client_id);
    ps__stream_send(w->server.engine, conn, record, "piece", 5, NULL, 1 << 20);
    ps__stream_seen(w->server.engine, handle);
    w->pieces++;
    return 0;
}

static int flow(void *context, void *object, int64_t left, uint64_t limit)
{
    CHECK(((world *)context)->server.inside && ((echo_object *)object)->users > 0 && left >= 0 && limit);
    return 0;
}

static int ended(void *context, void *object, enum ps_why why)
{
    CHECK(((world *)context)->server.inside && ((echo_object *)object)->users > 0 && why != PS_WHY_NONE);
    return 1;
}

static void *answer(void *context)
{
    world *w = context;
    while (!w->all_served) {
        pthread_mutex_lock(&w->lock);
        uint64_t handle = w->job_count ? w->jobs[--w->job_count] : 0;
        pthread_mutex_unlock(&w->lock);
        for (int i = 0; handle && i < PIECES; i++)
            CHECK_EQ(ps__post_more(w->server.engine, handle, new_object(w)), 1);
        if (handle)
            CHECK_EQ(ps__post_answer(w->server.engine, handle, new_object(w)), 1);
        else
            poll(NULL, 0, 1);
    }
    return NULL;
}

static void begin(world *w, int family)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.stream_window = 3 * (5 + PS_STREAM_COST); /* some have no credit for all */
    CHECK_EQ(pthread_mutex_init(&w->lock, NULL), 0);
    echo_new(&w->server, &options);
    w->server.engine->hooks.request = request;
    w->server.engine->hooks.answer = give_answer;
    w->server.engine->hooks.ended = ended;
    w->server.engine->hooks.more = give_piece;
    w->server.engine->hooks.flow = flow;
    echo_listen(&w->server, family);
    CHECK_EQ(ps_engine_add_master(w->server.engine, w->server.master, 0), 0);
    CHECK_EQ(pthread_create(&w->server.thread, NULL, echo_main, &w->server), 0);
}

/* -- clients ------------------------------------------------------------------------------------------------------- */

/* May fail: the other end may have been told to hang up. */
static bool try_send(int fd, uint8_t kind, uint32_t id, const uint8_t *data, uint32_t size)
{
    struct iovec iov[2];
    uint8_t head[PS_HEADER_SIZE];
    ps__write_header(head, size, kind, 0, 0, id);
    iov[0] = (struct iovec){head, sizeof head};
    iov[1] = (struct iovec){(void *)(uintptr_t)data, size};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof head + size);
}

/* Until this request's reply; pushes may come between, and the end at any time. */
static bool await_reply(world *w, int fd, uint32_t id, uint8_t *room, size_t size)
{
    for (;;) {
        ps_frame frame = receive_frame(fd, room, size);
        if (frame.kind == PS_REPLY && frame.flags) {
            static const uint8_t more[4] = {0, 0, 0, 5 + PS_STREAM_COST};
            CHECK(frame.request_id == id && frame.size == 5);
            if (!try_send(fd, PS_CREDIT, id, more, sizeof more))
                return false;
            continue;
        }
        if (frame.kind == PS_REPLY) {
            CHECK_EQ(frame.request_id, id);
            w->answered++;
            return true;
        }
        if (frame.kind != PS_PUSH && frame.kind != PS_GOAWAY) {
            CHECK(frame.kind == 0 || (frame.kind == PS_ERROR && frame.code == PS_CANCELLED)); /* a stream's: it is closed */
            return false;
        }
    }
}

static bool is_let_in(int fd, const char *name, uint8_t *room, size_t size)
{
    uint8_t payload[64] = "PSK1";
    size_t used = 4 + ps__put_field(payload + 4, PS_TAG_NAME, name, (uint16_t)strlen(name));
    used += ps__put_field(payload + used, PS_TAG_FEATURES, "\0\0\0\7", 4);
    send_frame(fd, (ps_frame){.kind = PS_CIR, .code = 1, .payload = payload, .size = (uint32_t)used});
    return receive_frame(fd, room, size).kind == PS_CIR_ACCEPTED;
}

static void converse(world *w, uint64_t *seed)
{
    static const uint32_t sizes[] = {0, 5, 100, 70000, 40000};
    static const uint8_t data[70000];
    static __thread uint8_t room[70000];
    char name[32];
    int fd = echo_plug(&w->server);
    snprintf(name, sizeof name, "client-%u", (unsigned)(random_number(seed) % 5));
    bool goes_on = is_let_in(fd, name, room, sizeof room);
    for (uint32_t id = 1; id <= REQUESTS && goes_on; id++) {
        uint32_t size = sizes[random_number(seed) % 5];
        goes_on = try_send(fd, PS_SRM, id, data, size) && await_reply(w, fd, id, room, sizeof room);
    }
    *(goes_on ? &w->conversations : &w->cut_short) += 1;
    CHECK_EQ(close(fd), 0);
}

static void *be_clients(void *context)
{
    world *w = context;
    uint64_t seed = ps__now_ns() | 1;
    while (!w->over)
        converse(w, &seed);
    return NULL;
}

/* -- others -------------------------------------------------------------------------------------------------------- */

static uint64_t somebody(world *w, uint64_t *seed)
{
    uint64_t ids[16];
    size_t count = (size_t)ps_engine_ids(w->server.engine, ids, 16);
    return count ? ids[random_number(seed) % count] : 0;
}

static void push_to_some(world *w, const uint8_t *data, size_t size)
{
    uint64_t ids[16];
    size_t count = (size_t)ps_engine_ids(w->server.engine, ids, 16);
    int64_t told = ps_engine_push_to(w->server.engine, ids, count, data, size);
    CHECK(told >= 0 && told <= (int64_t)count);
}

static void *push(void *context)
{
    world *w = context;
    uint64_t seed = 1;
    static const uint8_t data[50000];
    for (uint32_t i = 0; !w->over; i++) {
        size_t size = i % 20 ? 100 : sizeof data;
        w->pushed += ps_engine_push(w->server.engine, somebody(w, &seed), data, size) > 0;
        if (i % 10 == 0)
            ps_engine_broadcast(w->server.engine, data, size);
        if (i % 10 == 5)
            push_to_some(w, data, size);
        poll(NULL, 0, 1);
    }
    return NULL;
}

static void *ask(void *context)
{
    world *w = context;
    uint64_t seed = 2;
    while (!w->over) {
        ps_info info;
        uint64_t id = somebody(w, &seed);
        if (ps_engine_info(w->server.engine, id, &info)) {
            CHECK(info.client_id == id && info.state >= PS_CONN_ESTABLISHED && info.state <= PS_CONN_CLOSED);
            CHECK(strncmp(info.name, "client-", 7) == 0);
            w->asked++;
        }
        unsigned answered = w->answered;
        CHECK(echo_stats(&w->server).requests >= answered);
        ps_engine_find(w->server.engine, "client-3");
        ps_engine_attach(w->server.engine, id);
        CHECK(ps_engine_wakeup_fd(w->server.engine) >= 0);
    }
    return NULL;
}

static void *disconnect(void *context)
{
    world *w = context;
    uint64_t seed = 3;
    while (!w->over) {
        w->disconnected += ps_engine_disconnect(w->server.engine, somebody(w, &seed)) > 0;
        poll(NULL, 0, 7);
    }
    return NULL;
}

/* Again and again, each time sooner: the last one counts. */
static void *stop(void *context)
{
    world *w = context;
    for (uint64_t grace_s = 3 * PATIENCE_S; grace_s >= PATIENCE_S; grace_s--) {
        ps_engine_stop(w->server.engine, grace_s * 1000000000);
        poll(NULL, 0, 1);
    }
    return NULL;
}

/* Somebody is there when it stops, and is owed enough to keep it waiting. */
static int come_last(world *w)
{
    static const uint8_t data[4 << 20];
    int fd = echo_plug(&w->server);
    CHECK_EQ(ps_engine_push(w->server.engine, hello(fd, "last"), data, sizeof data), 1);
    return fd;
}

static void leave_last(world *w, int fd)
{
    static uint8_t room[4 << 20];
    CHECK_EQ(receive_frame(fd, room, sizeof room).kind, PS_PUSH);
    expect_text(fd, PS_GOAWAY, 2, 0);
    expect_end(fd);
    CHECK_EQ(close(fd), 0);
    echo_wait(&w->server);
}

/* -- the whole ----------------------------------------------------------------------------------------------------- */

static void everything_at_once(void)
{
    static world worlds[ENGINES];
    static void *(*const parts[])(void *) = {be_clients, be_clients, be_clients, push, ask, disconnect,
                                            answer, answer, stop, stop};
    enum { PARTS = sizeof parts / sizeof *parts, STOPS = 2, ANSWERS = 2 };
    pthread_t threads[ENGINES][PARTS];
    int last[ENGINES];
    for (int e = 0; e < ENGINES; e++) {
        begin(&worlds[e], e % 2 ? AF_INET : AF_UNIX);
        for (int i = 0; i < PARTS - STOPS; i++)
            CHECK_EQ(pthread_create(&threads[e][i], NULL, parts[i], &worlds[e]), 0);
    }
    poll(NULL, 0, RUN_MS);
    for (int e = 0; e < ENGINES; e++) {
        worlds[e].over = true;
        for (int i = 0; i < PARTS - STOPS; i++) {
            worlds[e].all_served = i >= PARTS - STOPS - ANSWERS; /* the clients are gone */
            CHECK_EQ(pthread_join(threads[e][i], NULL), 0);
        }
        last[e] = come_last(&worlds[e]);
    }
    for (int e = 0; e < ENGINES; e++) {
        for (int i = PARTS - STOPS; i < PARTS; i++)
            CHECK_EQ(pthread_create(&threads[e][i], NULL, parts[i], &worlds[e]), 0);
        for (int i = PARTS - STOPS; i < PARTS; i++)
            CHECK_EQ(pthread_join(threads[e][i], NULL), 0);
        leave_last(&worlds[e], last[e]);
        world *w = &worlds[e];
        printf("    %u conversations, %u cut short, %u replies, %u pushes, %u questions, %u disconnects, %u deferred, %u pieces\n",
               w->conversations, w->cut_short, w->answered, w->pushed, w->asked, w->disconnected, w->deferred, w->pieces);
        CHECK(w->answered && w->pushed && w->asked && w->disconnected && w->deferred && w->pieces);
    }
}

int main(void)
{
    RUN(everything_at_once);
    return 0;
}
