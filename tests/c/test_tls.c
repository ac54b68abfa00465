/* TLS by libssl: what a client gets that does all right, what becomes of one that doesn't, and of everybody where a function of
 * OpenSSL, the kernel or the allocator fails. */
#include <signal.h>

#include "tls.h"
#include "transport/tls.h"

static ps_sys_table real;
static echo server;
static uint8_t pattern[2 << 20];

static ps_options the_options(uint32_t framing)
{
    ps_options options = echo_options(framing);
    options.linger_ns = 0;
    return options;
}

static void begin(uint32_t verify)
{
    ps_options options = the_options(PS_PYSOCK);
    tls_serve(&server, &options, verify);
}

static void end(void)
{
    echo_end(&server);
    ps_sys = real;
    ps_libssl = tls_real;
}

static void all_is_well(void)
{
    int fd;
    ps_SSL *ssl = tls_join(&server, &fd);
    tls_served(ssl, 1, "hello", 5);
    tls_leave(ssl, fd);
}

/* -- bytes ----------------------------------------------------------------------------------------------------------- */

static void whatever_size_it_has(void)
{
    static const uint32_t sizes[] = {0, 1, 5, 100, 4095, 4096, 16383, 16384, 16385, 65535, 65536, 100000, sizeof pattern};
    int fd;
    begin(PS_VERIFY_NONE);
    ps_SSL *ssl = tls_join(&server, &fd);
    for (uint32_t round = 0; round < 3; round++) /* the last is guessed to be the size of the next */
        for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            tls_served(ssl, i + 1, pattern, sizes[i]);
    tls_leave(ssl, fd);
    end();
}

/* Many in a record, and many records at once. */
static void many_at_once(void)
{
    enum { COUNT = 5000, SIZE = 64 };
    static uint8_t all[COUNT * (PS_HEADER_SIZE + SIZE)];
    int fd;
    begin(PS_VERIFY_NONE);
    ps_SSL *ssl = tls_join(&server, &fd);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint8_t *at = all + i * (PS_HEADER_SIZE + SIZE);
        ps__write_header(at, SIZE, PS_SRM, PS_NO_REPLY * (i % 3 == 0), 0, i + 1);
        memcpy(at + PS_HEADER_SIZE, pattern + i, SIZE);
    }
    CHECK(tls_write(ssl, all, sizeof all));
    for (uint32_t i = 0; i < COUNT; i++)
        CHECK(i % 3 == 0 || tls_gets(ssl, PS_REPLY, i + 1, pattern + i, SIZE));
    tls_leave(ssl, fd);
    end();
}

/* The kernel takes nothing for a while: what is sealed waits, and what isn't, behind it. */
static void a_client_that_reads_late(void)
{
    enum { COUNT = 40, SIZE = 200000 };
    int fd;
    begin(PS_VERIFY_NONE);
    ps_SSL *ssl = tls_join(&server, &fd);
    for (uint32_t i = 0; i < COUNT / 4; i++)
        CHECK(tls_send_frame(ssl, PS_SRM, 0, i + 1, pattern + i, SIZE));
    WAIT_FOR(echo_stats(&server).requests >= COUNT / 16);
    poll(NULL, 0, 20);
    for (uint32_t i = 0; i < COUNT / 4; i++)
        CHECK(tls_gets(ssl, PS_REPLY, i + 1, pattern + i, SIZE));
    tls_leave(ssl, fd);
    end();
}

/* -- a kernel that gives and takes little ------------------------------------------------------------------------------- */

static atomic_int most_in, most_out, calls_out;

static ssize_t little_recvfrom(int fd, void *data, size_t room, int flags)
{
    return real.recvfrom(fd, data, most_in && room > (size_t)most_in ? (size_t)most_in : room, flags);
}

/* Every other time it is full. */
static ssize_t little_sendto(int fd, const void *data, size_t size, int flags)
{
    if (most_out && calls_out++ % 2)
        return calls_out % 6 ? -EAGAIN : -ENOBUFS;
    return real.sendto(fd, data, most_out && size > (size_t)most_out ? (size_t)most_out : size, flags);
}

