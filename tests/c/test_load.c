/* The load generator against the echo: each framing and mode, with system calls that fail, or do less than was asked.
 * */
#include "echo.h"
#include "pysock.h"
#include "base/sys.h"
#include "load/load.h"


#define SECOND ((uint64_t)1000000000)

static echo server;

/* -- system calls that misbehave in this thread; the server's go on as they are ----------------------------------- */

static _Thread_local bool ours;
static ps_sys_table real;
static struct {
    uint64_t seed;
    int allocations; /* so many succeed; < 0: all */
    int refusals;    /* so many connects are told to come again */
    int failure;     /* -errno of the call that the test is about */
    size_t room;     /* for what is received at once, a hundredfold for large messages; 0: as it is */
} fault;

static size_t some_of(size_t size)
{
    size_t most = 1 + random_number(&fault.seed) % 5000;
    return size < most ? size : most;
}

static bool not_now(void)
{
    return random_number(&fault.seed) % 4 == 0;
}

static ssize_t interrupted_recvfrom(int fd, void *data, size_t room, int flags)
{
    return ours && not_now() ? -EINTR : real.recvfrom(fd, data, room, flags);
}

static ssize_t short_sendto(int fd, const void *data, size_t size, int flags)
{
    bool cir = size >= PS_HEADER_SIZE && ((const uint8_t *)data)[4] == PS_CIR; /* goes out whole: see greet */
    if (ours && !cir && not_now())
        return random_number(&fault.seed) % 2 ? -EAGAIN : -EINTR;
    return real.sendto(fd, data, ours && !cir ? some_of(size) : size, flags);
}

static ssize_t short_sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct msghdr first = {.msg_iov = message->msg_iov, .msg_iovlen = 1};
    if (ours && not_now())
        return random_number(&fault.seed) % 2 ? -EAGAIN : -EINTR;
    return real.sendmsg(fd, ours ? &first : message, flags);
}

static int interrupted_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
    return ours && not_now() ? -EINTR : real.epoll_wait(epfd, events, room, timeout_ms);
}

static int reluctant_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    if (ours && fault.refusals && fault.refusals--)
        return fault.failure;
    return real.connect(fd, address, size);
}

static void *scarce_memory(size_t size)
{
    if (ours && fault.allocations >= 0 && fault.allocations-- == 0)
        return NULL;
    return real.allocate(size);
}

static int failing_socket(int domain, int type, int protocol)
{
    return ours ? fault.failure : real.socket(domain, type, protocol);
}

static int failing_ctl(int epfd, int operation, int fd, struct epoll_event *event)
{
    return ours ? fault.failure : real.epoll_ctl(epfd, operation, fd, event);
}

static ssize_t failing_recvfrom(int fd, void *data, size_t room, int flags)
{
    return ours ? fault.failure : real.recvfrom(fd, data, room, flags);
}

static int failing_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
    return ours ? fault.failure : real.epoll_wait(epfd, events, room, timeout_ms);
}

/* -- running it --------------------------------------------------------------------------------------------------- */

static const uint8_t cir[] = {0, 0, 0, 4, PS_CIR, 0, 0, 1, 0, 0, 0, 0, 'P', 'S', 'K', '1'};

static ps_load_options options(uint32_t framing)
{
    return (ps_load_options){
        .address = (const uint8_t *)&server.address, .address_size = server.address_size, .cir = cir,
        .cir_size = sizeof cir, .service = "", .framing = framing, .connections = 3, .in_flight = 5, .size = 64,
        .count = 2000, .stall_ns = PATIENCE_S * SECOND,
    };
}

static void begin(uint32_t framing, int family)
{
    const ps_options serving = echo_options(framing);
    echo_begin(&server, &serving, family);
}

static ps_load_result run(const ps_load_options *o)
{
    int error;
    ps_load_result result;
    ps_load *load = ps_load_new(o, &error);
    CHECK(load);
    if (fault.room)
        load->in_room = o->size > 1000 ? 100 * fault.room : fault.room;
    ours = true;
    while (ps_load_run(load, SECOND / 10) == 1)
        continue;
    ours = false;
    CHECK(ps_load_run(load, 0) <= 0); /* it stays over */
    ps_load_get_result(load, &result);
    ps_load_free(load);
    return result;
}

