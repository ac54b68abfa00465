/* internal.h: what the files of the engine share: connections, the engine itself, hooks, polling, and the functions by
 * which one file calls another. Nothing here is visible outside the library. */
#ifndef PYSOCK_INTERNAL_H
#define PYSOCK_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>

#include "framing.h"
#include "linger.h"
#include "pysock.h"
#include "sys.h"
#include "transport.h"

/* -- bounds, each with its reason ---------------------------------------------------------------------------------- */

#ifndef PYSOCK_LARGE
#define PYSOCK_LARGE (16 * 1024) /* the fuzzers have other sizes */
#endif

enum {
    PS_READ_MAX = 64 * 1024,   /* bytes read from one client a turn: nobody waits long for a busy neighbour */
    PS_LARGE = PYSOCK_LARGE,   /* a frame above this is received straight into the object the handler gets */
    PS_LARGE_TURN = 1 << 20,   /* bytes of one large frame read a turn: it may take more, the copy is the kernel's only */
    PS_GUESS_MAX = 1 << 20,    /* the largest frame whose successor is guessed to be alike */
    PS_GUESSED_BYTES = 16 << 20, /* room for frames that are guessed and not complete, of all clients together, roughly */
    PS_OUT_ROOM = 24 * 1024,   /* replies of one client gathered for one send: a client with more in flight takes the
                                  first while the next are made */
    PS_LENT_MAX = 256 * 1024,  /* the same for those sent from objects */
    PS_BY_REFERENCE = 4 * 1024, /* a reply from this size is sent from the handler's object: an iovec more is cheaper
                                   than the copy */
    PS_PIECES_MAX = 64,        /* iovecs of one send: copied and lent replies in turn */
    PS_CHUNK = 16 * 1024,      /* small output that waits is gathered in chunks of this size */
    PS_ACCEPTS_MAX = 16,       /* accepts of one master socket a turn */
    PS_EVENTS_MAX = 512,       /* events taken from the kernel at once */
    PS_IOV_MAX = 16,           /* chunks of waiting output sent by one call */
    PS_PAUSE_ACCEPT_MS = 50,   /* after accept() ran out of descriptors or memory */
    PS_CROWD_MS = 100,         /* a client that has said nothing for so long makes way where the server is full */
    PS_PAUSE_SEND_MS = 20,     /* after the kernel had no memory for what was to be sent */
    PS_KEPT_BYTES = 64 << 20,  /* requests of one client that wait for a batch: then it is not read, as with max_in_flight */
    PS_COMMANDS_BYTES = 64 << 20, /* what other threads may have queued for a loop that is busy */
    PS_COMMAND_COST = 256,     /* of these bytes, what a command takes besides its payload, roughly */
    PS_DEAD_ROOM = 2048,       /* slots beside those of max_clients, for connections that are closed and not buried yet:
                                  a place that becomes free is given away in the same turn */
    PS_CHUNK_SLOTS = 256,      /* slots of the client table allocated together; they never move */
};

/* -- frames -------------------------------------------------------------------------------------------------------- */

/* One frame. For framings without a header kind is PS_SRM and the rest 0. */
typedef struct ps_frame {
    const uint8_t *payload;
    uint32_t size; /* of the payload */
    uint32_t request_id;
    uint16_t code;
    uint8_t kind, flags;
} ps_frame;

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
typedef struct ps_held {
    size_t size;
    uint8_t data[];
} ps_held;

/* Output the kernel did not take yet: data of our own behind the struct, or inside an object we hold. */
typedef struct ps_chunk {
    struct ps_chunk *next;
    const uint8_t *data;
    size_t size, sent, room; /* room: of our own data */
    void *object;
    uint8_t own[];
} ps_chunk;

/* -- who connects -------------------------------------------------------------------------------------------------- */

enum { PS_PEER_KEY = 16, PS_NO_CAUSE = -1, PS_NO_REASON = 0xFF };

typedef struct ps_peer {
    uint8_t key[PS_PEER_KEY];
    uint32_t count; /* of its connections; 0: a free row */
} ps_peer;

typedef struct ps_peers {
    ps_peer *rows;
    uint32_t room, used; /* room: a power of two, or 0 */
    uint64_t seed;
} ps_peers;

