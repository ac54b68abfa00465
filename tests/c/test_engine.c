/* The whole engine with an echo in C, and real clients, over a Unix socket and over TCP. */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "base/texts.h"
#include "echo.h"

static int family; /* of the tests that run now */
static echo server;

static void begin(uint32_t framing)
{
    const ps_options options = echo_options(framing);
    echo_begin(&server, &options, family);
}

static void end(void)
{
    echo_end(&server);
}

static void unplug(int fd)
{
    CHECK_EQ(close(fd), 0);
}

static uint8_t *pattern(size_t size)
{
    uint8_t *data = malloc(size ? size : 1);
    CHECK(data);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 31 + i / 251);
    return data;
}

/* Still served, whatever others have done. */
static void others_are_served(void)
{
    int fd = echo_plug(&server);
    hello(fd, "");
    send_srm(fd, 9, "still there", 11);
    expect_frame(fd, PS_REPLY, 0, 9, "still there", 11);
    unplug(fd);
}

/* -- CIR and SRM --------------------------------------------------------------------------------------------------- */

static void a_conversation(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    uint64_t id = hello(fd, "sensor-7");
    CHECK(id >> 32);
    send_srm(fd, 1, "hello", 5);
    expect_frame(fd, PS_REPLY, 0, 1, "hello", 5);
    send_srm(fd, UINT32_MAX, NULL, 0);
    expect_frame(fd, PS_REPLY, 0, UINT32_MAX, NULL, 0);
    send_frame(fd, (ps_frame){.kind = PS_BYE});
    expect_end(fd);
    unplug(fd);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_LEFT);
    end();
}

static void the_table_tells(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server), other = echo_plug(&server);
    ps_info info;
    uint64_t id = hello(fd, "sensor-7"), other_id = hello(other, ""), ids[4];
    CHECK_EQ(ps_engine_info(server.engine, id, &info), 1);
    CHECK(info.client_id == id && info.state == PS_CONN_ESTABLISHED && strcmp(info.name, "sensor-7") == 0);
    if (family == AF_UNIX)
        CHECK(info.pid == getpid() && info.uid == getuid() && !*info.address);
    else
        CHECK(info.pid == -1 && strncmp(info.address, "127.0.0.1:", 10) == 0);
    CHECK(ps_engine_find(server.engine, "sensor-7") == id);
    CHECK(ps_engine_find(server.engine, "sensor") == 0);
    CHECK_EQ(ps_engine_ids(server.engine, ids, 4), 2);
    CHECK_EQ(ps_engine_ids(server.engine, ids, 1), 1);
    unplug(fd);
    WAIT_FOR(server.gone == 1);
    WAIT_FOR(!ps_engine_info(server.engine, id, &info)); /* the row goes after the hook was told */
    CHECK(ps_engine_find(server.engine, "sensor-7") == 0);
    CHECK_EQ(ps_engine_ids(server.engine, ids, 4), 1); /* the freed slot still has the marks of its last client */
    CHECK(ids[0] == other_id);
    unplug(other);
    end();
}

static void pipelined(void)
{
    enum { COUNT = 1000, LONGEST = 40 };
    static uint8_t bytes[COUNT * (PS_HEADER_SIZE + LONGEST)];
    size_t size = 0;
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    hello(fd, "");
    for (uint32_t i = 0; i < COUNT; i++) {
        ps__write_header(bytes + size, i % LONGEST, PS_SRM, 0, 0, i + 1);
        memset(bytes + size + PS_HEADER_SIZE, (int)i, i % LONGEST);
        size += PS_HEADER_SIZE + i % LONGEST;
    }
    send_all(fd, bytes, size);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint8_t wanted[LONGEST];
        memset(wanted, (int)i, sizeof wanted);
        expect_frame(fd, PS_REPLY, 0, i + 1, wanted, i % LONGEST);
    }
    CHECK_EQ(echo_stats(&server).requests, COUNT);
    unplug(fd);
    end();
}

