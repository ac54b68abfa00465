/* engine.h: what an engine is: the memory of one server.
 *
 * Floors. core/ has no code, only the shapes that all share. base/ knows no connection; table/ has who is there; conn/ what
 * happens to the bytes of one connection, in and out; loop/ the turn. A file uses what stands above it in unit.c, nothing
 * else. client/ is the other end of a connection and load/ many of them: neither knows an engine.
 *
 * The turn. loop/turn.c waits, hands each event on, and ends the turn: batches that are due are answered, whoever is late is
 * told so, what became dirty is flushed, the closed are buried. A connection may end in the middle of anything: it is closed
 * at once, but its row stays until then, so whoever comes back from a call looks at the state again.
 *
 * Threads. One thread runs the loop, and all of this is its own, but for what lock guards: the table's rows coming, going
 * and being named, the commands of other threads, and the numbers of descriptors. Counters others read as they are. */
#ifndef PYSOCK_CORE_ENGINE_H
#define PYSOCK_CORE_ENGINE_H

#include <pthread.h>
#include <sys/uio.h>

#include "base/framing.h"
#include "base/host.h"
#include "base/ids.h"
#include "base/linger.h"
#include "base/peers.h"
#include "base/poll.h"
#include "base/sys.h"
#include "core/bounds.h"
#include "core/conn.h"
#include "pysock.h"

struct ps_backlog;
struct ps_command;
struct ps_deferred;
struct ps_meter;
struct ps_security;
struct ps_tls_room;
struct ps_transport;
struct ps_via_row;

typedef struct ps_table {
    ps_conn **chunks; /* behind the rows of each the tallies */
    uint32_t made, most; /* slots in existence, slots allowed */
    uint32_t used;
    uint32_t free_slot;
    uint32_t reserved; /* so many, the first ones, are given to nobody who comes */
    uint32_t first_generation; /* of slots that nobody has had */
} ps_table;

