/* TLS by the host's sessions, whose sealing is a toy here: what a client gets, and what becomes of everybody where a step of a
 * session, the kernel or the allocator fails.
 *
 * A client begins with "HELLO", and is greeted with "hello"; each byte is sealed by turning one bit over; the last is a 0. One
 * that begins with "X" speaks no TLS, one with "F" fails. */
#include "echo.h"
#include "transport/tls.h"

enum { BIT = 0x80, GREETING = 5 };

static ps_sys_table real;
static echo server;
static uint8_t pattern[1 << 20];

/* -- the sessions --------------------------------------------------------------------------------------------------- */

typedef struct toy {
    uint8_t kept[4 * PS_READ_MAX]; /* opened, and not taken yet */
    size_t size, greeted;
    bool ended;
} toy;

static atomic_int sessions, until_failure, steps, said_no;

static bool is_time(void)
{
    int left = until_failure;
    if (left > 0)
        until_failure = left - 1;
    return left == 1;
}

static int toy_begin(void *context, const ps_conn *conn, void **session)
{
    echo *e = context;
    CHECK(e->inside && conn);
    steps++;
    if (is_time())
        return -ENOMEM;
    *session = calloc(1, sizeof(toy));
    CHECK(*session);
    sessions++;
    return 0;
}

static void toy_end(void *context, void *session)
{
    (void)context;
    free(session);
    sessions--;
}

static void take_in(toy *t, const uint8_t *data, size_t size)
{
    CHECK(t->size + size <= sizeof t->kept);
    for (size_t i = 0; i < size && !t->ended; i++) {
        t->ended = data[i] == 0;
        if (!t->ended)
            t->kept[t->size++] = data[i] ^ BIT;
    }
}

static void shake(toy *t, const uint8_t *data, size_t size, ps_tls_made *made)
{
    size_t more = GREETING - t->greeted, taken = size < more ? size : more;
    if (!t->greeted && (*data == 'X' || *data == 'F')) {
        made->said = *data == 'X' ? PS_TLS_FAILED | PS_TLS_STRANGE : PS_TLS_FAILED;
        return;
    }
    t->greeted += taken;
    take_in(t, data + taken, size - taken);
    if (t->greeted < GREETING)
        return;
    made->said = PS_TLS_DONE | (t->size || t->ended ? PS_TLS_MORE : 0);
    made->sealed = (const uint8_t *)"hello";
    made->sealed_size = GREETING;
}

static void open_some(toy *t, const uint8_t *data, size_t size, size_t most, uint8_t *to, ps_tls_made *made)
{
    take_in(t, data, size);
    made->opened_size = t->size < most ? t->size : most;
    memcpy(to, t->kept, made->opened_size);
    made->opened = to;
    t->size -= made->opened_size;
    memmove(t->kept, t->kept + made->opened_size, t->size);
    made->said = t->size ? PS_TLS_MORE : t->ended ? PS_TLS_ENDED : 0;
}

static int toy_step(void *context, void *session, enum ps_tls_step step, const uint8_t *data, size_t size, size_t most,
                    ps_tls_made *made)
{
    echo *e = context;
    uint8_t *to;
    CHECK(e->inside && session);
    steps++;
    if (is_time())
        return -ENOMEM;
    *made = (ps_tls_made){.object = echo_object_new(e, size + most + 1, &to)};
    if (said_no && step == PS_TLS_SEAL) {
        made->said = PS_TLS_FAILED;
    } else if (step == PS_TLS_SHAKE) {
        shake(session, data, size, made);
    } else if (step == PS_TLS_UNSEAL) {
        open_some(session, data, size, most, to, made);
    } else {
        for (size_t i = 0; i < size; i++)
            to[i] = data[i] ^ BIT;
        *to = step == PS_TLS_CLOSE ? 0 : *to;
        made->sealed = to;
        made->sealed_size = step == PS_TLS_CLOSE ? 1 : size;
    }
    return 0;
}

/* -- the server, and its clients ------------------------------------------------------------------------------------ */