static void byte_by_byte(void)
{
    static const uint8_t bytes[] = {0, 0, 0, 4, PS_CIR, 0, 0, 1, 0, 0, 0, 0, 'P', 'S', 'K', '1',
                                    0, 0, 0, 3, PS_SRM, 0, 0, 0, 0, 0, 0, 7, 'a', 'b', 'c'};
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    for (size_t i = 0; i < sizeof bytes; i++) {
        uint64_t before = echo_stats(&server).bytes_in;
        send_all(fd, bytes + i, 1);
        WAIT_FOR(echo_stats(&server).bytes_in == before + 1);
    }
    uint8_t room[64];
    CHECK_EQ(receive_frame(fd, room, sizeof room).kind, PS_CIR_ACCEPTED);
    expect_frame(fd, PS_REPLY, 0, 7, "abc", 3);
    unplug(fd);
    end();
}

static void large_frames(void)
{
    static const uint32_t sizes[] = {PS_BY_REFERENCE - 1, PS_BY_REFERENCE, PS_LARGE - PS_HEADER_SIZE, PS_LARGE - 1,
                                     PS_LARGE, PS_LARGE + 1, PS_OUT_ROOM, 1 << 20, (5 << 20) + 3};
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    hello(fd, "");
    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *data = pattern(sizes[i]);
        send_srm(fd, i + 1, data, sizes[i]);
        send_srm(fd, i + 100, "small", 5); /* close behind */
        expect_frame(fd, PS_REPLY, 0, i + 1, data, sizes[i]);
        expect_frame(fd, PS_REPLY, 0, i + 100, "small", 5);
        free(data);
    }
    unplug(fd);
    end();
}

static void no_reply_wanted(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    uint8_t *data = pattern(PS_LARGE * 2);
    hello(fd, "");
    send_frame(fd, (ps_frame){.kind = PS_SRM, .flags = PS_NO_REPLY, .payload = (const uint8_t *)"x", .size = 1});
    send_frame(fd, (ps_frame){.kind = PS_SRM, .flags = PS_NO_REPLY, .payload = data, .size = PS_LARGE * 2});
    send_srm(fd, 1, "y", 1);
    expect_frame(fd, PS_REPLY, 0, 1, "y", 1);
    CHECK_EQ(echo_stats(&server).requests, 3);
    free(data);
    unplug(fd);
    end();
}

static void ping_and_pong(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    send_frame(fd, (ps_frame){.kind = PS_PING, .request_id = 3, .payload = (const uint8_t *)"well?", .size = 5});
    expect_frame(fd, PS_PONG, 0, 3, "well?", 5); /* before the CIR, too */
    hello(fd, "");
    send_frame(fd, (ps_frame){.kind = PS_PING, .request_id = 4});
    expect_frame(fd, PS_PONG, 0, 4, NULL, 0);
    for (int lame = 1; lame >= 0; lame--) {
        ps_engine_lame(server.engine, lame);
        send_frame(fd, (ps_frame){.kind = PS_PING, .request_id = 5});
        expect_frame(fd, PS_PONG, lame ? PS_SHUTTING_DOWN : 0, 5, NULL, 0);
    }
    unplug(fd);
    end();
}

static void half_closed(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    hello(fd, "");
    for (uint32_t i = 1; i <= 100; i++)
        send_srm(fd, i, &i, sizeof i);
    CHECK_EQ(shutdown(fd, SHUT_WR), 0);
    for (uint32_t i = 1; i <= 100; i++)
        expect_frame(fd, PS_REPLY, 0, i, &i, sizeof i);
    expect_end(fd);
    unplug(fd);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_CLOSED_BY_PEER);
    end();
}

/* -- what goes wrong ----------------------------------------------------------------------------------------------- */

#define FRAME(...) (const uint8_t[]){__VA_ARGS__}, sizeof (const uint8_t[]){__VA_ARGS__}

