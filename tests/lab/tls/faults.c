/* faults.c: clients over TLS, of which a call of OpenSSL's functions fails, or of the system's, or an allocation.
 *
 * Each line on standard input is one fault, `CALL ERRNO CAP N MODE`, as of ../faults.c; a CALL that is none of ps_sys is a function
 * of ps_libssl, which returns 0 or NULL then and has done nothing. For each of them the script runs from the beginning to the
 * end: nothing crashes, hangs or leaks, a client sees no wrong byte, and one call that fails costs one client at most. `ok STRUCK
 * LOST` follows; at the end of the input the places are told, as there. */
#include <signal.h>

#include "fault.h"
#include "tls.h"
#include "transport/tls.h"

enum { LARGE = 80000, LATE = 90000, LATE_COUNT = 8, PATTERN = LATE + LATE_COUNT };
enum { QUIET_MS = 8, TURNS_MAX = 100 }; /* more turns than that in so short a time are a spin */

static echo server;
static ps_tickets *tickets;
static unsigned lost;
static uint8_t pattern[PATTERN];

/* -- functions of OpenSSL's -------------------------------------------------------------------------------------------- */

#define FUNCTION(result, name, arguments) FUNCTION_##name,
#define FUNCTION_NAME(result, name, arguments) #name,
enum function { PS_LIBSSL(FUNCTION) PS_LIBCRYPTO(FUNCTION) FUNCTIONS };
static const char *const function_names[] = {PS_LIBSSL(FUNCTION_NAME) PS_LIBCRYPTO(FUNCTION_NAME)};

static struct {
    const void *address; /* of the first call */
    unsigned hits, struck;
} functions[FUNCTIONS];
static unsigned function_counts[FUNCTIONS];
static unsigned struck_function; /* FUNCTIONS: none */

static bool function_strikes(unsigned which, const void *from)
{
    if (!subject || tls_is_sure(function_names[which]))
        return false;
    pthread_mutex_lock(&fault.lock);
    unsigned count = ++function_counts[which];
    bool struck = fault.armed && which == struck_function && (count == fault.n || (count > fault.n && fault.mode == EVER));
    if (!functions[which].address)
        functions[which].address = from;
    functions[which].hits++;
    functions[which].struck += struck;
    fault.struck += struck;
    pthread_mutex_unlock(&fault.lock);
    return struck;
}

/* What they take and return are pointers and whole numbers, six at most, which are passed alike. */
typedef long any_function(long, long, long, long, long, long);

