/* host.h: what the engine asks of whoever runs it, and the gate to it. */
#ifndef PYSOCK_BASE_HOST_H
#define PYSOCK_BASE_HOST_H

#include <stdbool.h>

#include "base/wire.h"
#include "pysock.h"

struct ps_conn;

/* What the hook makes of a CIR where an auth key is set. */
typedef struct ps_challenge {
    uint8_t fields[128];
    size_t size;
    uint8_t expected[PS_MAC_SIZE]; /* in the PROOF */
} ps_challenge;

/* What the engine tells of without asking for anything, in the loop's thread: each is the callback of this name in the
 * class Callbacks of pysock/engine/contract.py, and is given so many numbers, two at most. */
#define PS_TELLS(each) each(DRAINING, "draining", 0) each(NOTED, "noted", 2) each(JOINED, "joined", 1)

#define PS_NUMBER_OF_TELL(name, text, numbers) PS_TELL_##name,
enum ps_tell { PS_TELLS(PS_NUMBER_OF_TELL) PS_TELL_COUNT };

/* What a TLS session of the host's is to do with the bytes that came, or that are to be sent. */
enum ps_tls_step { PS_TLS_SHAKE, PS_TLS_UNSEAL, PS_TLS_SEAL, PS_TLS_CLOSE };

/* What came of it, as bits. */
enum ps_tls_said {
    PS_TLS_DONE = 1,    /* the handshake is over */
    PS_TLS_MORE = 2,    /* it has got more than was taken out of it */
    PS_TLS_ENDED = 4,   /* the other end sends nothing more, and has said so */
    PS_TLS_FAILED = 8,  /* nothing comes of it any more */
    PS_TLS_STRANGE = 16 /* and what came first was no TLS */
};

typedef struct ps_tls_made {
    unsigned said;
    const uint8_t *opened, *sealed; /* for the engine; for the other end */
    size_t opened_size, sealed_size;
    void *object; /* which has them: whoever asked lets go of it, by object_unref */
} ps_tls_made;

/* What the engine asks of whoever runs it: python/server.c in the extension, an echo in the C tests. All members are
 * called in the loop's thread. -ECANCELED from any of them ends the loop. */
typedef struct ps_hooks {
    void *context;
    /* Before the first other call of a turn, and after the last: the GIL is taken, and let go. */
    void (*enter)(void *context);
    void (*leave)(void *context);
    /* Once a turn between the two, and when a wait was interrupted: signal handlers run here. */
    int (*check)(void *context);
    /* May this client come in? 0 yes, 1 no: why is then in reason. May be NULL: everybody comes in. */
    int (*connect)(void *context, struct ps_conn *conn, char *reason, size_t room);
    /* One request. object holds the payload and is the hook's from now on, or is NULL and the payload must be copied. */
    int (*request)(void *context, struct ps_conn *conn, const ps_frame *frame, void *object);
    /* Answer what was kept back for a batch and is due (or all of it); *due_ns: when the next is due, UINT64_MAX never. */
    int (*batches)(void *context, bool all, uint64_t *due_ns);
    /* A deferred request is answered by this object, which stays the caller's. */
    int (*answer)(void *context, uint64_t handle, void *answer);
    /* A piece of a stream, likewise. */
    int (*more)(void *context, uint64_t handle, void *piece);
    /* Somebody has asked for this to be called when the turn is over. */
    int (*call)(void *context, void *object);
    /* This descriptor is ready, which isn't the engine's: see PS_WATCH_KEY. */
    int (*watched)(void *context, int fd);
    /* A client answers what it was asked, by an ANSWER or ANSWER_ERROR. 1; 0: it wasn't. May be NULL: nobody asks. */
    int (*answered)(void *context, struct ps_conn *conn, const ps_frame *frame);
    /* A client says, by a TRACE, of what its next request is a part. May be NULL: nobody wants to know. */
    int (*traced)(void *context, struct ps_conn *conn, const ps_frame *frame);
    /* Nobody waits for the answer to a deferred request any more, whose object this is: 1 if its work had begun, else 0. */
    int (*ended)(void *context, void *object, enum ps_why why);
    /* Ask what this stream is made of, which is the object, for its next pieces, and send them: until then, roughly. */
    int (*pull)(void *context, struct ps_conn *conn, uint64_t handle, void *object, uint64_t until_ns);
    /* Nobody wants any more of it. conn: its client's row, or NULL if that is given to another one by now. */
    int (*close)(void *context, struct ps_conn *conn, const ps_frame *frame, void *object);
    /* How many bytes a stream may send now that isn't asked for its pieces, <= 0: none; and in all, since it began. */
    int (*flow)(void *context, void *object, int64_t left, uint64_t limit);
    /* The connection is closed; told for those the options or an attach ask for. */
    int (*disconnect)(void *context, struct ps_conn *conn);
    /* The loop has stopped accepting; a cause (first) was met, so many times (second) since the last call for it. */
    int (*tell)(void *context, enum ps_tell what, uint64_t first, uint64_t second);
    /* This turn, with so many requests, has taken as long as the options say, or ps__engine_notice. May be NULL: nobody wants
     * to know. */
    int (*held_up)(void *context, uint64_t worked_ns, uint64_t requests);
    /* May this peer connect? 1 yes, 0 no. Asked if the options say so. */
    int (*allow)(void *context, int64_t pid, uint32_t uid, uint32_t gid);
    /* Answer a CIR that has this nonce: 0, or 1 where there is no memory; and see whether two MACs are equal: 1 yes, 0 no.
     * Called if there is a key. */
    int (*challenge)(void *context, const uint8_t *nonce, const char *name, ps_challenge *made);
    int (*prove)(void *context, const uint8_t *expected, const uint8_t *got);
    /* TLS by the host, on listeners that want it so: a session begins; it makes one step, which hands out at most so many
     * bytes for the engine; it is over, at whatever time, the loop's or not. 0, or -ENOMEM: it is of no use any more. */
    int (*tls_begin)(void *context, const struct ps_conn *conn, void **session);
    int (*tls_step)(void *context, void *session, enum ps_tls_step step, const uint8_t *data, size_t size, size_t most,
                    ps_tls_made *made);
    void (*tls_end)(void *context, void *session);
    /* A request object with room for size bytes at *data; a larger one with the same bytes; NULL: no memory (the old
     * one is gone). */
    void *(*object_new)(void *context, size_t size, uint8_t **data);
    void *(*object_resize)(void *context, void *object, size_t size, uint8_t **data);
    /* One more, or one less, user of an object. */
    void (*object_ref)(void *context, void *object);
    void (*object_unref)(void *context, void *object);
} ps_hooks;

/* Returns 0, or what ended the loop: then no handler is called any more. */
int ps__enter(ps_engine *engine);
void ps__leave(ps_engine *engine);
/* Tell of this; also where something has ended the loop. */
void ps__tell(ps_engine *engine, enum ps_tell what, uint64_t first, uint64_t second);
/* At the end of a turn: let others in where the loop has been inside for long. */
void ps__share(ps_engine *engine);
/* Something ended the loop: the first of several is what it ended by. */
void ps__fail(ps_engine *engine, int error);

#endif