static const struct {
    const uint8_t *bytes;
    size_t size;
    bool after_cir;
    uint8_t kind, code;
    uint32_t request_id;
} violations[] = {
    {FRAME(0, 0, 0, 1, PS_SRM, 0, 0, 0, 0, 0, 0, 5, 'x'), false, PS_CIR_REFUSED, PS_REFUSED_MALFORMED, 0},
    {FRAME(0, 0, 0, 4, PS_CIR, 0, 0, 1, 0, 0, 0, 0, 'P', 'S', 'K', '2'), false, PS_CIR_REFUSED, PS_REFUSED_VERSION, 0},
    {FRAME(0, 0, 0, 4, PS_CIR, 0, 0, 2, 0, 0, 0, 0, 'P', 'S', 'K', '1'), false, PS_CIR_REFUSED, PS_REFUSED_VERSION, 0},
    {FRAME(0, 0, 0, 0, PS_CIR, 0, 0, 1, 0, 0, 0, 0), false, PS_CIR_REFUSED, PS_REFUSED_MALFORMED, 0},
    {FRAME(0, 0, 0, 6, PS_CIR, 0, 0, 1, 0, 0, 0, 0, 'P', 'S', 'K', '1', 2, 0), false, PS_CIR_REFUSED,
     PS_REFUSED_MALFORMED, 0},
    {FRAME(0, 0, 0, 8, PS_CIR, 0, 0, 1, 0, 0, 0, 0, 'P', 'S', 'K', '1', 2, 0, 1, 0xFF), false, PS_CIR_REFUSED,
     PS_REFUSED_MALFORMED, 0},
    {FRAME(0, 1, 0, 0, PS_CIR, 0, 0, 1, 0, 0, 0, 0), false, PS_CIR_REFUSED, PS_REFUSED_MALFORMED, 0},
    {FRAME(0, 0, 0, 0, PS_PROOF, 0, 0, 0, 0, 0, 0, 0), false, PS_CIR_REFUSED, PS_REFUSED_MALFORMED, 0},
    {FRAME('G', 'E', 'T', ' ', '/', ' ', 'H', 'T', 'T', 'P', '/', '1'), false, PS_CIR_REFUSED, PS_REFUSED_MALFORMED, 0},
    {FRAME(0, 0, 0, 4, PS_CIR, 0, 0, 1, 0, 0, 0, 0), true, PS_ERROR, PS_MALFORMED, 0},
    {FRAME(0, 0, 0, 0, PS_REPLY, 0, 0, 0, 0, 0, 0, 8), true, PS_ERROR, PS_MALFORMED, 8},
    {FRAME(0, 0, 0, 0, 0x55, 0, 0, 0, 0, 0, 0, 8), true, PS_ERROR, PS_MALFORMED, 8},
    {FRAME(0, 0, 0, 0, PS_SRM, 2, 0, 0, 0, 0, 0, 8), true, PS_ERROR, PS_MALFORMED, 8},
    {FRAME(0, 0, 0, 1, PS_BYE, 0, 0, 0, 0, 0, 0, 0), true, PS_ERROR, PS_MALFORMED, 0},
    {FRAME(0, 0, 0, 65, PS_PING, 0, 0, 0, 0, 0, 0, 8), true, PS_ERROR, PS_MALFORMED, 8},
};

static void violations_end_the_connection(void)
{
    enum { COUNT = sizeof violations / sizeof *violations };
    begin(PS_PYSOCK);
    for (size_t i = 0; i < COUNT; i++) {
        int fd = echo_plug(&server);
        if (violations[i].after_cir)
            hello(fd, "");
        send_all(fd, violations[i].bytes, violations[i].size);
        expect_text(fd, violations[i].kind, violations[i].code, violations[i].request_id);
        expect_end(fd);
        unplug(fd);
    }
    WAIT_FOR(echo_stats(&server).causes[PS_CAUSE_VIOLATION] == COUNT);
    others_are_served();
    end();
}

static void over_the_limit(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.max_payload = 1000;
    echo_begin(&server, &options, family);
    int fd = echo_plug(&server);
    uint8_t *data = pattern(200000);
    hello(fd, "");
    send_srm(fd, 1, data, 200000);
    send_srm(fd, 2, data, 1000);
    send_srm(fd, 3, data, 1001);
    send_srm(fd, 4, data, 0);
    expect_text(fd, PS_ERROR, PS_PAYLOAD_TOO_LARGE, 1);
    expect_frame(fd, PS_REPLY, 0, 2, data, 1000);
    expect_text(fd, PS_ERROR, PS_PAYLOAD_TOO_LARGE, 3);
    expect_frame(fd, PS_REPLY, 0, 4, NULL, 0);
    send_frame(fd, (ps_frame){.kind = PS_SRM, .code = 7, .request_id = 5}); /* no such service: the connection lives */
    expect_text(fd, PS_ERROR, PS_NO_SUCH_SERVICE, 5);
    free(data);
    unplug(fd);
    end();
}

static void not_let_in(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.ask_connects = 1;
    echo_begin(&server, &options, family);
    int fd = echo_plug(&server);
    send_cir(fd, "!intruder");
    expect_frame(fd, PS_CIR_REFUSED, PS_REFUSED_NOT_ALLOWED, 0, "!intruder may not come in", 25);
    expect_end(fd);
    unplug(fd);
    others_are_served();
    CHECK_EQ(server.let_in, 1);
    end();
    CHECK_EQ(server.gone, 1); /* it was never in */
}

