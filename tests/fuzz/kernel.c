/* kernel.c: the system calls of sys.h, and its clock, in memory. Takes the place of sys.c.
 *
 * What the engine may not do whatever its peers do is checked here: use a descriptor that it has closed, watch one twice,
 * spin, sleep although its stop is due. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "world.h"
#include "base/sys.h"

enum { FIRST_FD = 100, TICK_NS = 7000, SPIN = 2000 };

/* -- descriptors --------------------------------------------------------------------------------------------------- */

static descriptor *descriptor_of(int fd)
{
    REQUIRE(fd >= FIRST_FD && fd < FIRST_FD + (int)sim.fd_count);
    descriptor *it = &sim.fds[fd - FIRST_FD];
    REQUIRE(it->kind != FD_FREE && it->kind != FD_CLOSED);
    return it;
}

const descriptor *kernel_descriptor(int fd)
{
    return descriptor_of(fd);
}

static link *link_of(int fd)
{
    descriptor *it = descriptor_of(fd);
    REQUIRE(it->kind == FD_DATA);
    return &sim.links[it->link];
}

static int new_fd(enum fd_kind kind, unsigned which)
{
    if (sim.fd_count == WORLD_FDS)
        return -EMFILE;
    sim.fds[sim.fd_count] = (descriptor){.kind = kind, .link = which};
    return FIRST_FD + (int)sim.fd_count++;
}

static int take_fault(enum fault kind)
{
    int error = sim.faults[kind];
    sim.faults[kind] = 0;
    sim.progress += error != 0;
    return error;
}

static int sim_close(int fd)
{
    descriptor *it = descriptor_of(fd);
    if (it->kind == FD_DATA) {
        link *closing = &sim.links[it->link];
        invariants_at_close(closing);
        closing->closed = true;
    }
    it->kind = FD_CLOSED;
    it->watched = false;
    sim.progress++;
    return 0;
}

int kernel_master(void)
{
    sim.listening = true;
    return new_fd(FD_MASTER, 0);
}

void kernel_close_masters(void)
{
    for (unsigned i = 0; i < sim.fd_count; i++)
        if (sim.fds[i].kind == FD_MASTER) {
            REQUIRE(!sim.fds[i].watched); /* the engine has let go of it */
            sim.fds[i].kind = FD_CLOSED;
        }
    sim.listening = false;
}

/* -- the clients' side --------------------------------------------------------------------------------------------- */

int kernel_connect(void)
{
    if (!sim.listening || sim.link_count == WORLD_LINKS)
        return -1;
    link *made = &sim.links[sim.link_count];
    buffer up = made->up, down = made->down, given = made->given; /* their memory serves again */
    up.size = down.size = given.size = 0;
    *made = (link){.fd = -1, .up = up, .down = down, .given = given};
    return (int)sim.link_count++;
}

/* The descriptor of one that another process has accepted. */
int kernel_move_in(void)
{
    int which = kernel_connect();
    REQUIRE(which >= 0 && sim.accepted == (unsigned)which);
    sim.accepted++;
    return sim.links[which].fd = new_fd(FD_DATA, (unsigned)which);
}

void kernel_send(link *from, const void *data, size_t size)
{
    if (from->half_closed || from->gone || from->was_reset || from->closed)
        return;
    size_t left = WORLD_BYTES - sim.sent_up;
    size = size < left ? size : left;
    buffer_add(&from->up, data, size);
    sim.sent_up += size;
}

/* -- data sockets -------------------------------------------------------------------------------------------------- */

static int sim_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    (void)flags;
    REQUIRE(descriptor_of(fd)->kind == FD_MASTER);
    int error = take_fault(FAULT_ACCEPT);
    if (error)
        return error;
    if (sim.accepted == sim.link_count)
        return -EAGAIN;
    int made = new_fd(FD_DATA, sim.accepted);
    if (made < 0)
        return made;
    if (address) {
        struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(1024 + sim.accepted)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        memcpy(address, &peer, sizeof peer);
        *size = sizeof peer;
    }
    sim.links[sim.accepted++].fd = made;
    sim.progress++;
    return made;
}

/* Small pieces are for the beginning: later they would only take time. */
static size_t at_once(size_t wanted, size_t done)
{
    return wanted < 4000 && done > 300 ? 4000 : wanted < 32000 && done > 8000 ? 32000 : wanted;
}

