/* fault.h: system calls and allocations of which one fails, and a count of all. It owns ps_sys once fault_install() was
 * called. Only threads that say `subject = true` are struck or counted: the clients' own calls go on as they are. */
#ifndef PYSOCK_FAULT_H
#define PYSOCK_FAULT_H

#include <sys/uio.h>

#include "echo.h"

/* "object": the hooks object_new and object_resize, which are allocations too. */
#define EACH_CALL(X) \
    X(socket) X(bind) X(listen) X(connect) X(accept4) X(recvfrom) X(recvmsg) X(sendto) X(sendmsg) X(getsockopt) \
    X(setsockopt) X(shutdown) X(epoll_create1) X(epoll_ctl) X(epoll_wait) X(ppoll) X(pipe2) X(timerfd_create) \
    X(timerfd_settime) X(read) X(write) X(close) X(unlink) \
    X(allocate) X(resize) X(object)

#define NUMBER(name) CALL_##name,
#define NAME(name) #name,
enum call { EACH_CALL(NUMBER) CALLS };
static const char *const call_names[CALLS] = {EACH_CALL(NAME)};

/* The n-th call fails; and from then on: none, all on the same descriptor, all. */
enum mode { ONCE, SAME, EVER };

static struct {
    pthread_mutex_t lock;
    bool armed;
    enum call call;
    enum mode mode;
    int error;    /* errno; 0: the call does less than it was asked for, at most cap bytes */
    size_t cap;
    unsigned n;
    int fd;       /* SAME: the one that was struck */
    unsigned struck, turn;
    atomic_uint eaten; /* connections, by accept() */
    unsigned counts[CALLS];
} fault = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* A place in the source that calls a wrapper. */
typedef struct site {
    enum call call;
    const void *address;
    unsigned hits, struck, first; /* first: the number of its first call among all of that kind */
} site;

enum { SITES_MAX = 512 };
static site sites[SITES_MAX];
static unsigned site_count;

static _Thread_local bool subject;
static ps_sys_table real;

static site *site_of(enum call call, const void *address)
{
    for (unsigned i = 0; i < site_count; i++)
        if (sites[i].address == address && sites[i].call == call)
            return &sites[i];
    CHECK(site_count < SITES_MAX);
    sites[site_count] = (site){.call = call, .address = address};
    return &sites[site_count++];
}

/* Such an error can't last: the kernel says EINTR once a signal, EAGAIN until it says that the socket is ready. So each
 * third call has it. */
static bool passes(int error)
{
    return error == EINTR || error == EAGAIN;
}

/* With the lock held. */
static bool is_struck(enum call call, unsigned count, int fd)
{
    if (!fault.armed || call != fault.call || count < fault.n)
        return false;
    if (fault.mode == ONCE)
        return count == fault.n;
    if (fault.mode == SAME) {
        if (count == fault.n)
            fault.fd = fd;
        if (fd < 0 || fd != fault.fd)
            return false;
    }
    return !passes(fault.error) || fault.turn++ % 3 == 0;
}

static bool strikes(enum call call, int fd, const void *from)
{
    if (!subject)
        return false;
    pthread_mutex_lock(&fault.lock);
    unsigned count = ++fault.counts[call];
    bool struck = is_struck(call, count, fd);
    site *here = site_of(call, from);
    here->first = here->first ? here->first : count;
    here->hits++;
    here->struck += struck;
    fault.struck += struck;
    if (call == CALL_close && fd == fault.fd)
        fault.fd = -1;
    pthread_mutex_unlock(&fault.lock);
    return struck;
}

static void fault_arm(bool armed)
{
    pthread_mutex_lock(&fault.lock);
    fault.armed = armed;
    pthread_mutex_unlock(&fault.lock);
}

static unsigned fault_struck(void)
{
    pthread_mutex_lock(&fault.lock);
    unsigned struck = fault.struck;
    pthread_mutex_unlock(&fault.lock);
    return struck;
}

static unsigned fault_count(enum call call)
{
    pthread_mutex_lock(&fault.lock);
    unsigned count = fault.counts[call];
    pthread_mutex_unlock(&fault.lock);
    return count;
}

/* -- the wrappers -------------------------------------------------------------------------------------------------- */

#define STRIKES(call, fd) strikes(CALL_##call, fd, __builtin_return_address(0))

#define SIMPLE(call, fd, parameters, ...) \
    static int faulty_##call parameters \
    { \
        return STRIKES(call, fd) ? -fault.error : real.call(__VA_ARGS__); \
    }

SIMPLE(socket, -1, (int domain, int type, int protocol), domain, type, protocol)
SIMPLE(bind, fd, (int fd, const struct sockaddr *address, socklen_t size), fd, address, size)
SIMPLE(listen, fd, (int fd, int backlog), fd, backlog)
SIMPLE(connect, fd, (int fd, const struct sockaddr *address, socklen_t size), fd, address, size)
SIMPLE(getsockopt, fd, (int fd, int level, int name, void *value, socklen_t *size), fd, level, name, value, size)
SIMPLE(setsockopt, fd, (int fd, int level, int name, const void *value, socklen_t size), fd, level, name, value, size)
SIMPLE(shutdown, fd, (int fd, int how), fd, how)
SIMPLE(epoll_create1, -1, (int flags), flags)
SIMPLE(epoll_ctl, fd, (int epfd, int operation, int fd, struct epoll_event *event), epfd, operation, fd, event)
SIMPLE(epoll_wait, epfd, (int epfd, struct epoll_event *events, int room, int timeout_ms), epfd, events, room,
       timeout_ms)