/* The longest text that anybody is turned away with. */
static void not_a_proxy_that_is_trusted(void)
{
    static const ps_network elsewhere = {{[10] = 0xff, 0xff, 10}, 128};
    ps_options options = echo_options(PS_PYSOCK);
    echo_open(&server, &options, family);
    CHECK_EQ(ps_engine_expect_proxies(server.engine, PS_PROXY_2, &elsewhere, 1), 0);
    echo_start(&server);
    int fd = echo_plug(&server);
    expect_frame(fd, PS_CIR_REFUSED, PS_REFUSED_NOT_ALLOWED, 0, PS_TEXT_UNTRUSTED, strlen(PS_TEXT_UNTRUSTED));
    expect_end(fd);
    unplug(fd);
    end();
}

static void a_full_server(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.max_clients = 2;
    echo_begin(&server, &options, family);
    int first = echo_plug(&server), second = echo_plug(&server);
    uint64_t id = hello(first, "");
    ps_info info;
    hello(second, "");
    int third = echo_plug(&server);
    expect_text(third, PS_CIR_REFUSED, PS_REFUSED_FULL, 0);
    expect_end(third);
    unplug(third);
    unplug(first);
    WAIT_FOR(!ps_engine_info(server.engine, id, &info)); /* its slot is free */
    others_are_served();
    unplug(second);
    end();
}

/* A crowd of silent clients: the one that has waited longest goes. */
static void a_crowd_at_the_door(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.max_pending_cir = 3;
    echo_begin(&server, &options, family);
    int silent[5];
    for (uint64_t i = 0; i < 5; i++) {
        silent[i] = echo_plug(&server);
        WAIT_FOR(echo_stats(&server).accepted == i + 1);
    }
    for (size_t i = 0; i < 2; i++) {
        expect_text(silent[i], PS_CIR_REFUSED, PS_REFUSED_TOO_LATE, 0);
        expect_end(silent[i]);
    }
    hello(silent[4], "");
    others_are_served();
    for (size_t i = 0; i < 5; i++)
        unplug(silent[i]);
    end();
}

static void too_late(void)
{
    const uint64_t soon = 150 * 1000000;
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.cir_timeout_ns = options.limits.frame_timeout_ns = soon;
    options.limits.idle_timeout_ns = 4 * soon;
    echo_begin(&server, &options, family);
    int silent = echo_plug(&server), slow = echo_plug(&server), idle = echo_plug(&server);
    hello(slow, "slow");
    hello(idle, "idle");
    send_all(slow, "\0\0", 2);
    expect_text(silent, PS_CIR_REFUSED, PS_REFUSED_TOO_LATE, 0);
    expect_end(silent);
    expect_text(slow, PS_ERROR, PS_DEADLINE_PASSED, 0);
    expect_end(slow);
    expect_text(idle, PS_GOAWAY, 0, 0);
    expect_end(idle);
    unplug(silent);
    unplug(slow);
    unplug(idle);
    WAIT_FOR(echo_stats(&server).timeouts == 3);
    end();
}

/* A client that vanishes at each point of a conversation. */
static void vanishing(void)
{
    static const uint8_t bytes[] = {0, 0, 0, 1, PS_PING, 0, 0, 0, 0, 0, 0, 0, '?',
                                    0, 0, 0, 4, PS_CIR, 0, 0, 1, 0, 0, 0, 0, 'P', 'S', 'K', '1',
                                    0, 0, 0, 3, PS_SRM, 0, 0, 0, 0, 0, 0, 7, 'a', 'b', 'c',
                                    0, 0, 0, 0, PS_BYE, 0, 0, 0, 0, 0, 0, 0};
    const struct linger reset = {.l_onoff = 1};
    begin(PS_PYSOCK);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        int fd = echo_plug(&server);
        send_all(fd, bytes, size);
        if (size % 2)
            CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
        unplug(fd);
    }
    WAIT_FOR(echo_stats(&server).accepted == sizeof bytes + 1);
    WAIT_FOR(echo_stats(&server).clients + echo_stats(&server).pending == 0);
    others_are_served();
    end();
}

/* -- other framings ------------------------------------------------------------------------------------------------ */

