/* plain.c: the transport that has nothing of its own: the bytes of a stream socket as they are. */
#include "base/sys.h"
#include "transport/transport.h"

/* One piece goes by the shorter call: the kernel has no vector to copy in and to check. */
static ssize_t plain_receive(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    (void)engine;
    return count == 1 ? ps_sys.recvfrom(conn->fd, iov->iov_base, iov->iov_len, 0)
                      : ps_sys.recvmsg(conn->fd, &message, 0);
}

static ssize_t plain_send(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    (void)engine;
    return count == 1 ? ps_sys.sendto(conn->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                      : ps_sys.sendmsg(conn->fd, &message, MSG_NOSIGNAL);
}

static void plain_last_words(int fd, const uint8_t *data, size_t size)
{
    ps_sys.sendto(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

const ps_transport ps__plain = {
    .receive = plain_receive,
    .send = plain_send,
    .last_words = plain_last_words,
};

void ps__discard_input(int fd, void *room, size_t size)
{
    ps_sys.recvfrom(fd, room, size, MSG_DONTWAIT);
}