static size_t room_of(const link *it)
{
    return at_once(sim.room, it->down.size);
}

static ssize_t receive(int fd, const struct iovec *iov, size_t count)
{
    link *it = link_of(fd);
    int error = take_fault(FAULT_RECV);
    it->broken |= error && error != -EAGAIN && error != -EINTR;
    if (error)
        return error;
    size_t here = it->up.size - it->taken, done = 0;
    if (it->was_reset && !it->told_reset && (sim.tcp || !here))
        return it->told_reset = true, -ECONNRESET;
    if (it->was_reset && it->told_reset)
        return 0;
    if (!here)
        return it->half_closed || it->gone ? 0 : -EAGAIN;
    size_t most = it->piece ? at_once(it->piece, it->taken) : here;
    if (most < here)
        here = most;
    for (size_t i = 0; i < count && done < here; i++) {
        size_t size = iov[i].iov_len < here - done ? iov[i].iov_len : here - done;
        memcpy(iov[i].iov_base, it->up.data + it->taken + done, size);
        done += size;
    }
    it->taken += done;
    sim.progress++;
    return (ssize_t)done;
}

static ssize_t sim_recvfrom(int fd, void *data, size_t room, int flags)
{
    (void)flags;
    return receive(fd, &(struct iovec){data, room}, 1);
}

static ssize_t sim_recvmsg(int fd, struct msghdr *message, int flags)
{
    (void)flags;
    return receive(fd, message->msg_iov, message->msg_iovlen);
}

static ssize_t transmit(int fd, const struct iovec *iov, size_t count)
{
    link *it = link_of(fd);
    int error = take_fault(FAULT_SEND);
    if (error < 0 && error != -EAGAIN && error != -EINTR && error != -ENOBUFS && error != -ENOMEM)
        it->broken = true;
    if (error < 0)
        return error;
    if (it->gone || it->was_reset)
        return it->broken = true, -EPIPE;
    size_t waiting = it->down.size - it->seen, room = room_of(it), left = waiting < room ? room - waiting : 0, done = 0;
    if (error > 0 && left > (size_t)error) /* a short write */
        left = (size_t)error;
    if (!left)
        return -EAGAIN;
    for (size_t i = 0; i < count && done < left; i++) {
        size_t size = iov[i].iov_len < left - done ? iov[i].iov_len : left - done;
        buffer_add(&it->down, iov[i].iov_base, size);
        done += size;
    }
    sim.progress++;
    return (ssize_t)done;
}

static ssize_t sim_sendto(int fd, const void *data, size_t size, int flags)
{
    (void)flags;
    return transmit(fd, &(struct iovec){(void *)(uintptr_t)data, size}, 1);
}

static ssize_t sim_sendmsg(int fd, const struct msghdr *message, int flags)
{
    (void)flags;
    return transmit(fd, message->msg_iov, message->msg_iovlen);
}

static int sim_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    descriptor_of(fd);
    REQUIRE(level == SOL_SOCKET);
    if (name == SO_DOMAIN) {
        *(int *)value = sim.tcp ? AF_INET : AF_UNIX;
        return 0;
    }
    if (name != SO_PEERCRED)
        return -ENOPROTOOPT;
    struct ucred who = {.pid = 1, .uid = 0, .gid = 0};
    REQUIRE(*size >= sizeof who);
    memcpy(value, &who, sizeof who);
    return 0;
}

static int sim_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    (void)value, (void)size;
    link *it = link_of(fd);
    REQUIRE(sim.tcp && level == IPPROTO_TCP);
    if (name == TCP_NODELAY)
        return 0;
    int error = take_fault(FAULT_OPTION);
    if (!error)
        it->tells_when_sent = true;
    return error;
}

/* -- the wakeup pipe ----------------------------------------------------------------------------------------------- */

static int sim_pipe2(int fds[2], int flags)
{
    (void)flags;
    fds[0] = new_fd(FD_WAKE_READ, 0);
    fds[1] = new_fd(FD_WAKE_WRITE, 0);
    return 0;
}

static ssize_t sim_read(int fd, void *data, size_t room)
{
    REQUIRE(descriptor_of(fd)->kind == FD_WAKE_READ);
    size_t here = sim.wake_bytes < room ? sim.wake_bytes : room;
    if (!here)
        return -EAGAIN;
    memset(data, 0, here);
    sim.wake_bytes -= here;
    sim.progress++;
    return (ssize_t)here;
}