static void framing_u32(void)
{
    static const uint8_t two[] = {0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0};
    begin(PS_U32);
    int fd = echo_plug(&server);
    send_all(fd, two, sizeof two);
    expect(fd, two, sizeof two);
    for (uint32_t size = 65530; size <= 1 << 20; size = size < 65540 ? size + 1 : size * 2) {
        uint8_t *data = pattern(size), head[4];
        ps__put32(head, size);
        send_all(fd, head, sizeof head);
        send_all(fd, data, size);
        expect(fd, head, sizeof head);
        expect(fd, data, size);
        free(data);
    }
    send_all(fd, "\xFF\xFF\xFF\xFF", 4); /* over the limit: there is no error frame, so the connection ends */
    expect_end(fd);
    unplug(fd);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_OVER_A_LIMIT);
    end();
}

static void framing_line(void)
{
    ps_options options = echo_options(PS_LINE);
    options.limits.max_payload = 100000;
    echo_begin(&server, &options, family);
    int fd = echo_plug(&server);
    send_all(fd, "one\n\ntwo\r\nthr", 13);
    expect(fd, "one\n\ntwo\r\n", 10);
    send_all(fd, "ee\n", 3);
    expect(fd, "three\n", 6);
    char *line = malloc(100001);
    CHECK(line);
    memset(line, 'x', 100000);
    line[100000] = '\n';
    send_all(fd, line, 100001);
    expect(fd, line, 100001);
    line[100000] = 'x';
    send_all(fd, "last\n", 5);
    send_all(fd, line, 100001); /* no newline within the limit */
    expect(fd, "last\n", 5);
    expect_end(fd);
    free(line);
    unplug(fd);
    end();
}

static void framing_raw(void)
{
    begin(PS_RAW);
    int fd = echo_plug(&server);
    uint8_t *data = pattern(300000);
    for (size_t at = 0; at < 300000; at += 30000) {
        send_all(fd, data + at, 30000);
        expect(fd, data + at, 30000);
    }
    free(data);
    unplug(fd);
    end();
}

/* -- from other threads -------------------------------------------------------------------------------------------- */

static void pushes(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server), other = echo_plug(&server);
    uint64_t id = hello(fd, "me");
    hello(other, "");
    uint8_t *large = pattern(200000);
    CHECK_EQ(ps_engine_push(server.engine, id, (const uint8_t *)"one", 3), 1);
    CHECK_EQ(ps_engine_push(server.engine, id, large, 200000), 1);
    CHECK_EQ(ps_engine_push(server.engine, id, NULL, 0), 1);
    CHECK_EQ(ps_engine_broadcast(server.engine, (const uint8_t *)"all", 3), 2);
    expect_frame(fd, PS_PUSH, 0, 0, "one", 3);
    expect_frame(fd, PS_PUSH, 0, 0, large, 200000);
    expect_frame(fd, PS_PUSH, 0, 0, NULL, 0);
    expect_frame(fd, PS_PUSH, 0, 0, "all", 3);
    expect_frame(other, PS_PUSH, 0, 0, "all", 3);
    CHECK_EQ(ps_engine_push(server.engine, id + ((uint64_t)1 << 32), (const uint8_t *)"one", 3), 0);
    free(large);
    unplug(fd);
    unplug(other);
    end();
}

static void disconnects(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    uint64_t id = hello(fd, "");
    CHECK_EQ(ps_engine_attach(server.engine, id), 1);
    CHECK_EQ(ps_engine_push(server.engine, id, (const uint8_t *)"bye", 3), 1);
    CHECK_EQ(ps_engine_disconnect(server.engine, id), 1);
    expect_frame(fd, PS_PUSH, 0, 0, "bye", 3); /* what came before still goes out */
    expect_end(fd);
    unplug(fd);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_CLOSED_BY_SERVER);
    WAIT_FOR(ps_engine_disconnect(server.engine, id) == 0);
    CHECK_EQ(ps_engine_attach(server.engine, id), 0);
    end();
}

/* -- the end ------------------------------------------------------------------------------------------------------- */

/* Nothing is under way any more: what was sent lies in the server's kernel. */
static bool has_arrived(int fd)
{
    int left = 0;
    CHECK_EQ(ioctl(fd, SIOCOUTQ, &left), 0);
    return family == AF_UNIX || left == 0; /* a Unix socket hands over at once, and counts what isn't read yet */
}