static void little_by_little(void)
{
    static const int sizes[] = {1, 7, 1000};
    for (size_t i = 0; i < 3; i++) {
        int fd;
        most_in = most_out = sizes[i];
        ps_sys.recvfrom = little_recvfrom;
        ps_sys.sendto = little_sendto;
        begin(PS_VERIFY_REQUIRE);
        ps_SSL *ssl = tls_join(&server, &fd);
        tls_served(ssl, 1, pattern, 10);
        tls_served(ssl, 2, pattern, sizes[i] == 1 ? 300 : 40000);
        tls_served(ssl, 3, "", 0);
        tls_leave(ssl, fd);
        most_in = most_out = 0;
        end();
    }
}

/* -- the handshake -------------------------------------------------------------------------------------------------------- */

static uint64_t cause(enum ps_cause which)
{
    return echo_stats(&server).causes[which];
}

static void who_speaks_no_tls(void)
{
    uint8_t byte;
    begin(PS_VERIFY_NONE);
    int fd = echo_plug(&server);
    send_cir(fd, "");
    receive(fd, &byte, 1); /* an alert, or the end */
    WAIT_FOR(cause(PS_CAUSE_NO_TLS) == 1);
    CHECK_EQ(close(fd), 0);
    fd = echo_plug(&server);
    send_all(fd, "\x16\x03\x01\x00\x05garbage, and more of it", 26);
    WAIT_FOR(cause(PS_CAUSE_TLS) == 1);
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(close(echo_plug(&server)), 0); /* only looks whether somebody is there */
    WAIT_FOR(echo_stats(&server).accepted == 3 && !echo_stats(&server).pending);
    CHECK(cause(PS_CAUSE_NO_TLS) == 1 && cause(PS_CAUSE_TLS) == 1 && echo_stats(&server).refused == 2);
    all_is_well();
    end();
}

static void half_a_hello_has_a_deadline(void)
{
    ps_options options = the_options(PS_PYSOCK);
    options.limits.cir_timeout_ns = 50000000;
    tls_serve(&server, &options, PS_VERIFY_NONE);
    int fd = echo_plug(&server);
    send_all(fd, "\x16\x03\x01\x02\x00\x01\x00", 7);
    expect_end(fd);
    WAIT_FOR(cause(PS_CAUSE_LATE) == 1);
    CHECK_EQ(close(fd), 0);
    end();
}

static void a_framing_without_a_cir_waits_for_it(void)
{
    ps_options options = the_options(PS_LINE);
    char line[6];
    tls_serve(&server, &options, PS_VERIFY_NONE);
    int fd = echo_plug(&server);
    WAIT_FOR(echo_stats(&server).pending == 1);
    CHECK_EQ(echo_stats(&server).established, 0);
    ps_SSL *ssl = tls_client(fd);
    CHECK_EQ(of_client.SSL_connect(ssl), 1);
    CHECK(tls_write(ssl, "hello\n", 6));
    CHECK_EQ(tls_read(ssl, line, 6), 6);
    CHECK(memcmp(line, "hello\n", 6) == 0 && echo_stats(&server).established == 1);
    tls_leave(ssl, fd);
    end();
}

static void alpn_is_ours_or_none(void)
{
    int fd;
    begin(PS_VERIFY_NONE);
    CHECK_EQ(of_client.SSL_CTX_set_alpn_protos(tls_client_context, (const unsigned char *)"\x02h2\x08pysock/1", 12), 0);
    all_is_well();
    CHECK_EQ(of_client.SSL_CTX_set_alpn_protos(tls_client_context, (const unsigned char *)"\x02h2\x08pysock/2", 12), 0);
    fd = echo_plug(&server);
    ps_SSL *ssl = tls_client(fd);
    CHECK(of_client.SSL_connect(ssl) != 1);
    WAIT_FOR(cause(PS_CAUSE_TLS) == 1);
    tls_leave(ssl, fd);
    CHECK_EQ(of_client.SSL_CTX_set_alpn_protos(tls_client_context, NULL, 0), 0);
    all_is_well();
    end();
}

static bool has_fact(const uint8_t *facts, size_t size, uint8_t kind, const char *value, size_t length)
{
    for (size_t at = 0; at < size; at += 3u + (size_t)(facts[at + 1] << 8 | facts[at + 2])) {
        if (facts[at] == kind && (size_t)(facts[at + 1] << 8 | facts[at + 2]) == length &&
            memcmp(facts + at + 3, value, length) == 0)
            return true;
    }
    return false;
}