static void expect_all(const ps_load_options *o)
{
    ps_load_result result = run(o);
    CHECK_EQ(result.failure, PS_LOAD_WELL);
    CHECK_EQ(result.messages, o->count);
    CHECK_EQ(result.errors, 0);
}

/* -- tests -------------------------------------------------------------------------------------------------------- */

static void buckets_are_narrow(void)
{
    uint64_t seed = 1;
    for (int i = 0; i < 1000000; i++) {
        uint64_t ns = random_number(&seed) >> random_number(&seed) % 64;
        unsigned bucket = ps__bucket(ns);
        CHECK(bucket < PS_LOAD_BUCKETS);
        uint64_t longest = ps__bucket_longest(bucket);
        CHECK(longest >= ns && longest - ns <= ns / PS_LOAD_SUB);
        CHECK_EQ(ps__bucket(longest), bucket);
        CHECK(longest == UINT64_MAX || ps__bucket(longest + 1) == bucket + 1);
    }
}

static void the_rows_of_a_histogram(void)
{
    static ps_histogram h;
    uint64_t longest[3], counts[3];
    ps__histogram_clear(&h);
    CHECK_EQ(ps__histogram_rows(&h, longest, counts, 3), 0);
    ps__histogram_add(&h, 5, 2);
    ps__histogram_add(&h, 1000, 1);
    ps__histogram_add(&h, 1001, 3);
    ps__histogram_add(&h, 1 << 20, 1);
    CHECK_EQ(h.total, 7);
    CHECK_EQ(h.min_ns, 5);
    CHECK_EQ(h.max_ns, 1 << 20);
    CHECK_EQ(ps__histogram_rows(&h, longest, counts, 3), 3);
    CHECK(longest[0] == 5 && counts[0] == 2);
    CHECK(longest[1] == 1003 && counts[1] == 4);
    CHECK(longest[2] == (1 << 20) + (1 << 13) - 1 && counts[2] == 1);
    CHECK_EQ(ps__histogram_rows(&h, longest, counts, 1), 1);
}

/* Each framing and mode, small and large; with and without system calls that do less than they were asked. */
static void in_every_way(uint32_t framing, int family)
{
    static const uint32_t sizes[] = {1, 64, PS_LOAD_PIECE - 4, PS_LOAD_PIECE, PS_LOAD_PIECE + 1, 300000};
    begin(framing, family);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ps_load_options o = options(framing);
        o.size = sizes[i];
        o.count = sizes[i] > 1000 ? 30 : 2000;
        expect_all(&o);
        o.mode = PS_LOAD_OPEN;
        o.rate = 1e5;
        expect_all(&o);
        o.mode = PS_LOAD_CHURN;
        o.in_flight = 1;
        o.count = 20;
        expect_all(&o);
    }
    echo_end(&server);
}

static void all_framings(void)
{
    for (uint32_t framing = PS_PYSOCK; framing <= PS_RAW; framing++)
        in_every_way(framing, framing % 2 ? AF_INET : AF_UNIX);
}

static void calls_that_do_less(void)
{
    real = ps_sys;
    ps_sys.recvfrom = interrupted_recvfrom;
    ps_sys.sendto = short_sendto;
    ps_sys.sendmsg = short_sendmsg;
    ps_sys.epoll_wait = interrupted_wait;
    fault.seed = 7;
    for (uint32_t framing = PS_PYSOCK; framing <= PS_RAW; framing++) {
        fault.room = framing % 2 ? 13 : 70;
        in_every_way(framing, framing % 2 ? AF_UNIX : AF_INET);
    }
    fault.room = 0;
    ps_sys = real;
}

static void a_backlog_that_is_full(void)
{
    begin(PS_PYSOCK, AF_UNIX);
    real = ps_sys;
    ps_sys.connect = reluctant_connect;
    ps_load_options o = options(PS_PYSOCK);
    fault.failure = -EAGAIN;
    fault.refusals = 7;
    expect_all(&o);
    fault.failure = -EADDRNOTAVAIL;
    fault.refusals = 7;
    expect_all(&o);
    fault.refusals = INT32_MAX;
    o.stall_ns = SECOND / 50;
    CHECK_EQ(run(&o).failure, PS_LOAD_STALLED);
    fault.failure = -ECONNREFUSED;
    ps_load_result result = run(&o);
    CHECK_EQ(result.failure, PS_LOAD_CONNECT);
    CHECK_EQ(result.error, -ECONNREFUSED);
    ps_sys = real;
    echo_end(&server);
}