SIMPLE(ppoll, fds->fd, (struct pollfd *fds, unsigned count, int64_t timeout_ns), fds, count, timeout_ns)
SIMPLE(pipe2, -1, (int fds[2], int flags), fds, flags)
SIMPLE(timerfd_create, -1, (int clock, int flags), clock, flags)
SIMPLE(timerfd_settime, fd, (int fd, int flags, const struct itimerspec *when, struct itimerspec *old), fd, flags, when,
       old)
SIMPLE(unlink, -1, (const char *path), path)

/* Errors that concern one connection: the kernel has taken it from the queue by then (accept(2), "Error handling"). */
static bool eats_a_connection(int error)
{
    static const int errors[] = {ECONNABORTED, ENETDOWN, EPROTO, ENOPROTOOPT, EHOSTDOWN,
                                 ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, ETIMEDOUT};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (error == errors[i])
            return true;
    return false;
}

static int faulty_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    if (!STRIKES(accept4, fd))
        return real.accept4(fd, address, size, flags);
    if (eats_a_connection(fault.error)) {
        int eaten = real.accept4(fd, NULL, NULL, flags);
        if (eaten < 0)
            return eaten;
        real.close(eaten);
        fault.eaten++;
    }
    return -fault.error;
}

/* Linux has freed the number, whatever it says (close(2)). */
static int faulty_close(int fd)
{
    bool struck = STRIKES(close, fd);
    int result = real.close(fd);
    return struck ? -fault.error : result;
}

static size_t capped(size_t size)
{
    return size < fault.cap ? size : fault.cap;
}

#define BYTES(call, parameters, size, ...) \
    static ssize_t faulty_##call parameters \
    { \
        bool struck = STRIKES(call, fd); \
        if (struck && fault.error) \
            return -fault.error; \
        size = struck ? capped(size) : size; \
        return real.call(__VA_ARGS__); \
    }

BYTES(recvfrom, (int fd, void *data, size_t room, int flags), room, fd, data, room, flags)
BYTES(sendto, (int fd, const void *data, size_t size, int flags), size, fd, data, size, flags)
BYTES(read, (int fd, void *data, size_t room), room, fd, data, room)

/* EAGAIN: the pipe is full, so there are bytes in it. */
static ssize_t faulty_write(int fd, const void *data, size_t size)
{
    bool struck = STRIKES(write, fd);
    ssize_t result = struck && fault.error != EAGAIN ? 0 : real.write(fd, data, size);
    return struck ? -fault.error : result;
}

/* The same message, with at most so many bytes. */
static struct msghdr cut_short(const struct msghdr *message, struct iovec *iov)
{
    struct msghdr shorter = *message;
    size_t left = fault.cap, count = 0;
    for (; count < message->msg_iovlen && left; count++) {
        iov[count] = message->msg_iov[count];
        if (iov[count].iov_len > left)
            iov[count].iov_len = left;
        left -= iov[count].iov_len;
    }
    shorter.msg_iov = iov;
    shorter.msg_iovlen = count;
    return shorter;
}

#define MESSAGE(call, constness) \
    static ssize_t faulty_##call(int fd, constness struct msghdr *message, int flags) \
    { \
        struct iovec iov[PS_PIECES_MAX]; \
        if (!STRIKES(call, fd)) \
            return real.call(fd, message, flags); \
        if (fault.error) \
            return -fault.error; \
        struct msghdr shorter = cut_short(message, iov); \
        return real.call(fd, &shorter, flags); \
    }

MESSAGE(recvmsg, )
MESSAGE(sendmsg, const)

static void *faulty_allocate(size_t size)
{
    return STRIKES(allocate, 0) ? NULL : real.allocate(size);
}

static void *faulty_resize(void *block, size_t size)
{
    return STRIKES(resize, 0) ? NULL : real.resize(block, size);
}

static void *faulty_object_new(void *context, size_t size, uint8_t **data)
{
    return STRIKES(object, 0) ? NULL : echo_object_new(context, size, data);
}

static void *faulty_object_resize(void *context, void *old, size_t size, uint8_t **data)
{
    if (!STRIKES(object, 0))
        return echo_object_resize(context, old, size, data);
    echo_object_unref(context, old);
    return NULL;
}

#define INSTALL(name) ps_sys.name = faulty_##name;
#define EACH_BUT_OBJECT(X) \
    X(socket) X(bind) X(listen) X(connect) X(accept4) X(recvfrom) X(recvmsg) X(sendto) X(sendmsg) X(getsockopt) \
    X(setsockopt) X(shutdown) X(epoll_create1) X(epoll_ctl) X(epoll_wait) X(ppoll) X(pipe2) X(timerfd_create) \
    X(timerfd_settime) X(read) X(write) X(close) X(unlink) \
    X(allocate) X(resize)

static void fault_install(void)
{
    real = ps_sys;
    EACH_BUT_OBJECT(INSTALL)
}

#endif