static void what_is_known_of_a_client(void)
{
    uint8_t facts[1024];
    int fd;
    begin(PS_VERIFY_REQUIRE);
    ps_SSL *ssl = tls_join(&server, &fd);
    uint64_t id;
    CHECK_EQ(ps_engine_ids(server.engine, &id, 1), 1);
    size_t size = (size_t)ps_engine_facts(server.engine, id, facts, sizeof facts);
    CHECK(size > 0 && size <= sizeof facts);
    CHECK_EQ(ps_engine_facts(server.engine, id, facts, 3), size);
    CHECK(has_fact(facts, size, PS_FACT_VERSION, "TLSv1.3", 7));
    CHECK(has_fact(facts, size, PS_FACT_SUBJECT_KEY, "commonName", 10));
    CHECK(has_fact(facts, size, PS_FACT_SUBJECT, "both ends", 9));
    CHECK(has_fact(facts, size, PS_FACT_DNS, "a.example", 9));
    CHECK(has_fact(facts, size, PS_FACT_URI, "spiffe://x/y", 12));
    CHECK(has_fact(facts, size, PS_FACT_IP, "\x0a\x00\x00\x01", 4));
    CHECK(!has_fact(facts, size, PS_FACT_RESUMED, "", 0));
    CHECK_EQ(ps_engine_facts(server.engine, id + (1ull << 32), facts, sizeof facts), 0);
    tls_leave(ssl, fd);
    end();
}

/* -- the end -------------------------------------------------------------------------------------------------------------- */

static void the_word_that_it_is_the_end(void)
{
    int fd;
    uint8_t byte;
    begin(PS_VERIFY_NONE);
    ps_SSL *ssl = tls_join(&server, &fd);
    CHECK(tls_send_frame(ssl, PS_SRM, 0, 1, "hello", 5));
    CHECK_EQ(tls_real.SSL_shutdown(ssl), 0); /* in one piece with it, perhaps: the end is told all the same */
    CHECK(tls_gets(ssl, PS_REPLY, 1, "hello", 5));
    size_t got;
    CHECK_EQ(tls_real.SSL_read_ex(ssl, &byte, 1, &got), 0);
    CHECK_EQ(tls_real.SSL_get_error(ssl, 0), PS_SSL_ERROR_ZERO_RETURN);
    tls_leave(ssl, fd);
    WAIT_FOR(server.gone == 1);
    CHECK(server.last_reason == PS_CLOSED_BY_PEER && !cause(PS_CAUSE_TLS_TRUNCATED));
    end();
}

static void cut_off(ps_SSL *ssl, int fd)
{
    tls_real.SSL_free(ssl);
    CHECK_EQ(close(fd), 0);
}

static void an_end_without_it(void)
{
    int fd;
    begin(PS_VERIFY_NONE);
    ps_SSL *ssl = tls_join(&server, &fd);
    cut_off(ssl, fd);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_CLOSED_BY_PEER);
    CHECK_EQ(cause(PS_CAUSE_TLS_TRUNCATED), 1);
    ssl = tls_join(&server, &fd);
    CHECK(tls_write(ssl, "\0\0\0\x10\x02\0", 6)); /* within a header */
    cut_off(ssl, fd);
    WAIT_FOR(server.gone == 2);
    CHECK_EQ(server.last_reason, PS_PROTOCOL_VIOLATION);
    ssl = tls_join(&server, &fd);
    CHECK(tls_write(ssl, "\0\0\0\x10\x02\0\0\0\0\0\0\1some", 16)); /* and within a payload */
    cut_off(ssl, fd);
    WAIT_FOR(server.gone == 3);
    CHECK_EQ(server.last_reason, PS_PROTOCOL_VIOLATION);
    CHECK(cause(PS_CAUSE_TLS_TRUNCATED) == 3 && cause(PS_CAUSE_VIOLATION) == 2);
    end();
}

