/* socket.c: master and data sockets. The ps_socket_... functions are for sockets used by hand: one system call each,
 * blocking, as the classical model is taught. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>

#include "base/socket.h"
#include "base/sys.h"

/* From now on a TCP socket counts as writable when nothing waits to be sent (Linux 3.12, net/ipv4/tcp.c: tcp_poll asks
 * tcp_stream_memory_free, which compares what was not sent yet with this). */
int ps__tell_when_sent(int fd)
{
    int most = 1;
    return ps_sys.setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof most);
}

int ps_socket_open(int family)
{
    return ps_sys.socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int ps_socket_bind(int fd, const uint8_t *address, uint32_t size)
{
    const struct sockaddr *name = (const struct sockaddr *)(const void *)address;
    int on = 1;
    if (name->sa_family != AF_UNIX) { /* a restart must not wait for old connections in TIME_WAIT */
        int error = ps_sys.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (error < 0)
            return error;
    }
    return ps_sys.bind(fd, name, size);
}

int ps_socket_listen(int fd, int backlog)
{
    return ps_sys.listen(fd, backlog);
}

int ps_socket_accept(int fd)
{
    int client = ps_sys.accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (client >= 0 && ps__family(client) != AF_UNIX)
        ps__no_delay(client);
    return client;
}

int64_t ps_socket_recv(int fd, uint8_t *data, size_t room)
{
    return ps_sys.recvfrom(fd, data, room, 0);
}

int64_t ps_socket_send(int fd, const uint8_t *data, size_t size)
{
    return ps_sys.sendto(fd, data, size, MSG_NOSIGNAL);
}

int ps_socket_close(int fd)
{
    return ps_sys.close(fd);
}

int ps_socket_unlink(const char *path)
{
    return ps_sys.unlink(path);
}

int ps__family(int fd)
{
    int domain = 0;
    socklen_t size = sizeof domain;
    int error = ps_sys.getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    return error < 0 ? error : domain;
}

void ps__no_delay(int fd)
{
    int on = 1;
    ps_sys.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a reply must not wait for an ACK (Nagle) */
}

void ps__watch_over(int fd, const ps_limits *limits)
{
    const int32_t values[][3] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                                 {IPPROTO_TCP, TCP_KEEPIDLE, limits->keep_idle},
                                 {IPPROTO_TCP, TCP_KEEPINTVL, limits->keep_interval},
                                 {IPPROTO_TCP, TCP_KEEPCNT, limits->keep_count},
                                 {IPPROTO_TCP, TCP_USER_TIMEOUT, limits->user_timeout}};
    for (size_t i = 0; limits->keep_idle && i < sizeof values / sizeof values[0]; i++)
        ps_sys.setsockopt(fd, values[i][0], values[i][1], &values[i][2], sizeof values[i][2]);
}
