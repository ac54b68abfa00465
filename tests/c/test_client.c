/* The blocking client against the echo: one request, many pipelined, large ones, deadlines, and ends that break it. */
#include "echo.h"
#include "base/sys.h"
#include "client/link.h"


enum { WINDOW = 64 };

#define SECOND ((uint64_t)1000000000)

static echo server;

/* A sink that checks each reply against its request, and counts the rest. */
typedef struct taker {
    ps_sink sink;
    const ps_payload *payloads;
    uint32_t first_id, count, others;
    int objects;
    bool inside, any;
} taker;

static void enter(void *context)
{
    taker *t = context;
    t->inside = true;
}

static void leave(void *context)
{
    taker *t = context;
    t->inside = false;
}

static int check(void *context)
{
    (void)context;
    return 0;
}

static void *object_new(void *context, size_t size, uint8_t **data)
{
    taker *t = context;
    CHECK(t->inside);
    t->objects++;
    *data = malloc(size);
    return *data;
}

static void object_unref(void *context, void *object)
{
    taker *t = context;
    CHECK(t->inside);
    t->objects--;
    free(object);
}

static int take(void *context, const ps_frame *frame, void *object)
{
    taker *t = context;
    int done = t->any;
    CHECK(t->inside);
    if (frame->kind == PS_REPLY && !t->any) {
        const ps_payload *wanted = &t->payloads[frame->request_id - t->first_id];
        CHECK_EQ(frame->request_id, t->first_id + t->sink.answered); /* the echo answers in order */
        CHECK_EQ(frame->size, wanted->size);
        CHECK(frame->size == 0 || memcmp(frame->payload, wanted->data, wanted->size) == 0);
        done = ++t->sink.answered == t->count;
    } else {
        t->others++;
    }
    if (object)
        object_unref(t, object);
    return done;
}

static taker new_taker(void)
{
    return (taker){.sink = {.enter = enter, .leave = leave, .check = check, .take = take, .object_new = object_new,
                            .object_unref = object_unref}};
}

/* A client that was let in. */
static ps_link *join(uint32_t max_payload)
{
    int error, fd = echo_plug(&server);
    hello(fd, "");
    ps_link *client = ps__link_new(fd, 20000, max_payload, &error);
    CHECK(client);
    return client;
}

static int exchange(ps_link *client, taker *t, const ps_payload *payloads, uint32_t count, uint64_t timeout_ns)
{
    t->sink.context = t;
    t->payloads = payloads;
    t->count = count;
    t->first_id = client->next_id + 1;
    t->sink.answered = 0;
    client->next_id += count;
    return ps__link_exchange(client, 0, payloads, count, t->first_id, WINDOW, ps__now_ns() + timeout_ns, &t->sink);
}

static void part(ps_link *client, taker *t)
{
    t->sink.context = t;
    enter(t);
    ps__link_free(client, &t->sink);
    CHECK_EQ(t->objects, 0);
}

static uint8_t bytes[1 << 20];

static void begin(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 253);
    echo_begin(&server, &options, AF_UNIX);
}

static void requests_of_any_size(void)
{
    static const size_t sizes[] = {0, 1, 100, 16384, 16385, 40000, 65524, 65536, 200000, 1 << 20};
    begin();
    taker t = new_taker();
    ps_link *client = join(16 << 20);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ps_payload payload = {bytes, sizes[i]};
        CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), 0);
        CHECK_EQ(t.sink.answered, 1);
    }
    part(client, &t);
    echo_end(&server);
}

static void many_pipelined(void)
{
    enum { COUNT = 3000 };
    static ps_payload payloads[COUNT];
    begin();
    taker t = new_taker();
    ps_link *client = join(16 << 20);
    for (int large = 0; large < 2; large++) {
        for (size_t i = 0; i < COUNT; i++)
            payloads[i] = (ps_payload){bytes + i, large && i % 100 == 7 ? 200000 : i % 300};
        CHECK_EQ(exchange(client, &t, payloads, COUNT, PATIENCE_S * SECOND), 0);
        CHECK_EQ(t.sink.answered, COUNT);
    }
    part(client, &t);
    echo_end(&server);
}

static void pushes_come_between(void)
{
    begin();
    taker t = new_taker();
    ps_link *client = join(16 << 20);
    CHECK_EQ(ps_engine_broadcast(server.engine, bytes, 10), 1);
    CHECK_EQ(ps_engine_broadcast(server.engine, bytes, 100000), 1);
    WAIT_FOR(echo_stats(&server).pushes == 2);
    ps_payload payload = {bytes, 5};
    CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), 0);
    CHECK_EQ(t.others, 2);
    CHECK_EQ(ps_engine_broadcast(server.engine, bytes, 10), 1);
    t.any = true;
    CHECK_EQ(ps__link_receive(client, ps__now_ns() + PATIENCE_S * SECOND, &t.sink), 0);
    CHECK_EQ(t.others, 3);
    CHECK_EQ(ps__link_receive(client, ps__now_ns() + SECOND / 20, &t.sink), -ETIMEDOUT);
    t.any = false;
    CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), 0); /* a wait in vain breaks nothing */
    part(client, &t);
    echo_end(&server);
}

/* A reply over the limit can't be skipped to its end: the connection is of no use any more. */
static void a_reply_over_the_limit(void)
{
    begin();
    taker t = new_taker();
    ps_link *client = join(1000);
    ps_payload payload = {bytes, 1000};
    CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), 0);
    payload.size = 1001;
    CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), -EMSGSIZE);
    payload.size = 1;
    CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), -EPIPE);
    part(client, &t);
    echo_end(&server);
}