static void of_a_raw_one_it_is_always_wrong(void)
{
    ps_options options = the_options(PS_RAW);
    uint8_t byte;
    tls_serve(&server, &options, PS_VERIFY_NONE);
    int fd = echo_plug(&server);
    ps_SSL *ssl = tls_client(fd);
    CHECK_EQ(of_client.SSL_connect(ssl), 1);
    CHECK(tls_write(ssl, "x", 1));
    CHECK_EQ(tls_read(ssl, &byte, 1), 1); /* what else came before it was read, too: else it were a reset */
    cut_off(ssl, fd);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_PROTOCOL_VIOLATION);
    end();
}

static void updates_of_keys(void)
{
    uint8_t byte;
    int fd;
    begin(PS_VERIFY_NONE);
    ps_SSL *ssl = tls_join(&server, &fd);
    for (uint32_t i = 1; i < 100; i++) { /* each with a request behind it */
        CHECK_EQ(of_client.SSL_key_update(ssl, 1), 1);
        tls_served(ssl, i, "hello", 5);
    }
    for (int i = 0; i < 40 && of_client.SSL_key_update(ssl, 0) == 1; i++) { /* and nothing else */
        tls_real.SSL_do_handshake(ssl);
        tls_real.ERR_clear_error();
    }
    CHECK_EQ(tls_read(ssl, &byte, 1), 0);
    WAIT_FOR(server.gone == 1);
    CHECK_EQ(server.last_reason, PS_PROTOCOL_VIOLATION);
    tls_leave(ssl, fd);
    all_is_well();
    end();
}

/* A record that isn't one: the client is told by an alert, and nobody else is concerned. */
static void garbage_in_the_middle(void)
{
    int fd;
    begin(PS_VERIFY_NONE);
    ps_SSL *ssl = tls_join(&server, &fd);
    uint8_t garbage[5000] = "\x17\x03\x03\x00\x20 these bytes were sealed by nobody";
    send_all(fd, garbage, sizeof garbage); /* and what is behind them is read by nobody */
    WAIT_FOR(server.gone == 1);
    CHECK(server.last_reason == PS_PROTOCOL_VIOLATION && cause(PS_CAUSE_VIOLATION) == 1);
    tls_leave(ssl, fd);
    all_is_well();
    end();
}

/* -- other certificates on a server that runs ------------------------------------------------------------------------------ */

static void exchanged_while_it_runs(void)
{
    char why[256] = "";
    int fd;
    begin(PS_VERIFY_NONE);
    ps_SSL *ssl = tls_join(&server, &fd);
    ps_tls_options tls = tls_options(PS_VERIFY_REQUIRE);
    CHECK_EQ(ps_engine_secure(server.engine, 0, &tls, why, sizeof why), 0);
    tls_served(ssl, 1, "hello", 5);
    all_is_well();
    tls.key = tls_file("nothing.pem");
    CHECK(ps_engine_secure(server.engine, 0, &tls, why, sizeof why) < 0 && *why);
    CHECK_EQ(ps_engine_secure(server.engine, 1, &tls, why, sizeof why), -EINVAL);
    tls_served(ssl, 2, "hello", 5);
    all_is_well();
    tls_leave(ssl, fd);
    end();
}

/* -- everything fails ------------------------------------------------------------------------------------------------------ */

enum stage { BEFORE_ALL, BEFORE_CONNECTING, BEFORE_ASKING, BEFORE_LEAVING, STAGES };

/* A client's life, as far as it comes; before this stage the failure begins. */
static void a_life(enum stage stage, void (*fail)(void))
{
    char why[256] = "";
    const ps_tls_options tls = tls_options(PS_VERIFY_REQUIRE);
    if (stage == BEFORE_ALL)
        fail();
    int error = ps_engine_secure(server.engine, 0, &tls, why, sizeof why);
    CHECK(error == 0 || (stage == BEFORE_ALL && *why));
    if (stage == BEFORE_CONNECTING)
        fail();
    int fd = echo_plug(&server);
    ps_SSL *ssl = tls_client(fd);
    bool good = of_client.SSL_connect(ssl) == 1 && tls_hello(ssl);
    if (stage == BEFORE_ASKING)
        fail();
    if (good && tls_send_frame(ssl, PS_SRM, 0, 1, pattern, 100000))
        tls_gets(ssl, PS_REPLY, 1, pattern, 100000);
    if (stage == BEFORE_LEAVING)
        fail();
    tls_leave(ssl, fd);
    WAIT_FOR(!echo_stats(&server).pending && !echo_stats(&server).clients);
    tls_real.ERR_clear_error();
}