/* Each request is answered once: by a reply, or by "shutting down" if it came too late. */
static void a_stop_answers_everything(void)
{
    enum { COUNT = 2500 };
    static bool answered[COUNT + 1];
    uint32_t replies = 0, errors = 0, goodbyes = 0;
    uint8_t room[256];
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    memset(answered, 0, sizeof answered);
    hello(fd, "");
    for (uint32_t i = 1; i <= COUNT; i++)
        send_srm(fd, i, &i, sizeof i);
    WAIT_FOR(has_arrived(fd));
    CHECK_EQ(ps_engine_stop(server.engine, (uint64_t)PATIENCE_S * 1000000000), 0);
    for (;;) {
        ps_frame frame = receive_frame(fd, room, sizeof room);
        if (!frame.kind)
            break;
        if (frame.kind == PS_GOAWAY) {
            goodbyes++;
            continue;
        }
        CHECK(frame.kind == PS_REPLY || (frame.kind == PS_ERROR && frame.code == PS_SHUTTING_DOWN));
        CHECK(frame.request_id && frame.request_id <= COUNT && !answered[frame.request_id]);
        answered[frame.request_id] = true;
        *(frame.kind == PS_REPLY ? &replies : &errors) += 1;
    }
    CHECK_EQ(goodbyes, 1);
    CHECK_EQ(replies + errors, COUNT);
    unplug(fd);
    echo_wait(&server);
}

static void a_stop_refuses_who_waits_at_the_door(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    WAIT_FOR(echo_stats(&server).pending == 1);
    CHECK_EQ(ps_engine_stop(server.engine, (uint64_t)PATIENCE_S * 1000000000), 0);
    expect_text(fd, PS_CIR_REFUSED, PS_REFUSED_SHUTTING_DOWN, 0);
    expect_end(fd);
    unplug(fd);
    echo_wait(&server);
}

/* A client that takes nothing keeps a stop waiting for the grace, and no longer. */
static void the_grace_ends(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    uint8_t *data = pattern(8 << 20);
    uint64_t id = hello(fd, "");
    CHECK_EQ(ps_engine_push(server.engine, id, data, 8 << 20), 1);
    WAIT_FOR(echo_stats(&server).pushes == 1);
    uint64_t before = ps__now_ns();
    CHECK_EQ(ps_engine_stop(server.engine, 100 * 1000000), 0);
    echo_wait(&server);
    uint64_t took = ps__now_ns() - before;
    CHECK(took >= 100 * 1000000 && took < (uint64_t)PATIENCE_S * 1000000000);
    CHECK_EQ(server.last_reason, PS_SERVER_STOPPING);
    free(data);
    unplug(fd);
}

static void a_second_stop_is_sooner(void)
{
    begin(PS_PYSOCK);
    int fd = echo_plug(&server);
    uint8_t *data = pattern(8 << 20);
    uint64_t id = hello(fd, "");
    CHECK_EQ(ps_engine_push(server.engine, id, data, 8 << 20), 1);
    CHECK_EQ(ps_engine_stop(server.engine, UINT64_MAX), 0);
    WAIT_FOR(server.drained == 1);
    CHECK_EQ(ps_engine_stop(server.engine, 0), 0);
    echo_wait(&server);
    free(data);
    unplug(fd);
}

static void stopped_before_it_ran(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    echo_new(&server, &options);
    CHECK_EQ(ps_engine_stop(server.engine, 0), 0);
    CHECK_EQ(ps__engine_run(server.engine), 0);
    CHECK_EQ(ps__engine_run(server.engine), -EINVAL); /* a server runs once */
    ps__engine_free(server.engine);
}

static void never_run(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    ps_stats stats;
    echo_new(&server, &options);
    CHECK_EQ(ps_engine_push(server.engine, (uint64_t)1 << 32, (const uint8_t *)"x", 1), 0);
    CHECK_EQ(ps_engine_broadcast(server.engine, (const uint8_t *)"x", 1), 0);
    ps_engine_stats(server.engine, &stats);
    CHECK_EQ(stats.accepted, 0);
    CHECK_EQ(ps_engine_add_master(server.engine, -1, 0), -EBADF);
    ps__engine_free(server.engine);
    ps__engine_free(NULL);
}

/* -- a kernel that says no ----------------------------------------------------------------------------------------- */

static ps_sys_table real;
static atomic_int failures;
static int failure;