/* What the hook makes of a CIR where an auth key is set. */
typedef struct ps_challenge {
    uint8_t fields[128];
    size_t size;
    uint8_t expected[PS_MAC_SIZE]; /* in the PROOF */
} ps_challenge;

/* -- connections --------------------------------------------------------------------------------------------------- */

enum ps_timer_list { PS_TIMER_CIR, PS_TIMER_FRAME, PS_TIMER_OUTPUT, PS_TIMER_IDLE, PS_TIMER_LISTS };

/* A connection waits for its CIR or for the rest of a frame, never for both: the two lists share a link. */
enum ps_timer_link { PS_LINK_INPUT, PS_LINK_OUTPUT, PS_LINK_IDLE, PS_TIMER_LINKS };

typedef struct ps_timer {
    uint32_t previous, next; /* slots; PS_NOBODY at the ends */
    uint32_t start_ms;
} ps_timer;

#define PS_NOBODY UINT32_MAX

enum ps_conn_flag {
    PS_IS_DIRTY = 1 << 0,      /* on the dirty list: to be flushed or resumed at the end of the turn */
    PS_IS_HOLDING = 1 << 1,    /* the connect hook runs: output waits */
    PS_IS_SKIPPING = 1 << 2,   /* an oversized payload is thrown away as it arrives */
    PS_PAUSED_OUTPUT = 1 << 3, /* not read: it does not take its replies */
    PS_PAUSED_BATCH = 1 << 4,  /* not read: too many requests in flight */
    PS_TIMED_INPUT = 1 << 5,   /* on the list of its PS_LINK_...; which one of two for the first */
    PS_TIMED_OUTPUT = 1 << 6,
    PS_TIMED_IDLE = 1 << 7,
    PS_TIMED_CIR = 1 << 8,
    PS_TALKS_LARGE = 1 << 9,   /* its last frame was large */
    PS_IS_BROKEN = 1 << 10,    /* a request stays without an answer, so no later one gets any */
    PS_IS_SENDING = 1 << 11,   /* all that is left to do: the kernel sends what it took */
    PS_IS_SENT = 1 << 12,      /* it has */
    PS_IS_COUNTED = 1 << 13,   /* in the table of its user, or address */
    PS_IS_STARVED = 1 << 14,   /* its output waits until send_again_ns, though its socket is writable */
};

/* A slot of the client table: a connection and its data socket. An idle client costs this and nothing else. */
typedef struct ps_conn {
    uint32_t generation; /* with the slot number it makes the client id; a stale id finds another generation here */
    uint32_t slot;
    int fd;
    uint8_t state;    /* enum ps_conn_state, changed by ps__conn_event only; 0 in a free slot */
    uint8_t reason;   /* enum ps_reason, once it is ending */
    uint8_t interest; /* what the poll waits for */
    uint8_t listener; /* through which it came */
    uint16_t flags;   /* enum ps_conn_flag: the loop's own; the next two are for other threads as well */
    uint8_t attached; /* somebody wants to hear when it goes */
    uint8_t established; /* was let in once */
    uint8_t family;   /* of its socket, AF_... */
    uint8_t stash_size;
    uint16_t peer_port;
    uint8_t peer[16]; /* its IP address; of a Unix socket a ps_owner, as far as somebody wants to know */
    union {
        uint8_t stash[PS_HEADER_SIZE]; /* an incomplete header */
        uint32_t skip;                 /* with PS_IS_SKIPPING: bytes of an oversized payload still to be thrown away */
    };
    uint32_t max_reply; /* the largest payload this client takes */
    uint32_t in_flight; /* requests that wait for their batch */
    uint32_t next_dirty;
    uint32_t next; /* on the free list, or the list of the dead */
    ps_timer timers[PS_TIMER_LINKS];
    ps_part *part;
    ps_held *held;
    ps_chunk *out_head, *out_tail;
    uint64_t queued;
    uint64_t kept; /* bytes of the requests that wait for their batch */
    union {
        void *object;      /* Python's DataSocket, once a handler has asked for it */
        uint8_t *expected; /* before it is let in: the MAC that its PROOF must have */
    };
    char *name;
    uint64_t connected_at_ns, requests, bytes_in, bytes_out;
} ps_conn;

