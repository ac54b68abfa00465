/* Pushes, and above all those that many clients get: held once, sent together, and nobody harmed by who closes meanwhile. */
#include "echo.h"

enum { CLIENTS = 40, SIZE = 300000 }; /* more than the kernel takes of one message */

static echo server;
static ps_sys_table real;

/* -- what the engine asks the system for --------------------------------------------------------------------------- */

static atomic_int large_blocks, sends, failing; /* failing: this many small blocks from now there is none; 0: there is */

static void *counted_allocate(size_t size)
{
    large_blocks += size >= SIZE;
    if (size < SIZE && failing && --failing == 0)
        return NULL;
    return real.allocate(size);
}

static ssize_t counted_sendto(int fd, const void *data, size_t size, int flags)
{
    sends++;
    return real.sendto(fd, data, size, flags);
}

static ssize_t counted_sendmsg(int fd, const struct msghdr *message, int flags)
{
    sends++;
    return real.sendmsg(fd, message, flags);
}

/* -- the server: a request is an order ----------------------------------------------------------------------------- */

static atomic_int reached;

static int obey(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    echo *e = context;
    uint8_t times = frame->size ? frame->payload[0] : 0;
    for (uint8_t i = 0; i < times && i < 9; i++)
        reached = (int)ps_engine_broadcast(e->engine, frame->payload, frame->size);
    return echo_request(context, conn, frame, object);
}

/* Whoever is told of a cause broadcasts: in the middle of a broadcast, where somebody is over a limit. */
static int tell_all(void *context, enum ps_tell what, uint64_t first, uint64_t second)
{
    echo *e = context;
    if (what == PS_TELL_NOTED && first == PS_CAUSE_OUTPUT_FULL)
        CHECK(ps_engine_broadcast(e->engine, (const uint8_t *)"gone", 4) < CLIENTS);
    return echo_tell(context, what, first, second);
}

static void begin(const ps_options *options)
{
    real = ps_sys;
    large_blocks = sends = failing = 0;
    ps_sys.allocate = counted_allocate;
    ps_sys.sendto = counted_sendto;
    ps_sys.sendmsg = counted_sendmsg;
    echo_new(&server, options);
    server.engine->hooks.request = obey;
    server.engine->hooks.tell = tell_all;
    echo_listen(&server, AF_UNIX);
    CHECK_EQ(ps_engine_add_master(server.engine, server.master, 0), 0);
    CHECK_EQ(pthread_create(&server.thread, NULL, echo_main, &server), 0);
}

static void end(void)
{
    echo_end(&server);
    ps_sys = real;
}

static void connect_all(int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        fds[i] = echo_plug(&server);
        if (server.engine->options.framing == PS_PYSOCK)
            hello(fds[i], "");
    }
    WAIT_FOR(echo_stats(&server).clients == (uint64_t)count);
}

static void hang_up(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        CHECK_EQ(close(fds[i]), 0);
}

static uint8_t *bytes_of(size_t size)
{
    uint8_t *data = malloc(size);
    CHECK(data);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)('a' + i % 23);
    return data;
}

static void expect_message(int fd, uint32_t framing, const uint8_t *data, uint32_t size)
{
    uint8_t head[4];
    ps__put32(head, size);
    if (framing == PS_PYSOCK) {
        expect_frame(fd, PS_PUSH, 0, 0, data, size);
        return;
    }
    if (framing == PS_U32)
        expect(fd, head, sizeof head);
    expect(fd, data, size);
    if (framing == PS_LINE)
        expect(fd, "\n", 1);
}

/* -- the tests ----------------------------------------------------------------------------------------------------- */

/* However many it waits for, and whoever takes it last. */
static void one_buffer_for_all(void)
{
    uint8_t *data = bytes_of(SIZE);
    for (uint32_t framing = PS_PYSOCK; framing <= PS_RAW; framing++) {
        const ps_options options = echo_options(framing);
        int fds[CLIENTS];
        begin(&options);
        connect_all(fds, CLIENTS);
        large_blocks = 0;
        CHECK_EQ(ps_engine_broadcast(server.engine, data, SIZE), CLIENTS);
        WAIT_FOR(echo_stats(&server).pushes == CLIENTS);
        CHECK_EQ(large_blocks, 1);
        for (int i = CLIENTS; i-- > CLIENTS / 2;)
            expect_message(fds[i], framing, data, SIZE);
        hang_up(fds, CLIENTS); /* the others leave without it */
        WAIT_FOR(server.gone == CLIENTS);
        end();
    }
    free(data);
}