static size_t struck; /* the place of the function in the table */

static long fails(void)
{
    return 0;
}

static void strike(void)
{
    long (*function)(void) = fails;
    memcpy((char *)&ps_libssl + struck, &function, sizeof function);
}

#define NAME_AND_PLACE(result, name, arguments) {#name, offsetof(ps_libssl_table, name)},

static void each_function_fails(void)
{
    static const struct {
        const char *name;
        size_t at;
    } functions[] = {PS_LIBSSL(NAME_AND_PLACE) PS_LIBCRYPTO(NAME_AND_PLACE)};
    begin(PS_VERIFY_REQUIRE);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        for (int stage = 0; stage < STAGES && !tls_is_sure(functions[i].name); stage++) {
            struck = functions[i].at;
            a_life((enum stage)stage, strike);
            ps_libssl = tls_real;
        }
    }
    CHECK_EQ(echo_stats(&server).clients, 0);
    all_is_well();
    end();
}

static atomic_int until_failure; /* allocations; 0: none fails */

static bool is_time(void)
{
    int left = until_failure;
    if (left > 0)
        until_failure = left - 1;
    return left == 1;
}

static void *failing_allocate(size_t size)
{
    return is_time() ? NULL : real.allocate(size);
}

static void *failing_resize(void *block, size_t size)
{
    return is_time() ? NULL : real.resize(block, size);
}

static int allocation;

static void arm(void)
{
    until_failure = allocation;
}

static void each_allocation_fails(void)
{
    begin(PS_VERIFY_REQUIRE);
    ps_sys.allocate = failing_allocate;
    ps_sys.resize = failing_resize;
    ps_sys.sendto = little_sendto;
    for (allocation = 1; allocation < 40; allocation++) {
        most_out = allocation % 2 ? 500 : 0; /* some of it is held */
        a_life(BEFORE_CONNECTING, arm);
        until_failure = 0;
    }
    most_out = 0;
    all_is_well();
    end();
}

static atomic_int error_in, error_out;

static ssize_t failing_recvfrom(int fd, void *data, size_t room, int flags)
{
    int error = error_in;
    error_in = 0;
    return error ? error : real.recvfrom(fd, data, room, flags);
}

static ssize_t failing_sendto(int fd, const void *data, size_t size, int flags)
{
    int error = error_out;
    error_out = 0;
    return error ? error : real.sendto(fd, data, size, flags);
}

static int the_error;

static void break_input(void)
{
    error_in = the_error;
}

static void break_output(void)
{
    error_out = the_error;
}

static void each_call_fails(void)
{
    static const int errors[] = {-EAGAIN, -EINTR, -ECONNRESET, -ENOMEM, -ENOBUFS, -EPIPE};
    begin(PS_VERIFY_REQUIRE);
    ps_sys.recvfrom = failing_recvfrom;
    ps_sys.sendto = failing_sendto;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        for (int stage = BEFORE_CONNECTING; stage < STAGES; stage++) {
            the_error = errors[i];
            a_life((enum stage)stage, break_input);
            a_life((enum stage)stage, break_output);
            error_in = error_out = 0;
        }
    }
    all_is_well();
    end();
}

int main(void)
{
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i * 31 + i / 256 * 7);
    real = ps_sys;
    signal(SIGPIPE, SIG_IGN); /* of the clients' end, which is OpenSSL's */
    tls_begin();
    RUN(whatever_size_it_has);
    RUN(many_at_once);
    RUN(a_client_that_reads_late);
    RUN(little_by_little);
    RUN(who_speaks_no_tls);
    RUN(half_a_hello_has_a_deadline);
    RUN(a_framing_without_a_cir_waits_for_it);
    RUN(alpn_is_ours_or_none);
    RUN(what_is_known_of_a_client);
    RUN(the_word_that_it_is_the_end);
    RUN(an_end_without_it);
    RUN(of_a_raw_one_it_is_always_wrong);
    RUN(updates_of_keys);
    RUN(garbage_in_the_middle);
    RUN(exchanged_while_it_runs);
    RUN(each_function_fails);
    RUN(each_allocation_fails);
    RUN(each_call_fails);
    tls_real.SSL_CTX_free(tls_client_context);
    return 0;
}