/* Who is at the other end of a Unix socket; the first 8 bytes are the key of max_clients_per_uid. */
typedef struct ps_owner {
    uint32_t uid, zero;
    uint32_t gid, pid_1; /* the process's number and 1; 0: it wasn't asked for */
} ps_owner;

_Static_assert(sizeof(ps_owner) == 16, "it lies in ps_conn.peer");
_Static_assert(sizeof(ps_conn) <= 200, "an idle client must stay cheap");

typedef struct ps_table {
    ps_conn **chunks;
    uint32_t made, most; /* slots in existence, slots allowed */
    uint32_t used;
    uint32_t free_slot;
} ps_table;

/* -- the seam to Python -------------------------------------------------------------------------------------------- */

/* What the engine asks of whoever runs it; python.c in the extension, an echo in the C tests. All members are called in
 * the loop's thread. -ECANCELED from any of them ends the loop. */
typedef struct ps_hooks {
    void *context;
    /* Before the first other call of a turn, and after the last: python.c takes the GIL and lets it go. */
    void (*enter)(void *context);
    void (*leave)(void *context);
    /* Once a turn between the two, and when a wait was interrupted: signal handlers run here. */
    int (*check)(void *context);
    /* May this client come in? 0 yes, 1 no: why is then in reason. May be NULL: everybody comes in. */
    int (*connect)(void *context, ps_conn *conn, char *reason, size_t room);
    /* One request. object holds the payload and is the hook's from now on, or is NULL and the payload must be copied. */
    int (*request)(void *context, ps_conn *conn, const ps_frame *frame, void *object);
    /* Answer what was kept back for a batch and is due (or all of it); *due_ns: when the next is due, UINT64_MAX never. */
    int (*batches)(void *context, bool all, uint64_t *due_ns);
    /* The connection is closed; told for those the options or an attach ask for. */
    int (*disconnect)(void *context, ps_conn *conn);
    /* The loop has stopped accepting. */
    int (*draining)(void *context);
    /* A cause was met, so many times since this was last called for it. */
    int (*noted)(void *context, int cause, uint64_t times);
    /* May this peer connect? 1 yes, 0 no. Asked if the options say so. */
    int (*allow)(void *context, int64_t pid, uint32_t uid, uint32_t gid);
    /* Answer a CIR that has this nonce: 0, or 1 where there is no memory; and see whether two MACs are equal: 1 yes, 0 no.
     * Called if there is a key. */
    int (*challenge)(void *context, const uint8_t *nonce, const char *name, ps_challenge *made);
    int (*prove)(void *context, const uint8_t *expected, const uint8_t *got);
    /* A request object with room for size bytes at *data; a larger one with the same bytes; NULL: no memory (the old
     * one is gone). */
    void *(*object_new)(void *context, size_t size, uint8_t **data);
    void *(*object_resize)(void *context, void *object, size_t size, uint8_t **data);
    /* One more, or one less, user of an object. */
    void (*object_hold)(void *context, void *object);
    void (*object_release)(void *context, void *object);
} ps_hooks;

/* -- waiting ------------------------------------------------------------------------------------------------------- */

enum { PS_POLL_IN = 1, PS_POLL_OUT = 2, PS_POLL_GONE = 4 };

typedef struct ps_event {
    uint64_t key;
    uint32_t ready; /* PS_POLL_... */
} ps_event;

/* A mechanism to wait with. Level-triggered: what is not dealt with is told again. */
typedef struct ps_poll_ops {
    const char *name;
    int (*open)(int *handle);
    void (*close)(int handle);
    int (*add)(int handle, int fd, uint64_t key, unsigned interest);
    int (*change)(int handle, int fd, uint64_t key, unsigned interest);
    void (*remove)(int handle, int fd); /* before close(): a duplicate of fd in a forked child would keep events coming */
    /* At most PS_EVENTS_MAX events; timeout_ns 0: don't sleep, < 0: for ever. -EINTR if a signal came. */
    int (*wait)(int handle, ps_event *events, int64_t timeout_ns);
} ps_poll_ops;

extern const ps_poll_ops ps__epoll;

