/* poll.h: a mechanism to wait with. */
#ifndef PYSOCK_BASE_POLL_H
#define PYSOCK_BASE_POLL_H

#include <stdint.h>

enum {
    PS_POLL_IN = 1,
    PS_POLL_OUT = 2,
    PS_POLL_GONE = 4,
    PS_POLL_SHARED = 8, /* others wait for it, too, and one of them is enough; it can't be changed, only removed */
};

/* Keys of what is no connection, whose key is its id: the pipe's and a guest's timer's; a listener's is its number, that of
 * what the hooks' owner watches is its descriptor above PS_WATCH_KEY, a connection whose header is awaited its slot above
 * PS_HEADER_KEY. */
enum { PS_TIMER_KEY = 0xFFFE, PS_WAKE_KEY = 0xFFFF, PS_WATCH_KEY = 0x10000, PS_HEADER_KEY = 0x40000000 };

typedef struct ps_event {
    uint64_t key;
    uint32_t ready; /* PS_POLL_... */
} ps_event;

/* A mechanism to wait with. Level-triggered: what is not dealt with is told again. */
typedef struct ps_poll_ops {
    const char *name;
    int (*open)(int *handle);
    void (*close)(int handle);
    int (*add)(int handle, int fd, uint64_t key, unsigned interest);
    int (*change)(int handle, int fd, uint64_t key, unsigned interest);
    int (*remove)(int handle, int fd); /* before close(): a duplicate of fd in a forked child would keep events coming */
    /* At most PS_EVENTS_MAX events; timeout_ns 0: don't sleep, < 0: for ever. -EINTR if a signal came. */
    int (*wait)(int handle, ps_event *events, int64_t timeout_ns);
} ps_poll_ops;

extern const ps_poll_ops ps__epoll;

#endif
