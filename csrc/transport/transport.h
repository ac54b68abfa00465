/* transport.h: how bytes come from one client and go to it. Nothing else in the server touches what a client sends or gets:
 * a listener names the row by which its connections are read and written.
 *
 * A row may have a handshake of its own, before which nobody is let in and nothing is said; a session beside the connection's
 * row, see sessions.h; and bytes that it has made and the kernel hasn't taken (`holds` of the connection: it is told to go
 * on when there is room) or that it has read and not given yet (`more`: it is asked again when the turn is over). Whoever
 * sets one of the two marks the connection dirty. */
#ifndef PYSOCK_TRANSPORT_TRANSPORT_H
#define PYSOCK_TRANSPORT_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/engine.h"

/* What receive says beside -errno, of which none is so low. */
enum ps_received {
    PS_GREETED = -5000, /* its handshake is over: the client may be let in, and is asked again */
    PS_NOT_GREETED,     /* it failed, which is counted already */
    PS_CUT_SHORT,       /* nothing more comes, but nobody has said that this is the end */
    PS_GARBLED          /* what came breaks the transport's own rules */
};

/* No member waits. The first two return how many bytes they moved, or -errno; -EAGAIN: there is nothing, or no room, now. */
typedef struct ps_transport {
    /* 0: nothing more comes; or one of enum ps_received. The last piece has room for PS_READ_MAX bytes. */
    ssize_t (*receive)(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count);
    /* Of no piece at all: go on with what is held. */
    ssize_t (*send)(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count);
    /* To somebody who is turned away, without a connection: a frame that refuses, or what the transport has for its code. What
     * isn't taken at once is lost. */
    void (*last_words)(int fd, const uint8_t *data, size_t size);
    /* The next four are NULL where there is no session. One begins, for a connection that has just come: 0, or -ENOMEM. */
    int (*open)(ps_engine *engine, ps_conn *conn);
    /* All was sent: say that nothing follows. Called again it does nothing. */
    void (*finish)(ps_engine *engine, ps_conn *conn);
    /* The descriptor is closed, or another process's: free what there is. Called again it does nothing. */
    void (*forget)(ps_engine *engine, ps_conn *conn);
    /* What is known of the other end, under the lock: as many bytes as there is room for, and how many there are. */
    size_t (*facts)(const ps_engine *engine, const ps_conn *conn, uint8_t *to, size_t room);
} ps_transport;

extern const ps_transport ps__plain;

/* Whose handshake may go on now, by one step: it is to be read once more. 0: nobody's. */
uint64_t ps__next_to_shake(ps_engine *engine);

/* Throw away what came and was not read, into this room. Closing a socket that has unread bytes resets it, and the reset can
 * overtake our last words (RFC 2525, 2.17). */
void ps__discard_input(int fd, void *room, size_t size);

#endif