/* -- the engine ---------------------------------------------------------------------------------------------------- */

enum ps_command_kind { PS_DO_PUSH, PS_DO_BROADCAST, PS_DO_DISCONNECT };

typedef struct ps_command {
    struct ps_command *next;
    uint64_t client_id;
    size_t size;
    enum ps_command_kind kind;
    uint8_t data[];
} ps_command;

/* A master socket, and what is common to all connections that come through it. */
typedef struct ps_listener {
    int fd;
    int family; /* AF_... */
    const ps_framing_facts *framing;
    const ps_transport *transport;
    bool checked;  /* who comes is held against the rule of access before a byte is read */
    bool prepared; /* its data sockets inherit the options of TCP that they need */
    bool shut;     /* somebody else has shut it down */
} ps_listener;

/* A cause, since it was last told of. */
typedef struct ps_untold {
    uint64_t told_ns, times;
} ps_untold;

struct ps_engine {
    ps_engine *next; /* on the list of all, in fork.c */
    ps_options options;
    ps_hooks hooks;
    uint8_t *welcome;
    const ps_poll_ops *poll;
    int poll_handle;
    int wake[2]; /* a pipe: other threads' commands and signals end the wait */
    ps_file wake_file; /* what both its numbers stand for, as long as the descriptors are ours: see descriptors.c */
    uint8_t state; /* enum ps_server_state */
    bool inside;  /* between hooks.enter and hooks.leave */
    bool refusing; /* what arrives now came too late */
    bool accepting;
    int fatal;    /* -errno that ends the loop */
    uint64_t inside_since_ns;
    uint64_t contended_until_ns; /* another thread wants to be inside as well */
    uint64_t now_ns;
    uint64_t look_ns;   /* when the loop has last looked at what the kernel has */
    uint32_t full_looks; /* so often in a row the kernel had more to tell of than there is room for in events */
    uint64_t held_ns[PS_TIMER_LISTS]; /* by how much the clocks of the deadlines are behind the real one */
    uint64_t accept_again_ns;  /* 0: it isn't paused */
    bool descriptor_freed;     /* which may end that pause */
    uint64_t send_again_ns; /* 0: nobody is starved */
    uint64_t tell_again_ns; /* of causes; 0: there is nothing untold */
    int reserve;        /* a descriptor to give up where there are no more, so that those who wait can be told; or -1 */
    uint64_t batch_due_ns;
    ps_linger linger;
    uint64_t frames;    /* whole frames so far */
    uint32_t guess;     /* the payload size of the last large frame: of the next one, perhaps */
    uint64_t guessed;   /* see PS_GUESSED_BYTES */
    ps_table table;
    ps_peers users, addresses;
    ps_untold untold[PS_CAUSES];
    uint32_t *ids;      /* what the options' uids and gids point to */
    struct {
        uint32_t first, last;
    } timers[PS_TIMER_LISTS];
    uint32_t dirty, dead; /* lists of slots */
    uint8_t *in, *out;
    size_t out_used, out_closed; /* bytes copied into out, and how many of them are pieces already */
    size_t out_lent;             /* bytes of the pieces that lie in objects */
    struct iovec pieces[PS_PIECES_MAX];
    void *piece_objects[PS_PIECES_MAX];
    unsigned piece_count;
    ps_conn *out_conn; /* whose replies are being gathered in out */
    ps_stats stats;
    ps_listener listeners[PS_MASTERS_MAX];
    int newcomer; /* an accepted descriptor that has no row in the table yet, else -1 */
    uint32_t listener_count;
    ps_event events[PS_EVENTS_MAX];
    pthread_t thread;
    bool running;
    /* Guards what other threads read of the table, the commands, and every descriptor that comes or goes: see fork.c. */
    pthread_mutex_t lock;
    ps_command *commands, **commands_end;
    size_t commands_size;
    bool woken;
    bool stop_wanted;
    uint64_t stop_at_ns; /* of a drain: the end of the grace */
};

/* A counter that other threads may read. */
#define PS_ADD(counter, n) __atomic_store_n(&(counter), (counter) + (n), __ATOMIC_RELAXED)
#define PS_TAKE_ONE(counter) __atomic_store_n(&(counter), (counter) - 1u, __ATOMIC_RELAXED)

