/* transport.h: how bytes come from one client and go to it. Nothing else in the server touches what a client sends or gets:
 * a listener names the row by which its connections are read and written. TLS would be a second one. */
#ifndef PYSOCK_CONN_TRANSPORT_H
#define PYSOCK_CONN_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct ps_conn;

/* No member waits. The first two return how many bytes they moved, or -errno; -EAGAIN: there is nothing, or no room, now. */
typedef struct ps_transport {
    ssize_t (*receive)(struct ps_conn *conn, struct iovec *iov, size_t count); /* 0: nothing more comes */
    ssize_t (*send)(struct ps_conn *conn, struct iovec *iov, size_t count);
    /* To somebody who is turned away, without a connection; what isn't taken at once is lost. */
    void (*last_words)(int fd, const uint8_t *data, size_t size);
} ps_transport;

extern const ps_transport ps__plain;

/* Throw away what came and was not read, into this room. Closing a socket that has unread bytes resets it, and the reset can
 * overtake our last words (RFC 2525, 2.17). */
void ps__discard_input(int fd, void *room, size_t size);

#endif
