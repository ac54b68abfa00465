/* System calls that fail in ways that cost more than they should, once: each was found by tests/lab/faults.c. */
#include "echo.h"
#include "base/sys.h"
#include "client/link.h"
#include "loop/engine.h"


#define SECOND ((uint64_t)1000000000)

static ps_sys_table real;
static echo server;
static atomic_int failure; /* -errno of the call that fails; 0: it works */
static atomic_int waits;
static _Thread_local bool ours;

static void begin(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.linger_ns = 0;
    real = ps_sys;
    echo_begin(&server, &options, AF_UNIX);
}

static void end(void)
{
    echo_end(&server);
    ps_sys = real;
}

static void served(int fd, uint32_t id)
{
    send_srm(fd, id, "hello", 5);
    expect_frame(fd, PS_REPLY, 0, id, "hello", 5);
}

static int join(void)
{
    int fd = echo_plug(&server);
    hello(fd, "");
    return fd;
}

static void leave(int fd)
{
    CHECK_EQ(close(fd), 0);
}

static int counting_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
    waits++;
    return real.epoll_wait(epfd, events, room, timeout_ms);
}

/* As long as nothing happens the loop sleeps, but for a timer now and then. */
static void check_rest(void)
{
    int before = waits;
    poll(NULL, 0, 50);
    CHECK(waits - before < 30);
}

/* -- accepting ----------------------------------------------------------------------------------------------------- */

static int forbidden_accept(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    return failure ? failure : real.accept4(fd, address, size, flags);
}

/* An error that is each connection's own, as a rule, and this time isn't: the connection stays in the queue. */
static void nobody_may_come_in(void)
{
    begin();
    ps_sys.accept4 = forbidden_accept;
    ps_sys.epoll_wait = counting_wait;
    int inside = join();
    failure = -EPERM;
    int outside = echo_plug(&server);
    WAIT_FOR(echo_stats(&server).causes[PS_CAUSE_ACCEPT] > 0);
    check_rest();
    served(inside, 1);
    failure = 0;
    hello(outside, "");
    leave(inside);
    leave(outside);
    end();
}

static int failing_change(int epfd, int operation, int fd, struct epoll_event *event)
{
    if (failure && fd == server.master && operation == EPOLL_CTL_MOD && event->events & EPOLLIN)
        return failure;
    return real.epoll_ctl(epfd, operation, fd, event);
}

static atomic_int accepts_to_fail;

static int full_accept(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    return accepts_to_fail-- > 0 ? -ENOBUFS : real.accept4(fd, address, size, flags);
}

/* The end of a pause fails: it is tried again, or nobody would ever come in any more. */
static void a_pause_that_can_not_end(void)
{
    begin();
    ps_sys.accept4 = full_accept;
    ps_sys.epoll_ctl = failing_change;
    accepts_to_fail = 1;
    failure = -ENOMEM;
    int fd = echo_plug(&server);
    WAIT_FOR(echo_stats(&server).causes[PS_CAUSE_ACCEPT] == 1);
    poll(NULL, 0, PS_PAUSE_ACCEPT_MS + 50);
    failure = 0;
    hello(fd, "");
    leave(fd);
    end();
}

/* -- waking the loop ----------------------------------------------------------------------------------------------- */

static atomic_int writes_to_fail;

static ssize_t failing_write(int fd, const void *data, size_t size)
{
    return writes_to_fail-- > 0 ? failure : real.write(fd, data, size);
}

/* The loop isn't told: whoever wanted something hears of it, and the next one isn't left waiting. */
static void the_loop_can_not_be_woken(void)
{
    static const uint8_t text[] = "news";
    begin();
    ps_sys.write = failing_write;
    int fd = echo_plug(&server);
    uint64_t id = hello(fd, "");
    failure = -EINTR;
    writes_to_fail = 1;
    CHECK_EQ(ps_engine_push(server.engine, id, text, 4), 1);
    expect_frame(fd, PS_PUSH, 0, 0, text, 4);
    failure = -ENOMEM;
    writes_to_fail = 1;
    CHECK_EQ(ps_engine_push(server.engine, id, text, 4), -ENOMEM);
    CHECK_EQ(ps_engine_push(server.engine, id, text, 3), 1);
    expect_frame(fd, PS_PUSH, 0, 0, text, 3); /* and not the one before */
    writes_to_fail = 1;
    CHECK_EQ(ps_engine_stop(server.engine, 0), -ENOMEM);
    leave(fd);
    end();
    failure = 0;
}

static ssize_t failing_read(int fd, void *data, size_t room)
{
    (void)fd, (void)data, (void)room;
    return -EIO;
}

/* The pipe would stay readable, and the loop never sleep again: it ends, and says why. */
static void the_pipe_is_broken(void)
{
    begin();
    ps_sys.read = failing_read;
    int fd = join();
    CHECK_EQ(ps_engine_broadcast(server.engine, (const uint8_t *)"x", 1), 1);
    uint8_t rest[64];
    while (receive(fd, rest, sizeof rest) == sizeof rest)
        continue;
    CHECK_EQ(pthread_join(server.thread, NULL), 0);
    CHECK_EQ(server.result, -EIO);
    leave(fd);
    ps__engine_free(server.engine);
    CHECK_EQ(ps_socket_close(server.master), 0);
    ps_sys = real;
}

/* -- sending ------------------------------------------------------------------------------------------------------- */

static ssize_t failing_sendto(int fd, const void *data, size_t size, int flags)
{
    return failure ? failure : real.sendto(fd, data, size, flags);
}

/* The kernel has no memory for a while, though the socket is writable: the loop must not spin, and the reply comes. */
static void no_memory_for_a_while(void)
{
    begin();
    ps_sys.sendto = failing_sendto;
    ps_sys.epoll_wait = counting_wait;
    int fd = join();
    failure = -ENOBUFS;
    send_srm(fd, 1, "hello", 5);
    WAIT_FOR(echo_stats(&server).requests == 1);
    check_rest();
    WAIT_FOR(echo_stats(&server).causes[PS_CAUSE_SEND] > 0);
    failure = 0;
    expect_frame(fd, PS_REPLY, 0, 1, "hello", 5);
    served(fd, 2);
    leave(fd);
    end();
}

/* -- the client's end ---------------------------------------------------------------------------------------------- */

static ssize_t failing_recvfrom(int fd, void *data, size_t room, int flags)
{
    return ours ? -ETIMEDOUT : real.recvfrom(fd, data, room, flags);
}

static void sink_nothing(void *context)
{
    (void)context;
}

/* The kernel has given the connection up (tcp(7)); that is no deadline of ours, after which one may go on. */
static void the_kernel_gives_up(void)
{
    ps_sink sink = {.enter = sink_nothing, .leave = sink_nothing};
    begin();
    int error, fd = join();
    ps_link *client = ps__link_new(fd, 0, 1000, &error);
    CHECK(client);
    ps_sys.recvfrom = failing_recvfrom;
    ours = true;
    CHECK_EQ(ps__link_receive(client, ps__now_ns() + SECOND, &sink), -ECONNRESET);
    CHECK_EQ(ps__link_receive(client, ps__now_ns() + SECOND, &sink), -EPIPE);
    ours = false;
    ps__link_free(client, &sink);
    end();
}

int main(void)
{
    RUN(nobody_may_come_in);
    RUN(a_pause_that_can_not_end);
    RUN(the_loop_can_not_be_woken);
    RUN(the_pipe_is_broken);
    RUN(no_memory_for_a_while);
    RUN(the_kernel_gives_up);
    return 0;
}