static void several_leave_in_one_call(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    const uint8_t order[] = {4, 'x', 'y'};
    int fds[CLIENTS];
    begin(&options);
    connect_all(fds, CLIENTS);
    sends = 0;
    send_srm(fds[0], 1, order, sizeof order);
    for (int i = 0; i < CLIENTS; i++) {
        for (int k = 0; k < order[0]; k++)
            expect_frame(fds[i], PS_PUSH, 0, 0, order, sizeof order);
    }
    expect_frame(fds[0], PS_REPLY, 0, 1, order, sizeof order); /* behind what was pushed before */
    CHECK_EQ(reached, CLIENTS);
    CHECK_EQ(sends, CLIENTS);
    hang_up(fds, CLIENTS);
    end();
}

/* Of a client that doesn't read the queue is full in the middle of a broadcast, and who is told of that broadcasts. */
static void one_closes_in_the_middle(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.output_drop = 3 * SIZE;
    uint8_t *data = bytes_of(SIZE);
    int fds[CLIENTS];
    begin(&options);
    connect_all(fds, CLIENTS);
    for (int k = 0; k < 6; k++) {
        ps_engine_broadcast(server.engine, data, SIZE);
        for (int i = 0; i < CLIENTS; i++) {
            if (i == CLIENTS / 2)
                continue;
            if (k == 3 && i > CLIENTS / 2) /* their turn comes when that one is closed */
                expect_frame(fds[i], PS_PUSH, 0, 0, "gone", 4);
            expect_frame(fds[i], PS_PUSH, 0, 0, data, SIZE);
            if (k == 3 && i < CLIENTS / 2)
                expect_frame(fds[i], PS_PUSH, 0, 0, "gone", 4);
        }
    }
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_OVER_A_LIMIT);
    hang_up(fds, CLIENTS);
    free(data);
    end();
}

/* Ids that were, or never were, reach nobody; one that is there twice is meant twice. */
static void only_some(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    int fds[4];
    uint64_t ids[6];
    begin(&options);
    for (int i = 0; i < 4; i++) {
        fds[i] = echo_plug(&server);
        ids[i] = hello(fds[i], "");
    }
    CHECK_EQ(close(fds[3]), 0);
    WAIT_FOR(server.gone == 1);
    ids[4] = ids[1];
    ids[5] = UINT64_MAX;
    CHECK_EQ(ps_engine_push_to(server.engine, ids + 1, 5, (const uint8_t *)"some", 4), 3);
    CHECK_EQ(ps_engine_push_to(server.engine, ids, 0, (const uint8_t *)"none", 4), 0);
    CHECK_EQ(ps_engine_push_to(server.engine, ids + 5, 1, (const uint8_t *)"none", 4), 0);
    CHECK_EQ(ps_engine_broadcast(server.engine, (const uint8_t *)"all", 3), 3);
    for (int i = 0; i < 3; i++) {
        for (int times = (2 * i) % 3; times-- > 0;) /* 0, 2, 1 */
            expect_frame(fds[i], PS_PUSH, 0, 0, "some", 4);
        expect_frame(fds[i], PS_PUSH, 0, 0, "all", 3);
    }
    hang_up(fds, 3);
    end();
}

/* It costs nobody but whom there is none for. */
static void without_memory(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    const int all = 2, one = CLIENTS + 2; /* blocks for all; and of what waits: of all, of some, and of each */
    for (int nth = 1; nth <= all + one + 1; nth++) {
        int fds[CLIENTS], heard = 0, reach = CLIENTS - (nth > all && nth <= all + one);
        begin(&options);
        connect_all(fds, CLIENTS);
        failing = nth;
        int64_t told = ps_engine_broadcast(server.engine, (const uint8_t *)"news", 4);
        WAIT_FOR(told < 0 || echo_stats(&server).pushes == CLIENTS);
        failing = 0;
        CHECK(told == (nth <= all ? -ENOMEM : CLIENTS)); /* the command, and the message: then nobody gets it */
        CHECK_EQ(ps_engine_broadcast(server.engine, (const uint8_t *)"last", 4), reach);
        for (int i = 0; i < CLIENTS; i++) {
            uint8_t room[4];
            ps_frame frame = receive_frame(fds[i], room, sizeof room);
            heard += frame.kind == PS_PUSH;
            CHECK(!frame.kind || memcmp(room, told < 0 ? "last" : "news", 4) == 0);
        }
        CHECK_EQ(heard, reach);
        hang_up(fds, CLIENTS);
        end();
    }
}

int main(void)
{
    RUN(one_buffer_for_all);
    RUN(several_leave_in_one_call);
    RUN(one_closes_in_the_middle);
    RUN(only_some);
    RUN(without_memory);
    return 0;
}
