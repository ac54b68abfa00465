/* tls.h: what the files of the two drivers share: of `libssl`, and of `ssl`, where the host does the work (hosted.c). */
#ifndef PYSOCK_TRANSPORT_TLS_H
#define PYSOCK_TRANSPORT_TLS_H

#include <stdatomic.h>

#include "core/engine.h"
#include "transport/libssl.h"
#include "transport/transport.h"

enum {
    PS_TLS_RECORD = 16 * 1024, /* the largest plaintext of a record (RFC 8446, 5.1) */
    PS_TLS_SLICE = 64 * 1024,  /* bytes that are sealed before the kernel is asked to take them */
    /* Records read at once. Opened, and with what OpenSSL has of a record that isn't whole, they fit into PS_READ_MAX: so none
     * waits inside OpenSSL, where no poll would tell of it. */
    PS_TLS_IN = PS_READ_MAX - PS_TLS_RECORD - 1024,
    /* A record has at most 256 bytes beside its plaintext, and its header (RFC 8446, 5.2); mostly it has 22. */
    PS_TLS_OUT = PS_TLS_SLICE + 8 * (256 + 5),
    PS_TLS_QUIET = 32, /* records in a row without a byte for anybody: key updates, say */
};

/* As SSL_CTX_set_tlsext_ticket_keys() has them. */
typedef struct ps_ticket_keys {
    uint8_t name[16], mac[32], cipher[32];
} ps_ticket_keys;

/* What sessions are sealed by that go on later; of anybody who has one, and never of two threads at a time. See tickets.c. */
struct ps_tickets {
    atomic_uint users;
    bool has_before;
    uint64_t period_ns, period; /* which of them it was when it was last looked at, on the monotonic clock */
    ps_ticket_keys keys, before;
};

/* Of a listener: by what its connections are greeted. It lasts as long as one of them has it. Guarded by the engine's lock. */
typedef struct ps_security {
    ps_SSL_CTX *context;
    ps_tickets *tickets; /* or NULL: OpenSSL's */
    uint32_t users;
    uint8_t verify; /* enum ps_verify */
    uint8_t alpn_size;
    uint8_t alpn[255]; /* as RFC 7301, 3.1, has it: each name behind its length */
} ps_security;

/* Of an engine that has TLS: what all sessions share, and none needs between two calls. */
typedef struct ps_tls_room {
    ps_BIO_METHOD *method; /* NULL: none of them is libssl's */
    uint64_t asks, steps; /* ids of the first connection that would go on with its handshake, and of the one that may; or 0 */
    ps_handshake last; /* that failed */
    size_t in_at, in_used, out_used;
    uint8_t in[PS_TLS_IN], out[PS_TLS_OUT], mixed[PS_TLS_RECORD];
} ps_tls_room;

/* Sealed bytes that the kernel didn't take. */
typedef struct ps_held {
    size_t size, sent;
    uint8_t data[];
} ps_held;

/* What is known of the other end, packed: see certificate.c. */
typedef struct ps_facts {
    size_t size;
    uint8_t data[];
} ps_facts;

enum ps_tls_stage { PS_TLS_GREETS, PS_TLS_OPEN, PS_TLS_BROKEN, PS_TLS_DEAF };

/* Of a connection. */
typedef struct ps_tls_session {
    ps_SSL *ssl;  /* libssl's */
    void *object; /* or the host's, from the first byte on */
    ps_engine *engine;
    ps_conn *conn;
    ps_security *security;
    ps_held *held;
    ps_facts *facts;
    int error;         /* -errno of the socket */
    int16_t result;    /* what receive says from now on, as soon as it has nothing else: 1: not known */
    uint8_t stage;     /* enum ps_tls_stage */
    uint8_t quiet;     /* records in a row without a byte for anybody */
    bool at_end;       /* the socket's */
    bool starved;      /* OpenSSL wanted more than there was */
    bool has_finished; /* nothing follows */
    bool has_heard;    /* something came */
    bool is_plain;     /* and isn't TLS */
    bool has_more;     /* the host's has got more than was taken out of it */
} ps_tls_session;

/* tickets.c */
ps_tickets *ps__tickets_share(ps_tickets *tickets); /* one more has it */
ps_ticket_sealed ps__tickets_seal;

/* context.c. NULL: it can't be made, and *error and why say so. */
ps_security *ps__security_new(const ps_tls_options *options, int *error, char *why, size_t room);
void ps__security_drop(ps_security *security); /* under the lock */

/* bio.c */
int ps__tls_room(ps_engine *engine);
int ps__tls_method(ps_engine *engine); /* behind it */
void ps__tls_room_free(ps_engine *engine);
ssize_t ps__tls_fill(ps_tls_session *session);
/* What was sealed goes into the room; and from there to the kernel, or is held. -errno: the connection is lost. */
void ps__tls_put(ps_tls_session *session, const uint8_t *data, size_t size);
ssize_t ps__tls_flush(ps_tls_session *session);
ps_BIO *ps__tls_bio(ps_tls_session *session);

/* certificate.c */
int ps__tls_learn(ps_tls_session *session);

/* greeting.c; the first three as the members of a ps_transport */
int ps__tls_open(ps_engine *engine, ps_conn *conn);
void ps__tls_finish(ps_engine *engine, ps_conn *conn);
void ps__tls_forget(ps_engine *engine, ps_conn *conn);
ssize_t ps__tls_greet(ps_engine *engine, ps_tls_session *session);
/* Whether it is this one's turn, see ps__next_to_shake; and what receive says of one that failed. */
bool ps__tls_may_step(const ps_tls_session *session);
ssize_t ps__tls_not_greeted(ps_engine *engine, ps_tls_session *session);
ssize_t ps__tls_ignore(ps_tls_session *session); /* of one that has failed: what receive says */

/* records.c */
extern const ps_transport ps__libssl;
typedef struct ps_pieces { /* where in them it is */
    const struct iovec *iov;
    size_t count, at;
} ps_pieces;
size_t ps__copy_pieces(ps_pieces *from, uint8_t *to, size_t room);
size_t ps__room_in(const struct iovec *iov, size_t count);
/* What is held goes first: may something new be sealed? If not, *said is what send says. */
bool ps__tls_ready(ps_tls_session *session, const struct iovec *iov, size_t count, ssize_t *said);
void ps__tls_last_words(int fd, const uint8_t *data, size_t size);

/* hosted.c */
extern const ps_transport ps__hosted;

/* secure.c */
int ps__secure_hosted(ps_engine *engine, uint32_t master); /* from now on its clients speak TLS by the host's sessions */
void ps__security_close(ps_engine *engine); /* no session is left */

#endif