static void begin(uint32_t framing)
{
    ps_options options = echo_options(framing);
    options.linger_ns = 0;
    echo_new(&server, &options);
    server.engine->hooks.tls_begin = toy_begin;
    server.engine->hooks.tls_step = toy_step;
    server.engine->hooks.tls_end = toy_end;
    echo_listen(&server, AF_INET);
    CHECK_EQ(ps_engine_add_master(server.engine, server.master, 0), 0);
    CHECK_EQ(ps__secure_hosted(server.engine, 1), -EINVAL);
    CHECK_EQ(ps__secure_hosted(server.engine, 0), 0);
    echo_start(&server);
}

static void end(void)
{
    until_failure = said_no = 0;
    echo_end(&server);
    CHECK_EQ(sessions, 0);
    ps_sys = real;
}

static bool goes_out(int fd, const void *data, size_t size)
{
    return send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Whether it comes; fewer bytes: the server has closed. */
static bool comes(int fd, const void *data, size_t size)
{
    static uint8_t got[sizeof pattern + 64];
    return receive(fd, got, size) == size && memcmp(got, data, size) == 0;
}

static bool is_greeted(int fd)
{
    return goes_out(fd, "HELLO", GREETING) && comes(fd, "hello", GREETING);
}

/* One frame of u32 there, and the same back. */
static bool is_served(int fd, uint32_t size)
{
    static uint8_t frame[4 + sizeof pattern];
    const uint8_t head[] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
    memcpy(frame, head, 4);
    memcpy(frame + 4, pattern, size);
    for (size_t i = 0; i < size + 4; i++)
        frame[i] ^= BIT;
    for (size_t at = 0; at < size + 4;) {
        ssize_t sent = send(fd, frame + at, size + 4 - at, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        at += (size_t)sent;
    }
    return comes(fd, frame, size + 4);
}

static void is_gone(void)
{
    WAIT_FOR(!echo_stats(&server).pending && !echo_stats(&server).clients && !sessions);
}

static void all_is_well(void)
{
    int fd = echo_plug(&server);
    CHECK(is_greeted(fd) && is_served(fd, 5));
    CHECK(goes_out(fd, "", 1));
    CHECK(comes(fd, "", 1)); /* it says so, too */
    expect_end(fd);
    close(fd);
}

/* -- the tests ------------------------------------------------------------------------------------------------------- */

static void whatever_size_it_has(void)
{
    static const uint32_t sizes[] = {0, 1, 5, 4096, 65531, 65532, 65536, 100000, 300000, sizeof pattern};
    begin(PS_U32);
    int fd = echo_plug(&server);
    CHECK(is_greeted(fd));
    for (size_t round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            CHECK(is_served(fd, sizes[i]));
    close(fd);
    is_gone();
    all_is_well();
    end();
}

/* What stands behind it in the same piece is served, of which no poll tells. */
static void behind_the_handshake(void)
{
    begin(PS_LINE);
    int fd = echo_plug(&server);
    CHECK(goes_out(fd, "HELLO\xf8\xf9\x8a", 8));
    CHECK(comes(fd, "hello\xf8\xf9\x8a", 8));
    close(fd);
    fd = echo_plug(&server);
    CHECK(goes_out(fd, "HELLO\xf8\x8a", 8)); /* and its end */
    CHECK(comes(fd, "hello\xf8\x8a", 8));
    expect_end(fd);
    close(fd);
    is_gone();
    CHECK_EQ(echo_stats(&server).causes[PS_CAUSE_TLS_TRUNCATED], 1);
    end();
}

static void who_is_turned_away(void)
{
    ps_handshake last;
    begin(PS_U32);
    int fd = echo_plug(&server);
    CHECK(goes_out(fd, "F", 1));
    expect_end(fd);
    close(fd);
    is_gone();
    ps_engine_handshake(server.engine, &last);
    CHECK(last.hosted);
    fd = echo_plug(&server);
    CHECK(goes_out(fd, "X", 1));
    CHECK(comes(fd, "\x15\x03\x03\0\2\2\x46", 7));
    close(fd);
    fd = echo_plug(&server);
    CHECK(goes_out(fd, "HE", 2)); /* and goes */
    WAIT_FOR(sessions);
    close(fd);
    is_gone();
    CHECK(echo_stats(&server).causes[PS_CAUSE_TLS] == 1 && echo_stats(&server).causes[PS_CAUSE_NO_TLS] == 1);
    CHECK_EQ(echo_stats(&server).refused, 2);
    all_is_well();
    end();
}

static void cut_off(void)
{
    begin(PS_U32);
    int fd = echo_plug(&server);
    CHECK(is_greeted(fd) && is_served(fd, 5));
    close(fd);
    is_gone();
    CHECK(echo_stats(&server).causes[PS_CAUSE_TLS_TRUNCATED] == 1 && !echo_stats(&server).causes[PS_CAUSE_VIOLATION]);
    fd = echo_plug(&server);
    CHECK(is_greeted(fd) && goes_out(fd, "\x80\x80\x80\x85", 4));
    close(fd);
    is_gone();
    CHECK(echo_stats(&server).causes[PS_CAUSE_TLS_TRUNCATED] == 2 && echo_stats(&server).causes[PS_CAUSE_VIOLATION] == 1);
    end();
}

/* -- everything fails -------------------------------------------------------------------------------------------------- */

/* A client's life, as far as it comes. */
static void a_life(void)
{
    int fd = echo_plug(&server);
    if (is_greeted(fd) && is_served(fd, 5) && is_served(fd, 100000) && goes_out(fd, "", 1))
        comes(fd, "", 1);
    close(fd);
    is_gone();
}

static void each_step_fails(void)
{
    begin(PS_U32);
    steps = 0;
    a_life();
    int most = steps;
    CHECK(most > 5);
    for (int i = 1; i <= 2 * most; i++) {
        until_failure = i;
        a_life();
    }
    until_failure = 0;
    said_no = 1;
    a_life();
    said_no = 0;
    all_is_well();
    end();
}

static void *failing_allocate(size_t size)
{
    return is_time() ? NULL : real.allocate(size);
}

static void *failing_resize(void *block, size_t size)
{
    return is_time() ? NULL : real.resize(block, size);
}

static atomic_int most_out;

static ssize_t little_sendto(int fd, const void *data, size_t size, int flags)
{
    size_t most = most_out ? (size_t)most_out : size;
    return real.sendto(fd, data, size < most ? size : most, flags);
}

static void each_allocation_fails(void)
{
    begin(PS_U32);
    ps_sys.allocate = failing_allocate;
    ps_sys.resize = failing_resize;
    ps_sys.sendto = little_sendto;
    for (int i = 1; i < 30; i++) {
        most_out = i % 2 ? 30000 : 0; /* some of it is held */
        until_failure = i;
        a_life();
        until_failure = 0;
    }
    most_out = 0;
    all_is_well();
    end();
}

static atomic_int error_in, error_out, error;

static ssize_t failing_recvfrom(int fd, void *data, size_t room, int flags)
{
    return error_in && --error_in == 0 ? error : real.recvfrom(fd, data, room, flags);
}

static ssize_t failing_sendto(int fd, const void *data, size_t size, int flags)
{
    return error_out && --error_out == 0 ? error : real.sendto(fd, data, size, flags);
}

static void each_call_fails(void)
{
    static const int errors[] = {-EAGAIN, -EINTR, -ECONNRESET, -ENOMEM, -ENOBUFS, -EPIPE};
    begin(PS_U32);
    ps_sys.recvfrom = failing_recvfrom;
    ps_sys.sendto = failing_sendto;
    for (size_t i = 0; i < 2 * sizeof errors / sizeof *errors; i++) {
        for (int n = 1; n < 6; n++) {
            error = errors[i / 2];
            *(i % 2 ? &error_in : &error_out) = n;
            a_life();
            error_in = error_out = 0;
        }
    }
    all_is_well();
    end();
}

int main(void)
{
    real = ps_sys;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i % 100 + 1);
    RUN(whatever_size_it_has);
    RUN(behind_the_handshake);
    RUN(who_is_turned_away);
    RUN(cut_off);
    RUN(each_step_fails);
    RUN(each_allocation_fails);
    RUN(each_call_fails);
    return 0;
}
