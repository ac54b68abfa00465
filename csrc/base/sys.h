/* sys.h: every call the engine makes outside itself, as one table. Tests replace entries to make the n-th call fail. */
#ifndef PYSOCK_BASE_SYS_H
#define PYSOCK_BASE_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

struct itimerspec;
struct pollfd;

/* Every member returns what the system call of its name returns, or -errno. None of them touches errno. */
typedef struct ps_sys_table {
    int (*socket)(int domain, int type, int protocol);
    int (*bind)(int fd, const struct sockaddr *address, socklen_t size);
    int (*listen)(int fd, int backlog);
    int (*connect)(int fd, const struct sockaddr *address, socklen_t size);
    int (*accept4)(int fd, struct sockaddr *address, socklen_t *size, int flags);
    ssize_t (*recvfrom)(int fd, void *data, size_t room, int flags);
    ssize_t (*recvmsg)(int fd, struct msghdr *message, int flags);
    ssize_t (*sendto)(int fd, const void *data, size_t size, int flags);
    ssize_t (*sendmsg)(int fd, const struct msghdr *message, int flags);
    int (*getsockopt)(int fd, int level, int name, void *value, socklen_t *size);
    int (*setsockopt)(int fd, int level, int name, const void *value, socklen_t size);
    int (*epoll_create1)(int flags);
    int (*epoll_ctl)(int epfd, int operation, int fd, struct epoll_event *event);
    int (*epoll_wait)(int epfd, struct epoll_event *events, int room, int timeout_ms);
    int (*ppoll)(struct pollfd *fds, unsigned count, int64_t timeout_ns); /* timeout < 0: wait for ever */
    int (*pipe2)(int fds[2], int flags);
    int (*timerfd_create)(int clock, int flags);
    int (*timerfd_settime)(int fd, int flags, const struct itimerspec *when, struct itimerspec *old);
    ssize_t (*read)(int fd, void *data, size_t room);
    ssize_t (*write)(int fd, const void *data, size_t size);
    int (*shutdown)(int fd, int how);
    int (*close)(int fd);
    int (*unlink)(const char *path);
    /* NULL on failure; free takes NULL. */
    void *(*allocate)(size_t size);
    void *(*resize)(void *block, size_t size);
} ps_sys_table;

#ifdef PYSOCK_FAULTS
extern ps_sys_table ps_sys;
#else
extern const ps_sys_table ps_sys;
#endif

void ps__free(void *block);

uint64_t ps__now_ns(void);  /* CLOCK_MONOTONIC */
uint64_t ps__tick_ns(void); /* CLOCK_MONOTONIC_COARSE: a fourth of the cost, and late by some milliseconds */
uint64_t ps__wall_ns(void); /* CLOCK_REALTIME: when a client connected, as people tell time */
uint64_t ps__cpu_ns(void);  /* CLOCK_THREAD_CPUTIME_ID: what this thread has used */

/* Which open file a number stands for; inode 0: none. It isn't in the table: it fails only where there is no such number. */
typedef struct ps_file {
    uint64_t device, inode;
} ps_file;

ps_file ps__file_of(int fd);
bool ps__is_still(int fd, const ps_file *file); /* true as well where it wasn't known in the first place */

/* Sleep while the word has this value: 0 when woken, -EAGAIN if it has another, -ETIMEDOUT, -EINTR. timeout < 0: for ever.
 * Not in the table: a sleep that ends too early is no failure (futex(2)). */
int ps__futex_wait(uint32_t *word, uint32_t value, int64_t timeout_ns);
void ps__futex_wake(uint32_t *word);

bool ps__is_first_thread(void); /* of its process: the one in which Python runs signal handlers */

#endif
