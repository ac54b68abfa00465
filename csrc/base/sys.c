/* sys.c: every system call, as a replaceable table of wrappers that return -errno.
 *
 * The calls are made without libc's wrappers: what the kernel returns is already -errno, so nothing above this file ever
 * reads errno, and a thread-cancellation point is not passed for each message. On processors without such a path the
 * generic syscall() is used. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/sys.h"

#if defined(__x86_64__) && !defined(__ILP32__)

/* The System V ABI: number in rax, arguments in rdi rsi rdx r10 r8 r9; the kernel spoils rcx and r11. */
static inline long call6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

static inline long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
}

#else

static inline long call6(long number, long a, long b, long c, long d, long e, long f)
{
    long result = syscall(number, a, b, c, d, e, f);
    return result == -1 ? -errno : result;
}

#endif

#define CALL(number, a, b, c, d, e, f) \
    call6(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static int sys_socket(int domain, int type, int protocol)
{
    return (int)CALL(SYS_socket, domain, type, protocol, 0, 0, 0);
}

static int sys_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    return (int)CALL(SYS_bind, fd, address, size, 0, 0, 0);
}

static int sys_listen(int fd, int backlog)
{
    return (int)CALL(SYS_listen, fd, backlog, 0, 0, 0, 0);
}

static int sys_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    return (int)CALL(SYS_connect, fd, address, size, 0, 0, 0);
}

static int sys_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    return (int)CALL(SYS_accept4, fd, address, size, flags, 0, 0);
}

static ssize_t sys_recvfrom(int fd, void *data, size_t room, int flags)
{
    return CALL(SYS_recvfrom, fd, data, room, flags, 0, 0);
}

static ssize_t sys_recvmsg(int fd, struct msghdr *message, int flags)
{
    return CALL(SYS_recvmsg, fd, message, flags, 0, 0, 0);
}

static ssize_t sys_sendto(int fd, const void *data, size_t size, int flags)
{
    return CALL(SYS_sendto, fd, data, size, flags, 0, 0);
}

static ssize_t sys_sendmsg(int fd, const struct msghdr *message, int flags)
{
    return CALL(SYS_sendmsg, fd, message, flags, 0, 0, 0);
}

static int sys_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    return (int)CALL(SYS_getsockopt, fd, level, name, value, size, 0);
}

static int sys_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    return (int)CALL(SYS_setsockopt, fd, level, name, value, size, 0);
}

static int sys_epoll_create1(int flags)
{
    return (int)CALL(SYS_epoll_create1, flags, 0, 0, 0, 0, 0);
}

static int sys_epoll_ctl(int epfd, int operation, int fd, struct epoll_event *event)
{
    return (int)CALL(SYS_epoll_ctl, epfd, operation, fd, event, 0, 0);
}

static int sys_epoll_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
#ifdef SYS_epoll_wait
    return (int)CALL(SYS_epoll_wait, epfd, events, room, timeout_ms, 0, 0);
#else
    return (int)CALL(SYS_epoll_pwait, epfd, events, room, timeout_ms, 0, _NSIG / 8);
#endif
}

static int sys_ppoll(struct pollfd *fds, unsigned count, int64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    return (int)CALL(SYS_ppoll, fds, count, timeout_ns < 0 ? NULL : &timeout, 0, 0, 0);
}

static int sys_pipe2(int fds[2], int flags)
{
    return (int)CALL(SYS_pipe2, fds, flags, 0, 0, 0, 0);
}

static int sys_timerfd_create(int clock, int flags)
{
    return (int)CALL(SYS_timerfd_create, clock, flags, 0, 0, 0, 0);
}

static int sys_timerfd_settime(int fd, int flags, const struct itimerspec *when, struct itimerspec *old)
{
    return (int)CALL(SYS_timerfd_settime, fd, flags, when, old, 0, 0);
}

static ssize_t sys_read(int fd, void *data, size_t room)
{
    return CALL(SYS_read, fd, data, room, 0, 0, 0);
}

static ssize_t sys_write(int fd, const void *data, size_t size)
{
    return CALL(SYS_write, fd, data, size, 0, 0, 0);
}

static int sys_shutdown(int fd, int how)
{
    return (int)CALL(SYS_shutdown, fd, how, 0, 0, 0, 0);
}

static int sys_close(int fd)
{
    return (int)CALL(SYS_close, fd, 0, 0, 0, 0, 0);
}

static int sys_unlink(const char *path)
{
#ifdef SYS_unlink
    return (int)CALL(SYS_unlink, path, 0, 0, 0, 0, 0);
#else
    return (int)CALL(SYS_unlinkat, -100 /* AT_FDCWD */, path, 0, 0, 0, 0);
#endif
}

#ifndef PYSOCK_FAULTS
const
#endif
ps_sys_table ps_sys = {
    .socket = sys_socket,
    .bind = sys_bind,
    .listen = sys_listen,
    .connect = sys_connect,
    .accept4 = sys_accept4,
    .recvfrom = sys_recvfrom,
    .recvmsg = sys_recvmsg,
    .sendto = sys_sendto,
    .sendmsg = sys_sendmsg,
    .getsockopt = sys_getsockopt,
    .setsockopt = sys_setsockopt,
    .epoll_create1 = sys_epoll_create1,
    .epoll_ctl = sys_epoll_ctl,
    .epoll_wait = sys_epoll_wait,
    .ppoll = sys_ppoll,
    .pipe2 = sys_pipe2,
    .timerfd_create = sys_timerfd_create,
    .timerfd_settime = sys_timerfd_settime,
    .read = sys_read,
    .write = sys_write,
    .shutdown = sys_shutdown,
    .close = sys_close,
    .unlink = sys_unlink,
    .allocate = malloc,
    .resize = realloc,
};

void ps__free(void *block)
{
    free(block);
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now); /* in the vDSO: no system call */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t ps__now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t ps__tick_ns(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    return read_clock(CLOCK_MONOTONIC_COARSE);
#else
    return ps__now_ns();
#endif
}

uint64_t ps__wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

uint64_t ps__cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

/* By libc: struct stat isn't everywhere what the kernel takes it for. */
ps_file ps__file_of(int fd)
{
    struct stat status = {.st_ino = 0};
    int before = errno, result = fd < 0 ? -1 : fstat(fd, &status);
    errno = before;
    return result < 0 ? (ps_file){0, 0} : (ps_file){(uint64_t)status.st_dev, (uint64_t)status.st_ino};
}

bool ps__is_still(int fd, const ps_file *file)
{
    ps_file now = file->inode ? ps__file_of(fd) : *file;
    return now.device == file->device && now.inode == file->inode;
}

bool ps__is_first_thread(void)
{
    return CALL(SYS_gettid, 0, 0, 0, 0, 0, 0) == CALL(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

int ps__futex_wait(uint32_t *word, uint32_t value, int64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    return (int)CALL(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ns < 0 ? NULL : &timeout, NULL, 0);
}

void ps__futex_wake(uint32_t *word)
{
    CALL(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
