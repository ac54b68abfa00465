/* floor.c: the bare epoll echo server that every other server is held against: what the system calls alone cost. It sends
 * back whatever bytes have come, so it serves u32 frames without looking at them.
 *
 * Level-triggered, one recv and one send for each client that is ready, no memory per client unless a send was cut short:
 * then the client isn't read until its rest is gone. Deliberately not here: frames, limits, timeouts. It sleeps
 * at once where nothing has come, or polls as long as --poll-us says before: two rows, so that what polling alone brings is
 * seen. With --broadcast 1 what a client sends is sent to all, in a loop, one send for each; what one doesn't take isn't kept
 * for it. --work-us is spent once for each recv, which is a message where one is in flight. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>

#include "listen.h"

enum { ROOM = 256 * 1024, EVENTS = 512 };

typedef struct rest {
    char *data; /* NULL: nothing waits */
    size_t size, at;
} rest;

static int poller, master;
static rest *rests; /* by descriptor */
static char buffer[ROOM];
static uint64_t work_us, poll_us, broadcast;
static int *clients; /* with --broadcast: who is there */
static size_t client_count;

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, operation, fd, &event))
        die("epoll_ctl");
}

static void forget(int fd)
{
    for (size_t i = 0; i < client_count; i++)
        if (clients[i] == fd)
            clients[i] = clients[--client_count];
}

static void hang_up(int fd)
{
    if (broadcast)
        forget(fd);
    free(rests[fd].data);
    rests[fd] = (rest){0};
    close(fd);
}

static void accept_one(void)
{
    const int on = 1;
    int fd = accept4(master, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on a Unix socket, which needs none */
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    if (broadcast)
        clients[client_count++] = fd;
}

/* How much was sent, or -1. */
static ssize_t send_some(int fd, const char *data, size_t size)
{
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    return sent < 0 && errno == EAGAIN ? 0 : sent;
}

static void keep(int fd, const char *data, size_t size)
{
    rests[fd] = (rest){.data = malloc(size), .size = size};
    if (!rests[fd].data)
        die("malloc");
    memcpy(rests[fd].data, data, size);
    watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void send_to_all(size_t size)
{
    for (size_t i = 0; i < client_count; i++)
        sendto(clients[i], buffer, size, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
}

static void serve(int fd)
{
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    work(work_us);
    if (broadcast && got > 0) {
        send_to_all((size_t)got);
        return;
    }
    ssize_t sent = got > 0 ? send_some(fd, buffer, (size_t)got) : -1;
    if (sent < 0)
        hang_up(fd);
    else if (sent < got)
        keep(fd, buffer + sent, (size_t)(got - sent));
}

static void flush(int fd)
{
    rest *r = &rests[fd];
    ssize_t sent = send_some(fd, r->data + r->at, r->size - r->at);
    if (sent < 0) {
        hang_up(fd);
        return;
    }
    r->at += (size_t)sent;
    if (r->at < r->size)
        return;
    free(r->data);
    *r = (rest){0};
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static int wait_for_events(struct epoll_event *events)
{
    uint64_t end = poll_us ? nanoseconds() + poll_us * 1000 : 0;
    int count = poll_us ? epoll_wait(poller, events, EVENTS, 0) : 0;
    while (count == 0 && end && nanoseconds() < end)
        count = epoll_wait(poller, events, EVENTS, 0);
    return count ? count : epoll_wait(poller, events, EVENTS, -1);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    work_us = read_option(argc, argv, "--work-us");
    poll_us = read_option(argc, argv, "--poll-us");
    broadcast = read_option(argc, argv, "--broadcast");
    master = listen_at(argv[1]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    rests = calloc(descriptors(), sizeof *rests);
    clients = calloc(descriptors(), sizeof *clients);
    if (poller < 0 || !rests || !clients)
        die("floor");
    watch(EPOLL_CTL_ADD, master, EPOLLIN);
    for (;;) {
        int count = wait_for_events(events);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == master)
                accept_one();
            else if (rests[fd].data)
                flush(fd);
            else
                serve(fd);
        }
    }
}