static ssize_t sim_write(int fd, const void *data, size_t size)
{
    (void)data;
    REQUIRE(descriptor_of(fd)->kind == FD_WAKE_WRITE);
    sim.wake_bytes += size;
    return (ssize_t)size;
}

/* -- waiting ------------------------------------------------------------------------------------------------------- */

static int sim_epoll_create1(int flags)
{
    (void)flags;
    return new_fd(FD_POLL, 0);
}

static int sim_epoll_ctl(int epfd, int operation, int fd, struct epoll_event *event)
{
    REQUIRE(descriptor_of(epfd)->kind == FD_POLL);
    descriptor *it = descriptor_of(fd);
    if (operation == EPOLL_CTL_DEL) {
        if (!it->watched)
            return -ENOENT;
        it->watched = false;
        return 0;
    }
    REQUIRE(it->watched == (operation == EPOLL_CTL_MOD));
    if (it->kind == FD_DATA) {
        sim.links[it->link].id = event->data.u64; /* also where the call fails */
        int error = take_fault(FAULT_WATCH);
        if (error)
            return error;
    }
    it->watched = true;
    it->events = event->events;
    it->key = event->data.u64;
    return 0;
}

static uint32_t readiness(const descriptor *it)
{
    const link *peer = &sim.links[it->link];
    switch (it->kind) {
    case FD_MASTER:
        return sim.accepted < sim.link_count || sim.faults[FAULT_ACCEPT] ? EPOLLIN : 0;
    case FD_WAKE_READ:
        return sim.wake_bytes ? EPOLLIN : 0;
    case FD_DATA:
        break;
    default:
        return 0;
    }
    bool dead = peer->gone || peer->was_reset;
    size_t waiting = peer->down.size - peer->seen;
    bool takes = peer->tells_when_sent ? !waiting : waiting < room_of(peer);
    return (peer->up.size > peer->taken || peer->half_closed || dead ? (uint32_t)EPOLLIN : 0u) |
           (takes || dead ? (uint32_t)EPOLLOUT : 0u) | (dead ? (uint32_t)EPOLLHUP : 0u) |
           (peer->was_reset ? (uint32_t)EPOLLERR : 0u);
}

static void let_clients_read(void)
{
    for (unsigned i = 0; i < sim.link_count; i++) {
        link *it = &sim.links[i];
        if (!it->slow)
            it->seen = it->down.size;
    }
}

static int gather_events(struct epoll_event *events, int room)
{
    int count = 0;
    let_clients_read();
    for (unsigned i = 0; i < sim.fd_count && count < room; i++) {
        const descriptor *it = &sim.fds[(i + sim.order) % sim.fd_count];
        uint32_t ready = it->watched ? readiness(it) & (it->events | EPOLLHUP | EPOLLERR) : 0;
        if (ready)
            events[count++] = (struct epoll_event){.events = ready, .data.u64 = it->key};
    }
    return count;
}

/* Nothing is ready, and nothing more happens: the engine has done all it can. */
static void nothing_more(int timeout_ms)
{
    bool waits = sim.engine->batch_due_ns != UINT64_MAX || sim.engine->accept_again_ns || sim.engine->send_again_ns ||
                 sim.engine->tell_again_ns;
    if (!sim.over) {
        sim.over = true;
        memset(sim.faults, 0, sizeof sim.faults);
        sim.fail_allocation = 0;
        for (unsigned i = 0; i < sim.link_count; i++)
            sim.links[i].slow = false;
    } else if (sim.stopping || waits) {
        REQUIRE(timeout_ms > 0); /* else it never ends */
        sim.now_ns += (uint64_t)timeout_ms * 1000000u;
        sim.progress++;
    } else {
        invariants_when_quiet();
        world_stop(10000000000u);
    }
}

/* Before it sleeps, the engine learns what happens next: one step, or several that come together. */
static void something_happens(int timeout_ms)
{
    if (sim.over || !sim.step(sim.driver)) {
        nothing_more(timeout_ms);
        return;
    }
    sim.progress++;
    while (!sim.pause && sim.step(sim.driver))
        continue;
}

static void watch_for_spinning(void)
{
    sim.idle_turns = sim.progress == sim.seen_progress ? sim.idle_turns + 1 : 0;
    sim.seen_progress = sim.progress;
    REQUIRE(sim.idle_turns < SPIN);
}