static int failing_accept(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    if (failures > 0 && failures--)
        return failure;
    return real.accept4(fd, address, size, flags);
}

static void accept_fails(void)
{
    static const int errors[] = {EAGAIN, EINTR, ECONNABORTED, ENETDOWN, EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET,
                                 EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, EPERM, EMFILE, ENFILE, ENOBUFS, ENOMEM, EINVAL};
    real = ps_sys;
    ps_sys.accept4 = failing_accept;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        failure = -errors[i];
        failures = 2;
        begin(PS_PYSOCK);
        others_are_served();
        bool pauses = i >= 12;
        bool by_reserve = errors[i] == EMFILE || errors[i] == ENFILE; /* which takes the second failure */
        CHECK_EQ(echo_stats(&server).causes[PS_CAUSE_ACCEPT], !pauses ? 0 : by_reserve ? 1 : 2);
        CHECK_EQ(server.noted, pauses ? 1 : 0); /* not for each: a full server would fill its log */
        end();
    }
    ps_sys = real;
}

static atomic_int allowed; /* allocations; below 0: all */

static void *scarce(size_t size)
{
    if (allowed == 0)
        return NULL;
    if (allowed > 0)
        allowed--;
    return malloc(size);
}

static void *scarce_resize(void *block, size_t size)
{
    return allowed == 0 ? NULL : realloc(block, size);
}

static void no_memory_for_an_engine(void)
{
    real = ps_sys;
    const ps_options options = echo_options(PS_PYSOCK);
    const ps_hooks hooks = {0};
    int error = 0;
    ps_engine *engine = NULL;
    ps_sys.allocate = scarce;
    for (int count = 0; !engine; count++) {
        allowed = count;
        engine = ps__engine_new(&options, &hooks, &error);
        CHECK(engine || error == -ENOMEM);
        CHECK(count < 20);
    }
    ps__engine_free(engine);
    ps_sys = real;
}

/* A client for whom there is no memory goes; nobody else does. */
static void no_memory_for_a_client(void)
{
    real = ps_sys;
    ps_sys.allocate = scarce;
    ps_sys.resize = scarce_resize;
    allowed = -1;
    begin(PS_PYSOCK);
    int modest = echo_plug(&server), greedy = echo_plug(&server);
    hello(modest, "");
    hello(greedy, "");
    allowed = 0;
    send_all(greedy, "\0\0\1\0\2\0\0\0\0\0\0\1the beginning of a request", 38); /* its rest must be waited for */
    expect_end(greedy);
    send_srm(modest, 1, "hello", 5);
    expect_frame(modest, PS_REPLY, 0, 1, "hello", 5);
    allowed = -1;
    CHECK_EQ(server.last_reason, PS_OVER_A_LIMIT);
    unplug(greedy);
    unplug(modest);
    end();
    ps_sys = real;
}

static void on_both_transports(void)
{
    RUN(a_conversation);
    RUN(the_table_tells);
    RUN(pipelined);
    RUN(byte_by_byte);
    RUN(large_frames);
    RUN(no_reply_wanted);
    RUN(ping_and_pong);
    RUN(half_closed);
    RUN(violations_end_the_connection);
    RUN(over_the_limit);
    RUN(not_let_in);
    RUN(a_full_server);
    RUN(a_crowd_at_the_door);
    RUN(too_late);
    RUN(vanishing);
    RUN(framing_u32);
    RUN(framing_line);
    RUN(framing_raw);
    RUN(pushes);
    RUN(disconnects);
    RUN(a_stop_answers_everything);
    RUN(a_stop_refuses_who_waits_at_the_door);
    RUN(the_grace_ends);
    RUN(a_second_stop_is_sooner);
}

int main(void)
{
    printf(" over a Unix socket:\n");
    family = AF_UNIX;
    on_both_transports();
    RUN(stopped_before_it_ran);
    RUN(never_run);
    RUN(accept_fails);
    RUN(no_memory_for_an_engine);
    RUN(no_memory_for_a_client);
    printf(" over TCP:\n");
    family = AF_INET;
    on_both_transports();
    RUN(not_a_proxy_that_is_trusted);
    printf(" over TCP, as a guest:\n");
    echo_as_guest = true;
    on_both_transports();
    printf(" over a Unix socket, as a guest:\n");
    family = AF_UNIX;
    on_both_transports();
    return 0;
}