/* -- a server that follows a script -------------------------------------------------------------------------------- */

static ps_link *half(int *other)
{
    int pair[2], error;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    *other = pair[1];
    ps_link *client = ps__link_new(pair[0], 0, 1 << 20, &error);
    CHECK(client);
    return client;
}

/* The reply stops in the middle, for a while or for ever. */
static void a_reply_in_pieces(void)
{
    static const uint8_t head[PS_HEADER_SIZE] = {0, 0, 0x75, 0x30, PS_REPLY, 0, 0, 0, 0, 0, 0, 1}; /* 30,000 bytes */
    int other;
    taker t = new_taker();
    ps_link *client = half(&other);
    ps_payload payload = {bytes, 30000};
    send_all(other, head, 5);
    CHECK_EQ(exchange(client, &t, &payload, 1, SECOND / 50), -ETIMEDOUT);
    send_all(other, head + 5, sizeof head - 5);
    send_all(other, bytes, 1000);
    CHECK_EQ(ps__link_receive(client, ps__now_ns() + SECOND / 50, &t.sink), -ETIMEDOUT);
    CHECK_EQ(t.objects, 1);
    send_all(other, bytes + 1000, 29000);
    CHECK_EQ(ps__link_receive(client, ps__now_ns() + PATIENCE_S * SECOND, &t.sink), 0);
    CHECK_EQ(t.sink.answered, 1);
    CHECK_EQ(t.objects, 0);
    client->next_id = 0;
    send_all(other, head, sizeof head);
    send_all(other, bytes, 1000);
    CHECK_EQ(close(other), 0);
    CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), -ECONNRESET);
    part(client, &t); /* and with it the piece that came */
}

/* A kind that is a client's, and a flag where there is none: known from the header alone. */
static void what_no_server_sends(void)
{
    static const uint8_t heads[][PS_HEADER_SIZE] = {{0, 0, 0, 1, PS_SRM, 0, 0, 0, 0, 0, 0, 1},
                                                    {0, 0, 0, 1, PS_CHALLENGE + 1, 0, 0, 0, 0, 0, 0, 1},
                                                    {0, 1, 0, 0, PS_REPLY, PS_NO_REPLY, 0, 0, 0, 0, 0, 1}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        int other;
        taker t = new_taker();
        ps_link *client = half(&other);
        ps_payload payload = {bytes, 10};
        send_all(other, heads[i], PS_HEADER_SIZE);
        CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), -EPROTO);
        CHECK_EQ(exchange(client, &t, &payload, 1, PATIENCE_S * SECOND), -EPIPE);
        CHECK_EQ(close(other), 0);
        part(client, &t);
    }
}

/* A pipe full of whole frames: what doesn't go at all costs nothing, and what comes meanwhile is taken. */
static void a_full_pipe(void)
{
    static const uint8_t push[PS_HEADER_SIZE] = {0, 0, 0, 0, PS_PUSH};
    int other;
    taker t = new_taker();
    t.sink.context = &t;
    ps_link *client = half(&other);
    ps_frame frame = {.kind = PS_SRM, .flags = PS_NO_REPLY, .request_id = 1, .payload = bytes, .size = 1000};
    while (ps__link_send(client, &frame, ps__now_ns(), &t.sink) == 0)
        continue;
    send_all(other, push, sizeof push);
    CHECK_EQ(ps__link_send(client, &frame, ps__now_ns() + SECOND / 50, &t.sink), -ETIMEDOUT);
    CHECK_EQ(t.others, 1);
    ps_payload payload = {bytes, sizeof bytes};
    CHECK_EQ(exchange(client, &t, &payload, 1, SECOND / 50), -ETIMEDOUT);
    CHECK(!client->broken);
    CHECK_EQ(close(other), 0);
    part(client, &t);
}

static void nobody_takes_it(void)
{
    int other;
    taker t = new_taker();
    t.sink.context = &t;
    ps_link *client = half(&other);
    ps_frame frame = {.kind = PS_SRM, .request_id = 1, .payload = bytes, .size = sizeof bytes};
    CHECK_EQ(ps__link_send(client, &frame, ps__now_ns() + SECOND / 50, &t.sink), -ETIMEDOUT);
    CHECK_EQ(ps__link_send(client, &frame, ps__now_ns() + SECOND, &t.sink), -EPIPE); /* half a frame is out */
    CHECK_EQ(close(other), 0);
    part(client, &t);
}

static void nobody_is_there(void)
{
    int other;
    taker t = new_taker();
    t.sink.context = &t;
    ps_link *client = half(&other);
    CHECK_EQ(close(other), 0);
    ps_frame frame = {.kind = PS_SRM, .request_id = 1, .payload = bytes, .size = 10};
    CHECK_EQ(ps__link_send(client, &frame, UINT64_MAX, &t.sink), -ECONNRESET); /* and no SIGPIPE */
    part(client, &t);
    ps__link_free(NULL, &t.sink);
}

int main(void)
{
    RUN(requests_of_any_size);
    RUN(many_pipelined);
    RUN(pushes_come_between);
    RUN(a_reply_over_the_limit);
    RUN(a_reply_in_pieces);
    RUN(what_no_server_sends);
    RUN(a_full_pipe);
    RUN(nobody_takes_it);
    RUN(nobody_is_there);
    return 0;
}