static int sim_epoll_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
    REQUIRE(descriptor_of(epfd)->kind == FD_POLL);
    invariants_between_turns();
    watch_for_spinning();
    int error = take_fault(FAULT_WAIT);
    if (error)
        return error;
    uint64_t end_ns = timeout_ms < 0 ? UINT64_MAX : sim.now_ns + (uint64_t)timeout_ms * 1000000u;
    int count = gather_events(events, room);
    while (!count && timeout_ms && sim.now_ns < end_ns) {
        REQUIRE(!sim.inside); /* others want to run while it sleeps */
        something_happens(timeout_ms);
        count = gather_events(events, room);
    }
    return count;
}

/* -- what the engine has no use for here ---------------------------------------------------------------------------- */

static int unused_socket(int domain, int type, int protocol)
{
    (void)domain, (void)type, (void)protocol;
    return -ENOSYS;
}

static int unused_address(int fd, const struct sockaddr *address, socklen_t size)
{
    (void)fd, (void)address, (void)size;
    return -ENOSYS;
}

static int unused_listen(int fd, int backlog)
{
    (void)fd, (void)backlog;
    return -ENOSYS;
}

static int unused_ppoll(struct pollfd *fds, unsigned count, int64_t timeout_ns)
{
    (void)fds, (void)count, (void)timeout_ns;
    return -ENOSYS;
}

static int unused_timerfd_create(int clock, int flags)
{
    (void)clock, (void)flags;
    return -ENOSYS;
}

static int unused_timerfd_settime(int fd, int flags, const struct itimerspec *when, struct itimerspec *old)
{
    (void)fd, (void)flags, (void)when, (void)old;
    return -ENOSYS;
}

static int unused_unlink(const char *path)
{
    (void)path;
    return -ENOSYS;
}

/* -- memory -------------------------------------------------------------------------------------------------------- */

static bool starves(void)
{
    if (!sim.fail_allocation || --sim.fail_allocation)
        return false;
    return sim.starved = true;
}

static void *sim_resize(void *block, size_t size)
{
    void *made = starves() ? NULL : realloc(block, size);
    sim.blocks += made && !block;
    return made;
}

static void *sim_allocate(size_t size)
{
    return sim_resize(NULL, size);
}

void ps__free(void *block)
{
    sim.blocks -= block != NULL;
    free(block);
}

void buffer_add(buffer *to, const void *data, size_t size)
{
    if (to->size + size > to->room) {
        to->room = 2 * (to->size + size);
        to->data = realloc(to->data, to->room);
        REQUIRE(to->data);
    }
    if (size)
        memcpy(to->data + to->size, data, size);
    to->size += size;
}

/* -- time ---------------------------------------------------------------------------------------------------------- */

uint64_t ps__now_ns(void)
{
    return sim.now_ns += TICK_NS;
}

uint64_t ps__wall_ns(void)
{
    return sim.now_ns;
}

uint64_t ps__cpu_ns(void)
{
    return sim.now_ns;
}

/* Nobody closes a descriptor here but the engine. */
ps_file ps__file_of(int fd)
{
    return (ps_file){1, (uint64_t)fd + 1};
}

bool ps__is_still(int fd, const ps_file *file)
{
    (void)fd;
    (void)file;
    return true;
}

ps_sys_table ps_sys = {
    .socket = unused_socket,
    .bind = unused_address,
    .listen = unused_listen,
    .connect = unused_address,
    .accept4 = sim_accept4,
    .recvfrom = sim_recvfrom,
    .recvmsg = sim_recvmsg,
    .sendto = sim_sendto,
    .sendmsg = sim_sendmsg,
    .getsockopt = sim_getsockopt,
    .setsockopt = sim_setsockopt,
    .epoll_create1 = sim_epoll_create1,
    .epoll_ctl = sim_epoll_ctl,
    .epoll_wait = sim_epoll_wait,
    .ppoll = unused_ppoll,
    .pipe2 = sim_pipe2,
    .timerfd_create = unused_timerfd_create,
    .timerfd_settime = unused_timerfd_settime,
    .read = sim_read,
    .write = sim_write,
    .close = sim_close,
    .unlink = unused_unlink,
    .allocate = sim_allocate,
    .resize = sim_resize,
};