static inline uint64_t ps__id(const ps_conn *conn)
{
    return (uint64_t)conn->generation << 32 | conn->slot;
}

/* For other threads, which hold the lock: it keeps the row in its place, but the loop changes states without it. */
static inline int ps__state(const ps_conn *conn)
{
    return __atomic_load_n(&conn->state, __ATOMIC_RELAXED);
}

static inline const ps_listener *ps__listener(const ps_engine *engine, const ps_conn *conn)
{
    return &engine->listeners[conn->listener];
}

static inline const ps_framing_facts *ps__framing(const ps_engine *engine, const ps_conn *conn)
{
    return ps__listener(engine, conn)->framing;
}

static inline ps_conn *ps__slot(const ps_table *table, uint32_t slot)
{
    return &table->chunks[slot / PS_CHUNK_SLOTS][slot % PS_CHUNK_SLOTS];
}

/* May input of this connection be looked at now? */
static inline bool ps__reads(const ps_engine *engine, const ps_conn *conn)
{
    if (conn->state == PS_CONN_DRAINING || conn->state == PS_CONN_CLOSED)
        return false;
    /* A drain asks for the last of the input, paused or not. */
    return !(conn->flags & (PS_PAUSED_OUTPUT | PS_PAUSED_BATCH)) || engine->state == PS_SERVER_DRAINING;
}

/* engine.c */
ps_engine *ps__engine_new(const ps_options *options, const ps_hooks *hooks, int *error);
void ps__engine_close(ps_engine *engine);
void ps__engine_free(ps_engine *engine);
int ps__engine_run(ps_engine *engine);

/* causes.c */
void ps__note(ps_engine *engine, enum ps_cause cause);
void ps__note_later(ps_engine *engine, enum ps_cause cause);
void ps__tell_rest(ps_engine *engine);
void ps__causes_clear(ps_engine *engine);

/* host.c */
int ps__enter(ps_engine *engine);
void ps__leave(ps_engine *engine);
void ps__share(ps_engine *engine);
void ps__fail(ps_engine *engine, int error);

/* wait.c */
int ps__wait(ps_engine *engine);

/* conn.c: the life of one connection */
void ps__lost(ps_engine *engine, ps_conn *conn, enum ps_reason reason);
void ps__no_memory(ps_engine *engine, ps_conn *conn);
void ps__drop_proof(ps_conn *conn);
void ps__end(ps_engine *engine, ps_conn *conn, enum ps_conn_event event, enum ps_reason reason);
void ps__settle(ps_engine *engine, ps_conn *conn);
void ps__update_interest(ps_engine *engine, ps_conn *conn);
void ps__mark_dirty(ps_engine *engine, ps_conn *conn);
void ps__bury(ps_engine *engine);
void ps__conn_leave(ps_conn *conn);

/* access.c */
/* PS_NO_CAUSE, or why it may not; what the kernel says of the peer goes into conn. */
int ps__may_connect(ps_engine *engine, ps_conn *conn, const struct sockaddr *peer);
int ps__count_peer(ps_engine *engine, ps_conn *conn);
void ps__uncount_peer(ps_engine *engine, ps_conn *conn);

/* peers.c; a key has PS_PEER_KEY bytes */
uint32_t ps__peers_count(const ps_peers *peers, const uint8_t *key);
int ps__peers_add(ps_peers *peers, const uint8_t *key);
void ps__peers_take(ps_peers *peers, const uint8_t *key);
void ps__peers_close(ps_peers *peers);

