/* conn.h: what a connection is: a row of the client table, and what hangs on it. conn/life.c says how it lives. */
#ifndef PYSOCK_CORE_CONN_H
#define PYSOCK_CORE_CONN_H

#include "base/wire.h"
#include "pysock.h"

/* A frame being received. It grows with what has arrived, not with what was announced; but for those that are guessed to be
 * like the last one. */
typedef struct ps_part {
    ps_frame head;
    uint8_t *data;
    void *object; /* the request object that data lies in, or NULL: data is ours */
    uint32_t have, room;
    bool in_object; /* it is large: the handler gets it where it lies */
    bool guessed;   /* room was made for the whole frame before it came */
} ps_part;

/* Whole frames read from a client that is paused. */
typedef struct ps_unread {
    size_t size;
    uint64_t read_ns; /* when its first bytes were read */
    uint8_t data[];
} ps_unread;

/* A push as its framing has it, head and all: held once, however many clients it waits for. */
typedef struct ps_shared {
    uint32_t users; /* the loop's alone, once it is there */
    uint32_t size;
    uint8_t data[];
} ps_shared;

/* Output the kernel did not take yet: data of our own behind the struct, or inside what we hold. */
typedef struct ps_chunk {
    struct ps_chunk *next;
    const uint8_t *data;
    uint32_t size, sent, room; /* room: of our own data */
    uint32_t lost;     /* pushes before this one that were dropped: it says so, by a mark that counts as sent, not as size */
    void *object;      /* that it is inside of, or NULL */
    ps_shared *shared; /* the same, of a push */
    uint8_t own[];
} ps_chunk;

enum { PS_NO_END = -1, PS_NO_REASON = 0x7 };

enum ps_timer_list { PS_TIMER_CIR, PS_TIMER_FRAME, PS_TIMER_OUTPUT, PS_TIMER_IDLE, PS_TIMER_LISTS };

/* A connection waits for its CIR or for the rest of a frame, never for both: the two lists share a link. */
enum ps_timer_link { PS_LINK_INPUT, PS_LINK_OUTPUT, PS_LINK_IDLE, PS_TIMER_LINKS };

typedef struct ps_timer {
    uint32_t previous, next; /* slots; PS_NO_SLOT at the ends */
    uint32_t start_ms;
} ps_timer;

#define PS_NO_SLOT UINT32_MAX

/* What is needed to answer a request later. */
typedef struct ps_pending {
    uint64_t client_id;
    ps_frame frame;  /* payload: for who lets it wait, and keeps its bytes */
    uint64_t serial; /* its value in engine->ids_in_flight: the client may cancel it; or 0 */
} ps_pending;

enum ps_conn_flag {
    PS_IS_DIRTY = 1 << 0,      /* on the dirty list: to be flushed or resumed at the end of the turn */
    PS_OUTPUT_WAITS = 1 << 1,  /* the connect hook runs; or with the next but some: it is held, see moving/hold.c */
    PS_IS_SKIPPING = 1 << 2,   /* an oversized payload is thrown away as it arrives */
    PS_PAUSED_OUTPUT = 1 << 3, /* not read: it does not take its replies */
    PS_PAUSED_PENDING = 1 << 4, /* not read: too many of its requests have no answer yet */
    PS_TIMED_INPUT = 1 << 5,   /* on the list of its PS_LINK_...; which one of two for the first */
    PS_TIMED_OUTPUT = 1 << 6,
    PS_TIMED_IDLE = 1 << 7,
    PS_TIMED_CIR = 1 << 8,
    PS_TALKS_LARGE = 1 << 9,   /* its last frame was large */
    PS_GAVE_UP = 1 << 10,      /* a request stays without an answer, so no later one gets any */
    PS_IS_SENDING = 1 << 11,   /* all that is left to do: the kernel sends what it took */
    PS_IS_SENT = 1 << 12,      /* it has */
    PS_IS_MOVING = 1 << 13,    /* not read: it moves to another process, or is about to */
    PS_IS_STARVED = 1 << 14,   /* its output waits until send_again_ns, though its socket is writable */
    PS_REFUSES = 1 << 15,      /* the server stops: what arrives now came too late, and is told so */
};

/* The last: it has come from another process, and was never woken. */
enum { PS_ATTACHED = 1, PS_PACKED = 2, PS_ASLEEP = 4 };