/* A master socket, and what is common to all connections that come through it. */
typedef struct ps_listener {
    int fd;
    int family; /* AF_... */
    const ps_framing_facts *framing;
    const struct ps_transport *transport;
    struct ps_security *security; /* what its transport needs to know, or NULL */
    bool checked;  /* who comes is held against the rule of access before a byte is read */
    bool prepared; /* its data sockets inherit the options of TCP that they need */
    bool shut;     /* somebody else has shut it down */
    uint8_t proxy; /* what its connections begin with: versions of a header, enum ps_proxy; 0: with none */
    uint32_t trusted_count; /* networks from which they may come, over TCP */
    ps_network *trusted;
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
    ps_file poll_file;
    uint8_t state; /* enum ps_server_state */
    bool inside;  /* between hooks.enter and hooks.leave */
    bool accepting;
    int fatal;    /* -errno that ends the loop */
    uint64_t inside_since_ns;
    uint64_t contended_until_ns; /* another thread wants to be inside as well */
    uint64_t now_ns;
    uint64_t look_ns;   /* when the loop has last looked at what the kernel has */
    uint32_t full_looks; /* so often in a row the kernel had more to tell of than there is room for in events */
    uint64_t lag_ns[PS_TIMER_LISTS]; /* by how much the clocks of the deadlines are behind the real one */
    uint64_t accept_again_ns;  /* 0: it isn't paused */
    bool descriptor_freed;     /* which may end that pause */
    uint64_t send_again_ns; /* 0: nobody is starved */
    uint64_t tell_again_ns; /* of causes; 0: there is nothing untold */
    int reserve;        /* a descriptor to give up where there are no more, so that those who wait can be told; or -1 */
    uint64_t batch_due_ns;
    ps_linger linger;
    uint64_t read_ns;   /* when what is cut now was read; kept up for clients that speak of deadlines */
    uint64_t frames;    /* whole frames so far */
    uint32_t guess;     /* the payload size of the last large frame: of the next one, perhaps */
    uint64_t guessed;   /* see PS_GUESSED_BYTES */
    ps_table table;
    ps_peers users, addresses;
    ps_ids ids_in_flight; /* of requests that may be cancelled */
    uint64_t serial;      /* of the last one */
    struct {
        struct ps_deferred *records; /* see table/deferred.c */
        uint32_t *due;               /* a heap of their slots, see table/due.c */
        uint32_t room, due_count;
        uint32_t used;
        uint32_t free, told, last_told; /* lists of slots; told: who is to be told that nobody waits, the first of them first */
        uint32_t ready, last_ready;     /* likewise of streams, whose next pieces are to be asked for */
        uint32_t held;                  /* streams that wait until their clients have taken something */
    } deferred;
    ps_untold untold[PS_CAUSES];
    uint32_t *ids;      /* what the options' uids and gids point to */
    struct {
        uint32_t first, last;
    } timers[PS_TIMER_LISTS];
    uint32_t dirty, dead; /* lists of slots */
    uint8_t *in, *out;
    size_t out_used, out_closed; /* bytes copied into out, and how many of them are pieces already */
    size_t out_lent;             /* bytes of the pieces that lie in objects */
    uint32_t out_frames;
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
    struct ps_command *commands, **commands_end;
    size_t commands_size;
    bool woken;
    bool stop_wanted;
    uint64_t stop_at_ns; /* of a drain: the end of the grace */
    bool lame; /* health checks are told so; any thread sets it, the loop reads it as it is */
    /* Of a guest. At the end, so that what a turn needs lies where it lay. */
    int timer; /* a timerfd in its own poll; else -1 */
    uint64_t timer_ns; /* when it goes off */
    uint64_t descriptors_ns; /* when it has last looked at its descriptors */
    uint64_t requests_before; /* of stats.requests, those before this turn */
    uint64_t notice_ns; /* a turn that takes as long is looked at: the hook held_up; any thread sets it */
    /* Of pushes that wait: chunks of rows, NULL where none are needed yet; and the list of who is over the soft limit. */
    struct ps_backlog **backlogs;
    struct {
        uint32_t first, last;
    } over;
    void ***sessions; /* of transports, see transport/sessions.c; chunks of rows, NULL where none are needed yet */
    struct ps_tls_room *tls; /* or NULL */
    struct ps_via_row **vias; /* see table/via.c: NULL until the first header comes */
    /* Where workers share a listener, see loop/gate.c. */
    uint64_t gate_pause_ns; /* the last one of those in a row */
    uint64_t rearmed_ns;    /* when its listeners were put into the poll anew */
    uint64_t leave_by_ns;   /* it stops, and until then lets in who has come already; else 0 */
    uint64_t gone_count;     /* of clients, since the start; and the last ones: see table/gone.c. Guarded by lock */
    struct ps_gone *gone[PS_GONE_MAX];
    struct ps_meter *meter; /* who looks from outside wants to know more: see base/meter.h; or NULL */
    uint64_t outside_ns;    /* so long the loop has waited until it was inside */
    bool frozen; /* its clients move to another process: nobody is accepted, until it is told to go on */
    uint64_t moved_in, moved_out; /* clients */
    uint64_t came[PS_CAMES], left[PS_REASONS]; /* connections by how they came; clients by why they went */
};

/* A counter that other threads may read. */
#define PS_ADD(counter, n) __atomic_store_n(&(counter), (counter) + (n), __ATOMIC_RELAXED)
#define PS_TAKE_ONE(counter) __atomic_store_n(&(counter), (counter) - 1u, __ATOMIC_RELAXED)

static inline const ps_listener *ps__listener(const ps_engine *engine, const ps_conn *conn)
{
    return &engine->listeners[conn->listener];
}

static inline const ps_framing_facts *ps__framing(const ps_engine *engine, const ps_conn *conn)
{
    return ps__listener(engine, conn)->framing;
}

#endif