/* admit.c */
void ps__violation(ps_engine *engine, ps_conn *conn, uint32_t request_id, uint16_t refusal, const char *text);
void ps__refuse(ps_engine *engine, ps_conn *conn, uint16_t code, const char *text, enum ps_reason reason);
void ps__turn_out(ps_engine *engine, ps_conn *conn, enum ps_cause cause, const char *text, enum ps_reason reason);
int ps__let_in(ps_engine *engine, ps_conn *conn);
void ps__take_cir(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
void ps__take_proof(ps_engine *engine, ps_conn *conn, const ps_frame *frame);

/* accept.c */
void ps__open_reserve(ps_engine *engine);
void ps__close_reserve(ps_engine *engine);
void ps__accept(ps_engine *engine, uint8_t number);
void ps__shut(ps_engine *engine, uint8_t number);
void ps__stop_accepting(ps_engine *engine);
void ps__start_accepting(ps_engine *engine);

/* table.c */
int ps__table_open(ps_table *table, uint32_t most);
void ps__table_close(ps_table *table);
ps_conn *ps__table_add(ps_table *table);
void ps__table_remove(ps_table *table, ps_conn *conn);
ps_conn *ps__table_find(const ps_table *table, uint64_t id); /* of a connection that is not closed */
ps_conn *ps__table_row(const ps_table *table, uint64_t id);  /* also of one that is closed and not buried yet */

/* timers.c */
void ps__timer_start(ps_engine *engine, ps_conn *conn, enum ps_timer_list list);
void ps__timer_start_now(ps_engine *engine, ps_conn *conn, enum ps_timer_list list); /* handlers may have run */
void ps__timer_stop(ps_engine *engine, ps_conn *conn, enum ps_timer_link link);
ps_conn *ps__timer_first(const ps_engine *engine, enum ps_timer_list list);
uint32_t ps__timer_age_ms(const ps_engine *engine, const ps_conn *conn, enum ps_timer_list list); /* one that runs */
ps_conn *ps__timers_pop_late(ps_engine *engine, enum ps_timer_list *list); /* one after the other; NULL: that was all */
void ps__timers_clear(ps_engine *engine); /* nobody's runs */
void ps__timers_worked(ps_engine *engine); /* the work of a turn is done, now_ns is its end */
uint64_t ps__timers_due_ns(const ps_engine *engine); /* UINT64_MAX: none runs */

/* state.c */
extern const uint8_t ps__conn_table[PS_CONN_STATES][PS_CONN_EVENTS];
int ps__conn_event(ps_conn *conn, enum ps_conn_event event);

/* frame.c: no I/O, no allocation */
static inline uint32_t ps__get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static inline uint16_t ps__get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void ps__put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline void ps__put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

void ps__read_header(const uint8_t *data, ps_frame *frame);
void ps__write_header(uint8_t *data, uint32_t size, uint8_t kind, uint8_t flags, uint16_t code, uint32_t request_id);

typedef struct ps_field {
    const uint8_t *value;
    uint16_t size;
    uint8_t tag;
} ps_field;

/* 1 and the field at *at, which then points behind it; 0 at the end; -EBADMSG if it is cut off. */
int ps__next_field(const uint8_t **at, const uint8_t *end, ps_field *field);
size_t ps__put_field(uint8_t *to, uint8_t tag, const void *value, uint16_t size);
bool ps__is_utf8(const uint8_t *data, size_t size);

/* input.c */
void ps__readable(ps_engine *engine, ps_conn *conn);
void ps__resume(ps_engine *engine, ps_conn *conn);

/* cut.c: all of these bytes; a client that may not go on keeps the rest, one that is ending loses it */
void ps__cut(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size);
void ps__finish_part(ps_engine *engine, ps_conn *conn);
void ps__read_head(const ps_framing_facts *framing, const uint8_t *data, ps_frame *frame);

/* part.c; false: there is no memory */
bool ps__part_begin(ps_engine *engine, ps_conn *conn, const ps_frame *head, const uint8_t *data, size_t size);
bool ps__part_add(ps_engine *engine, ps_part *part, const uint8_t *data, size_t size);
bool ps__part_grow(ps_engine *engine, ps_part *part, uint32_t more);
bool ps__part_resize(ps_engine *engine, ps_part *part, uint32_t room);
void ps__part_forget_guess(ps_engine *engine, const ps_part *part);
void ps__part_free(ps_engine *engine, ps_part *part);
void ps__drop_input(ps_engine *engine, ps_conn *conn);

/* protocol.c */
enum ps_verdict { PS_TAKE, PS_SKIP, PS_BROKEN };
enum ps_verdict ps__judge(ps_engine *engine, ps_conn *conn, const ps_frame *frame);
void ps__take_frame(ps_engine *engine, ps_conn *conn, const ps_frame *frame, void *object);
void ps__cannot_serve(ps_engine *engine, ps_conn *conn, const ps_frame *frame, uint16_t code, const char *text,
                      size_t size);
/* A request that was kept for a batch is dealt with. */
void ps__kept(ps_engine *engine, ps_conn *conn, uint32_t size);
void ps__not_kept(ps_engine *engine, ps_conn *conn, uint32_t size);
void ps__over_limit(ps_engine *engine, ps_conn *conn);
void ps__too_late(ps_engine *engine, ps_conn *conn, enum ps_timer_list list);
void ps__say_goodbye(ps_engine *engine, ps_conn *conn);

/* output.c */
void ps__output_begin(ps_engine *engine, ps_conn *conn);
void ps__output_end(ps_engine *engine, ps_conn *conn);
/* One message of the framing. object: what data lies in, or NULL. */
void ps__send(ps_engine *engine, ps_conn *conn, uint8_t kind, uint16_t code, uint32_t request_id, const void *data,
              size_t size, void *object);
void ps__send_text(ps_engine *engine, ps_conn *conn, uint8_t kind, uint16_t code, uint32_t request_id, const char *text);
/* Send of what waits as much as the kernel takes. */
void ps__send_queue(ps_engine *engine, ps_conn *conn);
/* The same of a connection that is lost in the next line, unless that closed it. */
void ps__send_last(ps_engine *engine, ps_conn *conn);
/* Output made while the connect hook runs is put aside, then joined behind what was sent meanwhile. */
void ps__join_queue(ps_engine *engine, ps_conn *conn, ps_chunk *chunks);

/* queue.c */
ps_chunk *ps__copy_chunk(const void *data, size_t size); /* NULL, as from the next two: there is no memory */
ps_chunk *ps__object_chunk(ps_engine *engine, const uint8_t *data, size_t size, void *object);
ps_chunk *ps__chunk_of_piece(ps_engine *engine, unsigned i, size_t sent);
void ps__free_chunks(ps_engine *engine, ps_chunk *chunk);
void ps__append_chunk(ps_conn *conn, ps_chunk *chunk);
void ps__count_queued(ps_conn *conn, uint64_t queued);
ps_chunk *ps__take_queue(ps_conn *conn);
size_t ps__queue_vector(const ps_conn *conn, struct iovec *iov, size_t *total);
void ps__advance_queue(ps_engine *engine, ps_conn *conn, size_t sent);
void ps__close_piece(ps_engine *engine);
void ps__drop_gathered(ps_engine *engine);
void ps__gathered_clear(ps_engine *engine); /* in a forked child: it is the parent's to send */
void ps__drop_output(ps_engine *engine, ps_conn *conn);

/* push.c */
int ps__push(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size); /* 1, 0: it isn't there; -EMSGSIZE */
int64_t ps__push_to_all(ps_engine *engine, const uint8_t *data, size_t size);     /* how many it reached */
int ps__disconnect(ps_engine *engine, ps_conn *conn);                             /* 1 */

/* command.c */
void ps__run_commands(ps_engine *engine);
void ps__free_commands(ps_engine *engine);
int ps__open_wake(ps_engine *engine);
void ps__close_wake(ps_engine *engine);

/* fork.c */
int ps__watch_forks(ps_engine *engine);
void ps__unwatch_forks(ps_engine *engine);

/* descriptors.c */
int ps__accept_newcomer(ps_engine *engine, int master, struct sockaddr *peer, socklen_t *size);
void ps__close_fd(ps_engine *engine, int *fd);
void ps__leave_fd(int *fd);
bool ps__descriptors_are_ours(ps_engine *engine); /* under the lock; if they aren't, they are forgotten */
void ps__look_at_descriptors(ps_engine *engine);
bool ps__wake_is_ours(const ps_engine *engine);

/* socket.c */
int ps__family(int fd);
void ps__no_delay(int fd);
/* Find out when the peer of a TCP socket vanishes. */
void ps__watch_over(int fd, const ps_limits *limits);
int ps__tell_when_sent(int fd);
void ps__remember_peer(ps_conn *conn);
void ps__peer_credentials(const ps_conn *conn, ps_info *info);

#endif
