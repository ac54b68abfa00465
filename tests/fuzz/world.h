/* world.h: an engine in a world made of memory: clients, kernel, clock and memory are played by one program in one thread,
 * so that the same input always gives the same run, some ten thousand of them a second.
 *
 * A driver says what the clients do, one step at a time (world.step), and when they do it: whenever the engine would go
 * to sleep. kernel.c answers the engine's system calls, handlers.c its hooks; invariants.c looks at the engine between
 * its turns and at what the clients got in the end. Whatever is wrong ends the program with a line that says what. */
#ifndef PYSOCK_WORLD_H
#define PYSOCK_WORLD_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conn/pending.h"
#include "table/table.h"

enum {
    WORLD_LINKS = 32,  /* connections in a run */
    WORLD_FDS = 64,    /* descriptors in a run: a number is never given away twice, so a stale one is seen */
    WORLD_KEPT = 256,  /* requests kept for a batch */
    WORLD_SERVICES = 3,
    WORLD_BYTES = 400000, /* what the clients of a run may send */
};

#define REQUIRE(condition) \
    do { \
        if (!(condition)) \
            world_wrong(__FILE__, __LINE__, #condition); \
    } while (0)

_Noreturn void world_wrong(const char *file, int line, const char *what);

typedef struct buffer {
    uint8_t *data;
    size_t size, room;
} buffer;

void buffer_add(buffer *to, const void *data, size_t size);

/* One connection, both ends of it. */
typedef struct link {
    int fd;          /* the server's end; -1 before the accept */
    uint64_t id;     /* the client's, once the engine has one for it */
    bool closed;     /* by the server */
    bool half_closed, gone, was_reset, told_reset; /* by the client */
    bool slow;       /* reads only when it is told to */
    bool tells_when_sent;
    bool broken;     /* a call on it has failed */
    uint32_t piece;  /* bytes that one recv gets at most; 0: as many as there are */
    buffer up, down; /* all that was sent in either direction */
    size_t taken, seen; /* how much of up the server has read, and of down the client */
    buffer given;    /* what the handlers were given: frames, header and all */
    uint8_t reason;  /* of its end: enum ps_reason */
    bool told;       /* the disconnect hook was called */
    unsigned waiting; /* requests that are answered later, and weren't so far */
    bool complete;   /* it was closed in order, with nothing left to send or to answer */
    bool cut;        /* it was closed before all was sent */
} link;

enum fd_kind { FD_FREE, FD_CLOSED, FD_MASTER, FD_DATA, FD_WAKE_READ, FD_WAKE_WRITE, FD_POLL };

typedef struct descriptor {
    enum fd_kind kind;
    unsigned link;
    bool watched;
    uint32_t events;
    uint64_t key;
} descriptor;

/* What the next call of a kind returns instead of doing its work, once. */
enum fault { FAULT_RECV, FAULT_SEND, FAULT_ACCEPT, FAULT_WATCH, FAULT_OPTION, FAULT_WAIT, FAULTS };

/* What a payload lies in, as bytes objects are for Python. */
typedef struct object {
    int users;
    uint8_t data[];
} object;

typedef struct kept {
    ps_pending pending;
    object *payload;
    uint64_t handle; /* of its record; 0: it waits as for a batch */
    bool streams;    /* it is answered in pieces, which it sends itself */
} kept;

typedef struct world {
    /* The driver's part. */
    ps_options options;
    bool tcp;
    uint32_t room;           /* of each connection for bytes on their way to the client */
    uint64_t batch_wait_ns;
    bool only_echoes;        /* the handlers do nothing else */
    bool moved;              /* the clients came from elsewhere: what they sent and got there isn't known */
    bool (*step)(void *);    /* the next thing that happens; false: nothing more */
    void *driver;
    bool pause;              /* the step wants the engine to look before the next one */

    ps_engine *engine;
    uint64_t now_ns;
    link links[WORLD_LINKS];
    unsigned link_count, accepted;
    descriptor fds[WORLD_FDS];
    unsigned fd_count;
    size_t sent_up, wake_bytes;
    unsigned order;          /* which of the ready descriptors is told first */
    int faults[FAULTS];
    unsigned fail_allocation; /* this many allocations from now; 0: none */
    bool starved;            /* an allocation has failed */
    int64_t blocks, objects;
    bool inside, listening, over, stopping, cancelled;
    unsigned let_in, gone, requests, drained;
    uint64_t progress, seen_progress;
    unsigned idle_turns;
    kept kept[WORLD_KEPT];
    unsigned kept_count;
    unsigned streams; /* that the loop asks for their pieces, and that aren't over */
    ps_stats last_stats;     /* of the engine at its end */
} world;

extern world sim;

/* kernel.c */
void kernel_begin(void);
int kernel_master(void);
const descriptor *kernel_descriptor(int fd);
int kernel_connect(void);
int kernel_move_in(void);
void kernel_send(link *from, const void *data, size_t size);
void kernel_close_masters(void);

/* handlers.c */
/* What turns a nonce into its proof, where the script says that there is an auth key. */
enum { TOY_KEY = 0x5A };

extern const ps_hooks world_hooks;
void handlers_drop_kept(void);

/* invariants.c */
void invariants_between_turns(void);
void invariants_when_quiet(void);
void invariants_at_close(link *it);
void invariants_at_the_end(const link *it);

/* world.c: one run of the world that sim was set up to be; -errno as the engine's loop returned it. */
void world_reset(void);
int world_run(void);
void world_nothing_is_left(void);
void world_stop(uint64_t grace_ns);

static inline ps_conn *conn_of(const link *it)
{
    return it->id ? ps__table_row(&sim.engine->table, it->id) : NULL;
}

#endif