static void no_memory(void)
{
    int error = 0, worked = 0;
    begin(PS_PYSOCK, AF_UNIX);
    ps_load_options o = options(PS_PYSOCK);
    real = ps_sys;
    ps_sys.allocate = scarce_memory;
    for (int enough = 0; !worked; enough++) {
        fault.allocations = enough;
        ours = true;
        ps_load *load = ps_load_new(&o, &error);
        if (load && ps_load_run(load, UINT64_MAX) == 0)
            worked = enough;
        ps_load_result result = {.error = error};
        if (load)
            ps_load_get_result(load, &result);
        ours = false;
        CHECK_EQ(result.error, worked ? 0 : -ENOMEM);
        ps_load_free(load);
    }
    CHECK(worked > 5); /* the last of them for the CIR_ACCEPTED */
    ps_sys = real;
    echo_end(&server);
}

static void fails_with(int error)
{
    ps_load_options o = options(PS_PYSOCK);
    fault.failure = error;
    ps_load_result result = run(&o);
    CHECK(result.failure == PS_LOAD_SYSTEM || result.failure == PS_LOAD_HUNG_UP);
    CHECK_EQ(result.error, error);
    ps_sys = real;
}

static void calls_that_fail(void)
{
    begin(PS_PYSOCK, AF_UNIX);
    real = ps_sys;
    ps_sys.socket = failing_socket;
    fails_with(-EMFILE);
    ps_sys.epoll_ctl = failing_ctl;
    fails_with(-ENOSPC);
    ps_sys.recvfrom = failing_recvfrom;
    fails_with(-ECONNRESET);
    ps_sys.epoll_wait = failing_wait;
    fails_with(-EINVAL);
    echo_end(&server);
}

static void options_that_make_no_sense(void)
{
    int error;
    memset(&server.address, 0, sizeof server.address);
    server.address_size = 16;
    const ps_load_options good = options(PS_RAW);
    ps_load_options bad[] = {good, good, good, good, good, good, good, good, good};
    bad[0].address_size = 1;
    bad[1].address_size = 129;
    bad[2].framing = PS_RAW + 1;
    bad[3].connections = 0;
    bad[4].in_flight = PS_LOAD_IN_FLIGHT_MAX + 1;
    bad[5].size = 0;
    bad[6].count = 0;
    bad[7].mode = PS_LOAD_OPEN;
    bad[8].mode = PS_LOAD_CHURN; /* with more than one in flight */
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(!ps_load_new(&bad[i], &error));
        CHECK_EQ(error, -EINVAL);
    }
    ps_load *load = ps_load_new(&good, &error);
    CHECK(load);
    ps_load_free(load);
    ps_load_free(NULL);
}

static void *stop_soon(void *load)
{
    ps_load_progress progress = {0};
    while (progress.messages < 1000)
        ps_load_watch(load, &progress);
    ps_load_stop(load);
    return NULL;
}

static void watched_and_stopped_by_another_thread(void)
{
    int error;
    pthread_t thread;
    begin(PS_PYSOCK, AF_UNIX);
    ps_load_options o = options(PS_PYSOCK);
    o.count = UINT64_MAX;
    ps_load *load = ps_load_new(&o, &error);
    CHECK(load);
    CHECK_EQ(pthread_create(&thread, NULL, stop_soon, load), 0);
    CHECK_EQ(ps_load_run(load, UINT64_MAX), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    ps_load_free(load);
    echo_end(&server);
}

int main(void)
{
    RUN(buckets_are_narrow);
    RUN(the_rows_of_a_histogram);
    RUN(all_framings);
    RUN(calls_that_do_less);
    RUN(a_backlog_that_is_full);
    RUN(no_memory);
    RUN(calls_that_fail);
    RUN(options_that_make_no_sense);
    RUN(watched_and_stopped_by_another_thread);
    return 0;
}
