/* Replies that the kernel takes in pieces, late, or not at all. */
#include "echo.h"

enum { SMALL_BUFFER = 4608, MESSAGES = 60 };

static echo server;
static ps_sys_table real;

/* -- the kernel ---------------------------------------------------------------------------------------------------- */

/* Data sockets with the smallest buffer there is. */
static int narrow_accept(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    const int room = SMALL_BUFFER;
    int client = real.accept4(fd, address, size, flags);
    if (client >= 0)
        CHECK_EQ(real.setsockopt(client, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    return client;
}

static struct {
    uint64_t seed;
    size_t most;  /* bytes taken by one call */
    int refusal;  /* now and then nothing is: -errno */
} mood;

/* How many bytes the kernel takes this time, or -errno. */
static ssize_t takes(size_t size)
{
    uint64_t random = random_number(&mood.seed);
    if (random % 4 == 0)
        return mood.refusal;
    size_t some = 1 + (size_t)(random >> 8) % mood.most;
    return (ssize_t)(some < size ? some : size);
}

static ssize_t moody_sendto(int fd, const void *data, size_t size, int flags)
{
    ssize_t some = takes(size);
    CHECK(flags & MSG_NOSIGNAL);
    return some < 0 ? some : real.sendto(fd, data, (size_t)some, flags);
}

static ssize_t moody_sendmsg(int fd, const struct msghdr *message, int flags)
{
    size_t whole = 0;
    CHECK(flags & MSG_NOSIGNAL);
    for (size_t i = 0; i < message->msg_iovlen; i++)
        whole += message->msg_iov[i].iov_len;
    ssize_t some = takes(whole);
    if (some < 0)
        return some;
    struct iovec cut[PS_IOV_MAX];
    struct msghdr shorter = *message;
    size_t count = 0;
    for (size_t left = (size_t)some; left; count++) {
        cut[count] = message->msg_iov[count];
        if (cut[count].iov_len > left)
            cut[count].iov_len = left;
        left -= cut[count].iov_len;
    }
    shorter.msg_iov = cut;
    shorter.msg_iovlen = count;
    return real.sendmsg(fd, &shorter, flags);
}

static void begin(const ps_options *options)
{
    real = ps_sys;
    ps_sys.accept4 = narrow_accept;
    echo_begin(&server, options, AF_UNIX);
}

static void begin_moody(const ps_options *options, size_t most, int refusal)
{
    real = ps_sys;
    mood.seed = 20261122;
    mood.most = most;
    mood.refusal = refusal;
    ps_sys.sendto = moody_sendto;
    ps_sys.sendmsg = moody_sendmsg;
    echo_begin(&server, options, AF_UNIX);
}

static void end(void)
{
    echo_end(&server);
    ps_sys = real;
}

/* -- traffic ------------------------------------------------------------------------------------------------------- */

/* Small and large in turns; a factor of 1 makes some larger than PS_LARGE. */
typedef struct traffic {
    int fd;
    uint32_t framing, divisor, messages;
} traffic;

static uint32_t size_of(const traffic *t, uint32_t i)
{
    static const uint32_t sizes[] = {5, 0, 1000, 40000, 3, 3, 70000, 20000, 1, 150000, 32768, 65536, 12};
    return sizes[i % (sizeof sizes / sizeof *sizes)] / t->divisor;
}

static void fill(uint8_t *to, uint32_t i, uint32_t size)
{
    for (uint32_t k = 0; k < size; k++)
        to[k] = (uint8_t)('A' + (i + k * 7 + k / 1000) % 50); /* no newline */
}

/* One message as it lies on the wire. */
static size_t wire(const traffic *t, uint8_t *to, uint32_t i, uint8_t kind)
{
    uint32_t size = size_of(t, i), head = t->framing == PS_PYSOCK ? PS_HEADER_SIZE : t->framing == PS_U32 ? 4 : 0;
    if (t->framing == PS_PYSOCK)
        ps__write_header(to, size, kind, 0, 0, i + 1);
    else if (t->framing == PS_U32)
        ps__put32(to, size);
    fill(to + head, i, size);
    if (t->framing == PS_LINE)
        to[size++] = '\n';
    return head + size;
}

static void *send_traffic(void *context)
{
    const traffic *t = context;
    uint8_t *message = malloc(200000);
    CHECK(message);
    for (uint32_t i = 0; i < t->messages; i++)
        send_all(t->fd, message, wire(t, message, i, PS_SRM));
    free(message);
    return NULL;
}

static void receive_traffic(const traffic *t)
{
    uint8_t *message = malloc(200000);
    CHECK(message);
    for (uint32_t i = 0; i < t->messages; i++)
        expect(t->fd, message, wire(t, message, i, PS_REPLY));
    free(message);
}

/* Sent from another thread, so that neither end waits for the other. */
static void there_and_back(uint32_t framing, uint32_t divisor)
{
    traffic t = {.fd = echo_plug(&server), .framing = framing, .divisor = divisor, .messages = MESSAGES};
    pthread_t sender;
    if (framing == PS_PYSOCK)
        hello(t.fd, "");
    CHECK_EQ(pthread_create(&sender, NULL, send_traffic, &t), 0);
    receive_traffic(&t);
    CHECK_EQ(pthread_join(sender, NULL), 0);
    CHECK_EQ(close(t.fd), 0);
}

#define FOR_EACH_FRAMING(f) for (uint32_t f = PS_PYSOCK; f <= PS_RAW; f++)

static void a_small_send_buffer(void)
{
    FOR_EACH_FRAMING(framing) {
        const ps_options options = echo_options(framing);
        begin(&options);
        there_and_back(framing, 1);
        end();
    }
}

static void a_few_bytes_at_a_time(void)
{
    FOR_EACH_FRAMING(framing) {
        const ps_options options = echo_options(framing);
        begin_moody(&options, 7, -EAGAIN);
        there_and_back(framing, 100);
        end();
    }
}

static void pieces_of_any_size(void)
{
    FOR_EACH_FRAMING(framing) {
        const ps_options options = echo_options(framing);
        begin_moody(&options, 50000, -EAGAIN);
        there_and_back(framing, 1);
        end();
    }
}

/* The kernel is short of memory for a moment: not the client's fault. */
static void no_buffers(void)
{
    static const int errors[] = {-ENOBUFS, -ENOMEM, -EINTR};
    const ps_options options = echo_options(PS_PYSOCK);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        begin_moody(&options, 5000, errors[i]);
        there_and_back(PS_PYSOCK, 10);
        end();
    }
}

/* Several clients at once: no byte of one's reaches another. */
static void many_slow_clients(void)
{
    enum { CLIENTS = 5 };
    const ps_options options = echo_options(PS_PYSOCK);
    traffic t[CLIENTS];
    pthread_t senders[CLIENTS];
    begin(&options);
    for (int i = 0; i < CLIENTS; i++) {
        t[i] = (traffic){.fd = echo_plug(&server), .framing = PS_PYSOCK, .divisor = (uint32_t)i + 1, .messages = 20};
        hello(t[i].fd, "");
        CHECK_EQ(pthread_create(&senders[i], NULL, send_traffic, &t[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        receive_traffic(&t[i]);
        CHECK_EQ(pthread_join(senders[i], NULL), 0);
        CHECK_EQ(close(t[i].fd), 0);
    }
    end();
}

/* -- limits -------------------------------------------------------------------------------------------------------- */

/* Who does not take replies is not read either; when it takes them again it is, and nothing was lost. */
static void a_client_that_stops_reading(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.output_pause = 300000;
    begin(&options);
    traffic t = {.fd = echo_plug(&server), .framing = PS_PYSOCK, .divisor = 1, .messages = MESSAGES};
    uint64_t id = hello(t.fd, ""), before = 0;
    pthread_t sender;
    ps_info info = {0};
    CHECK_EQ(pthread_create(&sender, NULL, send_traffic, &t), 0);
    do { /* until nothing moves any more */
        before = info.bytes_in;
        poll(NULL, 0, 100);
        CHECK_EQ(ps_engine_info(server.engine, id, &info), 1);
    } while (info.queued <= 300000 || info.bytes_in != before);
    CHECK(info.queued < 300000 + PS_READ_MAX + PS_LARGE_TURN);
    CHECK(echo_stats(&server).requests < MESSAGES);
    receive_traffic(&t);
    CHECK_EQ(pthread_join(sender, NULL), 0);
    CHECK_EQ(echo_stats(&server).requests, MESSAGES);
    WAIT_FOR(ps_engine_info(server.engine, id, &info) == 1 && info.queued == 0);
    CHECK_EQ(close(t.fd), 0);
    end();
}

static void a_client_that_is_too_far_behind(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.output_drop = 500000;
    begin(&options);
    int fd = echo_plug(&server);
    uint64_t id = hello(fd, "");
    static uint8_t data[100000];
    for (int i = 0; i < 6; i++)
        ps_engine_push(server.engine, id, data, sizeof data);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_OVER_A_LIMIT);
    CHECK_EQ(close(fd), 0);
    end();
}

static void a_client_that_takes_nothing(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.output_timeout_ns = 100 * 1000000;
    begin(&options);
    int fd = echo_plug(&server);
    static uint8_t data[200000];
    uint64_t id = hello(fd, ""), before = ps__now_ns();
    CHECK_EQ(ps_engine_push(server.engine, id, data, sizeof data), 1);
    WAIT_FOR(server.gone == 1);
    CHECK(ps__now_ns() - before >= 99 * 1000000);
    CHECK_EQ(server.last_reason, PS_TIMED_OUT);
    CHECK_EQ(close(fd), 0);
    end();
}

static void a_client_that_vanishes_owed(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    begin(&options);
    static uint8_t data[1 << 20];
    int fd = echo_plug(&server);
    uint64_t id = hello(fd, "");
    send_srm(fd, 1, data, sizeof data); /* its reply waits in an object */
    CHECK_EQ(ps_engine_push(server.engine, id, data, sizeof data), 1);
    WAIT_FOR(echo_stats(&server).requests == 1 && echo_stats(&server).pushes == 1);
    CHECK_EQ(close(fd), 0);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_CLOSED_BY_PEER);
    end();
}

/* What was sent before a disconnect is taken first, however slowly. */
static void a_slow_goodbye(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    begin(&options);
    static uint8_t data[300000];
    int fd = echo_plug(&server);
    uint64_t id = hello(fd, "");
    CHECK_EQ(ps_engine_push(server.engine, id, data, sizeof data), 1);
    CHECK_EQ(ps_engine_disconnect(server.engine, id), 1);
    poll(NULL, 0, 20);
    CHECK_EQ(server.gone, 0);
    expect_frame(fd, PS_PUSH, 0, 0, data, sizeof data);
    expect_end(fd);
    CHECK_EQ(close(fd), 0);
    end();
}

/* A stop, too, waits for those who are slow. */
static void a_slow_stop(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    begin(&options);
    static uint8_t data[300000];
    int fd = echo_plug(&server);
    hello(fd, "");
    send_srm(fd, 1, data, sizeof data);
    WAIT_FOR(echo_stats(&server).requests == 1);
    CHECK_EQ(ps_engine_stop(server.engine, (uint64_t)PATIENCE_S * 1000000000), 0);
    WAIT_FOR(server.drained == 1);
    expect_frame(fd, PS_REPLY, 0, 1, data, sizeof data);
    expect_text(fd, PS_GOAWAY, 2, 0);
    expect_end(fd);
    CHECK_EQ(close(fd), 0);
    echo_wait(&server);
    ps_sys = real;
}

int main(void)
{
    RUN(a_small_send_buffer);
    RUN(a_few_bytes_at_a_time);
    RUN(pieces_of_any_size);
    RUN(no_buffers);
    RUN(many_slow_clients);
    RUN(a_client_that_stops_reading);
    RUN(a_client_that_is_too_far_behind);
    RUN(a_client_that_takes_nothing);
    RUN(a_client_that_vanishes_owed);
    RUN(a_slow_goodbye);
    RUN(a_slow_stop);
    return 0;
}