#define FAULTY(result, name, arguments)                                                                                \
    static long faulty_##name(long a, long b, long c, long d, long e, long f)                                          \
    {                                                                                                                  \
        any_function *function;                                                                                        \
        memcpy(&function, &tls_real.name, sizeof function);                                                            \
        return function_strikes(FUNCTION_##name, __builtin_return_address(0)) ? 0 : function(a, b, c, d, e, f);        \
    }
PS_LIBSSL(FAULTY)
PS_LIBCRYPTO(FAULTY)

#define REPLACE(result, name, arguments)                                                                               \
    {                                                                                                                  \
        any_function *function = faulty_##name;                                                                        \
        memcpy(&ps_libssl.name, &function, sizeof function);                                                           \
    }

static void replace_functions(void)
{
    PS_LIBSSL(REPLACE)
    PS_LIBCRYPTO(REPLACE)
}

/* -- the server -------------------------------------------------------------------------------------------------------- */

static void *serve(void *context)
{
    subject = true;
    return echo_main(context);
}

/* Other certificates, or the first ones: it may fail, and says why. */
static bool secure_it(uint32_t verify)
{
    char why[256] = "";
    ps_tls_options tls = tls_options(verify);
    tls.tickets = tickets;
    subject = true;
    int error = ps_engine_secure(server.engine, 0, &tls, why, sizeof why);
    subject = false;
    CHECK(error == 0 || (fault_struck() && *why));
    return error == 0;
}

static void begin(void)
{
    const int little = 8192;
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.max_clients = 2;
    options.linger_ns = 0;
    subject = true;
    tickets = ps_tickets_new((const uint8_t *)TLS_TICKETS, UINT64_MAX, 0);
    subject = false;
    CHECK(tickets || fault_struck());
    memset(&server, 0, sizeof server);
    ps_hooks hooks = echo_hooks(&server);
    int error;
    hooks.object_new = faulty_object_new;
    hooks.object_resize = faulty_object_resize;
    server.engine = ps__engine_new(&options, &hooks, &error);
    CHECK(server.engine);
    echo_listen(&server, AF_INET);
    CHECK_EQ(setsockopt(server.master, SOL_SOCKET, SO_SNDBUF, &little, sizeof little), 0); /* as all that it accepts */
    CHECK_EQ(ps_engine_add_master(server.engine, server.master, 0), 0);
    bool armed = fault.armed;
    if (!secure_it(PS_VERIFY_NONE)) {
        fault_arm(false);
        CHECK(secure_it(PS_VERIFY_NONE));
        fault_arm(armed);
    }
    CHECK_EQ(pthread_create(&server.thread, NULL, serve, &server), 0);
}

static void end(void)
{
    WAIT_FOR(!echo_stats(&server).pending && !echo_stats(&server).clients);
    echo_end(&server);
    ps_tickets_drop(tickets);
}

/* -- clients ----------------------------------------------------------------------------------------------------------- */

typedef struct visitor {
    int fd;
    ps_SSL *ssl;
    bool in;
} visitor;

static void leave(visitor *v, bool says_so)
{
    if (v->fd < 0)
        return;
    if (says_so)
        tls_real.SSL_shutdown(v->ssl);
    tls_real.SSL_free(v->ssl);
    tls_real.ERR_clear_error();
    CHECK_EQ(close(v->fd), 0);
    v->fd = -1;
}

static void is_lost(visitor *v)
{
    lost += v->in;
    v->in = false;
    leave(v, false);
}

/* When there is room for it: who has gone may be there still. */
static visitor come(void *session)
{
    WAIT_FOR(echo_stats(&server).clients + echo_stats(&server).pending < 2);
    visitor v = {.fd = echo_plug(&server), .in = true};
    v.ssl = tls_client(v.fd);
    if (session)
        CHECK_EQ(of_client.SSL_set_session(v.ssl, session), 1);
    if (of_client.SSL_connect(v.ssl) != 1 || !tls_hello(v.ssl))
        is_lost(&v);
    tls_real.ERR_clear_error();
    return v;
}

static void ask(visitor *v, uint32_t size)
{
    bool good = v->in && tls_send_frame(v->ssl, PS_SRM, 0, 1, pattern, size) && tls_gets(v->ssl, PS_REPLY, 1, pattern, size);
    if (!good)
        is_lost(v);
}

/* The kernel is full for a while: what is sealed waits. */
static void read_late(visitor *v)
{
    for (uint32_t i = 0; v->in && i < LATE_COUNT; i++)
        if (!tls_send_frame(v->ssl, PS_SRM, 0, i, pattern + i, LATE))
            is_lost(v);
    for (uint32_t i = 0; v->in && i < LATE_COUNT; i++)
        if (!tls_gets(v->ssl, PS_REPLY, i, pattern + i, LATE))
            is_lost(v);
}

/* It can't be let in, whatever fails. */
static void a_stranger(const char *says, size_t size)
{
    char bytes[100];
    int fd = echo_plug(&server);
    send_all(fd, says, size);
    while (recv(fd, bytes, sizeof bytes, 0) > 0)
        continue;
    CHECK_EQ(close(fd), 0);
}

static void look_around(void)
{
    uint8_t facts[1024];
    uint64_t ids[4];
    subject = true;
    int64_t count = ps_engine_ids(server.engine, ids, 4);
    for (int64_t i = 0; i < count; i++)
        CHECK(ps_engine_facts(server.engine, ids[i], facts, sizeof facts) >= 0);
    subject = false;
}

static void one_too_many(void)
{
    WAIT_FOR(echo_stats(&server).clients + echo_stats(&server).pending == 2);
    int fd = echo_plug(&server);
    ps_SSL *ssl = tls_client(fd);
    CHECK(of_client.SSL_connect(ssl) != 1);
    tls_leave(ssl, fd);
}

/* Nobody says anything: the loop sleeps. */
static void no_spinning(void)
{
    unsigned before = fault_count(CALL_epoll_wait);
    poll(NULL, 0, QUIET_MS);
    CHECK(fault_count(CALL_epoll_wait) - before < TURNS_MAX && "the loop doesn't spin");
}

static void script(void)
{
    begin();
    visitor first = come(NULL);
    ask(&first, 10);
    void *session = first.in ? of_client.SSL_get1_session(first.ssl) : NULL;
    a_stranger("\0\0\0\4\1\0\0\1\0\0\0\0PSK1", 16);
    a_stranger("\x16\x03\x01\x00\x05garbage, and more of it", 28);
    visitor second = come(session);
    look_around();
    if (first.in && second.in)
        one_too_many();
    ask(&second, LARGE);
    read_late(&first);
    leave(&second, false);
    WAIT_FOR(echo_stats(&server).clients + echo_stats(&server).pending <= first.in);
    secure_it(PS_VERIFY_REQUIRE);
    ask(&first, LARGE);
    visitor third = come(NULL);
    look_around();
    ask(&third, 0);
    if (fault.mode == EVER)
        no_spinning();
    leave(&third, true);
    leave(&first, true);
    if (session)
        of_client.SSL_SESSION_free(session);
    CHECK(fault.mode == EVER || lost <= 1);
    fault_arm(false);
    WAIT_FOR(!echo_stats(&server).pending && !echo_stats(&server).clients);
    unsigned before = lost;
    visitor control = come(NULL);
    ask(&control, LARGE);
    CHECK(lost == before && "when it is over, who comes is served");
    leave(&control, true);
    end();
}

/* -- one fault after the other ------------------------------------------------------------------------------------------ */

static int open_files(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void run_with(const char *line)
{
    char call[64], mode[8];
    memset(fault.counts, 0, sizeof fault.counts);
    memset(function_counts, 0, sizeof function_counts);
    CHECK_EQ(sscanf(line, "%63s %d %zu %u %7s", call, &fault.error, &fault.cap, &fault.n, mode), 5);
    for (fault.call = 0; fault.call < CALLS && strcmp(call, call_names[fault.call]) != 0; fault.call++)
        continue;
    for (struck_function = 0; struck_function < FUNCTIONS && strcmp(call, function_names[struck_function]) != 0;)
        struck_function++;
    CHECK(fault.call < CALLS || struck_function < FUNCTIONS);
    fault.mode = strcmp(mode, "once") == 0 ? ONCE : EVER;
    fault.struck = fault.turn = lost = 0;
    fault.fd = -1;
    fault.armed = fault.n > 0;
    alarm(30); /* a deadlock */
    script();
    fault_arm(false);
}

static void tell_places(void)
{
    for (unsigned i = 0; i < site_count; i++)
        printf("site %s %p %u %u %u\n", call_names[sites[i].call], sites[i].address, sites[i].hits, sites[i].struck,
               sites[i].first);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        if (functions[i].address)
            printf("site %s %p %u %u 1\n", function_names[i], functions[i].address, functions[i].hits, functions[i].struck);
}

int main(void)
{
    char line[120];
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i * 31 + i / 256 * 7);
    signal(SIGPIPE, SIG_IGN); /* of the clients' end, which is OpenSSL's */
    tls_begin();
    fault_install();
    replace_functions();
    while (fgets(line, sizeof line, stdin)) {
        int files = open_files();
        run_with(line);
        CHECK_EQ(open_files(), files);
        printf("ok %u %u\n", fault.struck, lost);
        fflush(stdout);
    }
    tell_places();
    tls_real.SSL_CTX_free(tls_client_context);
    return 0;
}
