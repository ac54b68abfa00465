/* poll_epoll.c: waiting, by epoll. Level-triggered: a short read or write needs no second call to see EAGAIN, and what a
 * turn left unread is told again. */
#include <errno.h>

#include "base/poll.h"
#include "base/sys.h"
#include "core/bounds.h"

static uint32_t to_epoll(unsigned interest)
{
    return (interest & PS_POLL_IN ? EPOLLIN : 0u) | (interest & PS_POLL_OUT ? EPOLLOUT : 0u) |
           (interest & PS_POLL_SHARED ? EPOLLEXCLUSIVE : 0u);
}

static uint32_t from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? PS_POLL_IN : 0u) | (events & EPOLLOUT ? PS_POLL_OUT : 0u) |
           (events & (EPOLLHUP | EPOLLERR) ? PS_POLL_GONE : 0u);
}

static int control(int handle, int operation, int fd, uint64_t key, unsigned interest)
{
    struct epoll_event event = {.events = to_epoll(interest), .data.u64 = key};
    return ps_sys.epoll_ctl(handle, operation, fd, &event);
}

static int epoll_open(int *handle)
{
    *handle = ps_sys.epoll_create1(EPOLL_CLOEXEC);
    return *handle < 0 ? *handle : 0;
}

static void epoll_close(int handle)
{
    ps_sys.close(handle);
}

static int epoll_add(int handle, int fd, uint64_t key, unsigned interest)
{
    return control(handle, EPOLL_CTL_ADD, fd, key, interest);
}

static int epoll_change(int handle, int fd, uint64_t key, unsigned interest)
{
    return control(handle, EPOLL_CTL_MOD, fd, key, interest);
}

static int epoll_remove(int handle, int fd)
{
    return control(handle, EPOLL_CTL_DEL, fd, 0, 0);
}

static int in_milliseconds(int64_t timeout_ns)
{
    if (timeout_ns < 0)
        return -1;
    int64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0); /* never early: the loop would spin until it is due */
    return ms > 1 << 30 ? 1 << 30 : (int)ms;
}

static int epoll_take(int handle, ps_event *events, int64_t timeout_ns)
{
    struct epoll_event ready[PS_EVENTS_MAX];
    int count = ps_sys.epoll_wait(handle, ready, PS_EVENTS_MAX, in_milliseconds(timeout_ns));
    for (int i = 0; i < count; i++)
        events[i] = (ps_event){.key = ready[i].data.u64, .ready = from_epoll(ready[i].events)};
    return count;
}

const ps_poll_ops ps__epoll = {
    .name = "epoll",
    .open = epoll_open,
    .close = epoll_close,
    .add = epoll_add,
    .change = epoll_change,
    .remove = epoll_remove,
    .wait = epoll_take,
};