/* A slot of the client table: a connection and its data socket. An idle client costs this and nothing else. */
typedef struct ps_conn {
    uint32_t generation; /* with the slot number it makes the client id; a stale id finds another generation here */
    uint32_t slot;
    int fd;
    uint8_t state;    /* enum ps_conn_state, changed by ps__conn_event only; 0 in a free slot */
    uint8_t reason : 3;   /* enum ps_reason, once it is ending */
    uint8_t unsettled : 1; /* the server stops, and something is to be answered still: when it is, that is said */
    uint8_t interest : 2; /* what the poll waits for */
    uint8_t holds : 1;    /* its transport has bytes for the kernel, which was full */
    uint8_t more : 1;     /* its transport has something for us that no poll will tell of */
    uint8_t listener; /* through which it came */
    uint8_t features; /* enum ps_feature: those that both ends speak */
    uint16_t flags;   /* enum ps_conn_flag: the loop's own; the next two are for other threads as well */
    uint8_t attached; /* bits, set under the lock: somebody wants to hear when it goes; its row was given away */
    uint8_t was_let_in; /* once; it may be ending */
    uint8_t family : 4; /* of its socket, AF_... */
    uint8_t origin : 4; /* likewise of what peer is: the same, unless a proxy has said for whom it connects; 0: nothing */
    uint8_t : 0; /* else the loop would write those two with these, which other threads read under the lock */
    uint8_t stash_size : 4;
    uint8_t counted : 1; /* in the table of its user, or address */
    uint8_t awaits_header : 1; /* of a proxy: it is in the poll by a key of its own */
    uint16_t peer_port;
    uint8_t peer[16]; /* its IP address, or the one that a proxy has said; of a Unix socket a ps_owner, as far as somebody wants to know */
    union {
        uint8_t stash[PS_HEADER_SIZE]; /* an incomplete header */
        uint32_t skip;                 /* with PS_IS_SKIPPING: bytes of an oversized payload still to be thrown away */
    };
    uint32_t max_reply; /* the largest payload this client takes */
    uint32_t in_flight; /* requests that have no answer yet, see pending.c */
    uint32_t next_dirty;
    union {
        uint32_t next;     /* on the free list, or the list of the dead */
        uint32_t deferred; /* of one that is neither: the first of its deferred requests */
    };
    ps_timer timers[PS_TIMER_LINKS];
    ps_part *part;
    ps_unread *unread;
    ps_chunk *out_head, *out_tail;
    uint64_t queued;
    uint32_t in_flight_bytes; /* at most PS_PENDING_BYTES, and one request more */
    uint32_t stream_window;   /* the first credit of a stream, where both ends speak of them */
    union {
        void *object;      /* Python's DataSocket, once a handler has asked for it */
        uint8_t *expected; /* before it is let in: the MAC that its PROOF must have */
    };
    char *name; /* and behind it, each with its NUL, its software; or NULL: it said neither */
    uint64_t connected_at_ns, requests, bytes_in, bytes_out;
} ps_conn;

/* What is counted of a connection for those who look at the directory only. It lies beside its row, so that no message needs
 * more of that. */
typedef struct ps_tally {
    uint64_t frames_out;
    uint64_t heard_ns;        /* when bytes of it were last read, on the monotonic clock */
    uint32_t frames_in;       /* beside its requests */
    uint32_t gone;            /* once it is closed: its number among those that went; 0: it isn't remembered */
} ps_tally;

/* Who is at the other end of a Unix socket; the first 8 bytes are the key of max_clients_per_uid. */
typedef struct ps_owner {
    uint32_t uid, zero;
    uint32_t gid, pid_1; /* the process's number and 1; 0: it wasn't asked for */
} ps_owner;

_Static_assert(sizeof(ps_owner) == 16, "it lies in ps_conn.peer");
_Static_assert(sizeof(ps_conn) <= 200, "an idle client must stay cheap");

/* Other threads attach. */
static inline bool ps__is_attached(const ps_conn *conn)
{
    return __atomic_load_n(&conn->attached, __ATOMIC_RELAXED) & PS_ATTACHED;
}

/* What is sent to it would be lost: its row has been read, and may be another process's by now. */
static inline bool ps__is_packed(const ps_conn *conn)
{
    return __atomic_load_n(&conn->attached, __ATOMIC_RELAXED) & PS_PACKED;
}

static inline bool ps__is_held(const ps_conn *conn)
{
    return conn->flags & PS_IS_MOVING && conn->flags & PS_OUTPUT_WAITS;
}

/* Generation, number of the loop (8 bits, 0), slot (PS_SLOT_BITS). */
static inline uint64_t ps__id(const ps_conn *conn)
{
    return (uint64_t)conn->generation << 32 | conn->slot;
}

/* For other threads, which hold the lock: it keeps the row in its place, but the loop changes states without it. */
static inline int ps__state(const ps_conn *conn)
{
    return __atomic_load_n(&conn->state, __ATOMIC_RELAXED);
}

#endif
