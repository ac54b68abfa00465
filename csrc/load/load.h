/* load.h: what the files of the load generator share: a run, its connections, and the two tables by which one framing and
 * one mode differ from another. Of the engine's headers it takes the declarations and the system calls; it knows no
 * Python.
 *
 * Ownership: a ps_load owns its sockets, its memory and its poll; one thread runs it. Other threads set stop and read
 * the counters that ps__load_count changes, no more.
 *
 * Floors, from below: histogram.c and outcome.c, frames.c, conn.c, cir.c and order.c (the framings), modes.c, run.c. What
 * is above them they call by the tables. */
#ifndef PYSOCK_LOAD_LOAD_H
#define PYSOCK_LOAD_LOAD_H

#include <stdbool.h>

#include "base/sys.h"
#include "load/histogram.h"
#include "pysock.h"

enum {
    PS_LOAD_ROOM = 256 * 1024,    /* bytes received, or sent, by one call */
    PS_LOAD_PIECE = 8 * 1024,     /* of a message; longer ones are made of a piece again and again, which so stays
                                     in the fastest cache */
    PS_LOAD_EVENTS_MAX = 512,     /* taken from the kernel at once */
    PS_LOAD_CONNECTIONS_MAX = 1000 * 1000,
    PS_LOAD_IN_FLIGHT_MAX = 64 * 1024,
    PS_LOAD_SIZE_MAX = 256 << 20, /* of a payload */
};

/* -- connections --------------------------------------------------------------------------------------------------- */

/* Requests in flight. pysock: one slot per request, which its id names; a free slot waits in the ring of slots. The
 * other framings answer in order: one entry for all requests made at the same moment, in a ring as well. */
typedef struct ps_flight {
    uint64_t at_ns;  /* when it was sent, or was to be sent; pysock: 0 in a free slot */
    uint32_t number; /* pysock: the request id, kept when answered so that the next differs; else how many */
    uint32_t slot;   /* pysock: an entry of the ring of slots, which has nothing to do with the other members */
} ps_flight;

enum ps_load_phase { PS_LOAD_SHUT, PS_LOAD_CONNECTING, PS_LOAD_GREETING, PS_LOAD_READY };

typedef struct ps_load_conn {
    int fd;
    uint8_t phase;    /* enum ps_load_phase */
    uint8_t interest; /* EPOLLIN, EPOLLOUT: what is waited for */
    bool deaf;        /* takes nothing any more; why may still be read */
    uint8_t head_have;
    uint8_t head[PS_HEADER_SIZE]; /* pysock: of the frame that is arriving */
    uint32_t out_at;  /* bytes of the first unsent request that are sent */
    uint32_t in_at;   /* bytes of the first unread reply, or of its payload (pysock), that are here */
    uint32_t first_flight, last_flight; /* of the ring, unless pysock */
    uint64_t made, sent, done; /* requests; done: answered. made - done are in flight or wait for the kernel */
    uint64_t opened_ns;
    ps_flight *flights;
} ps_load_conn;

/* -- what differs -------------------------------------------------------------------------------------------------- */

/* How a request looks, and which one a reply answers. A member that is NULL: there is nothing to do. */
typedef struct ps_load_framing_ops {
    uint32_t head, tail; /* bytes of a request before its payload, and behind it: of a line its end */
    void (*write_head)(uint8_t *to, uint32_t size);
    void (*connected)(ps_load *load, ps_load_conn *conn); /* calls ps__load_admitted, now or later */
    void (*make)(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t at_ns);
    void (*write_ids)(ps_load *load, const ps_load_conn *conn, uint64_t count); /* of the next to be sent, into out */
    /* Bytes that came at now_ns. */
    void (*take)(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns);
} ps_load_framing_ops;

/* When requests are made. A member that is NULL: there is nothing to do. */
typedef struct ps_load_mode_ops {
    bool paced;   /* by the clock, not by the replies: its waits must not end late */
    bool reopens; /* connections are opened as long as the run takes, which begins with the first */
    void (*started)(ps_load *load); /* requests may be made from now on */
    void (*admitted)(ps_load *load, ps_load_conn *conn);
    void (*answered)(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns);
    void (*turn)(ps_load *load);            /* before each wait */
    uint64_t (*next_ns)(const ps_load *load); /* when it has something to do though nothing comes */
    bool (*is_over)(const ps_load *load);
} ps_load_mode_ops;

extern const ps_load_framing_ops ps__load_pysock, ps__load_u32, ps__load_line, ps__load_raw;
extern const ps_load_mode_ops ps__load_closed, ps__load_paced, ps__load_churn;

/* -- a run --------------------------------------------------------------------------------------------------------- */

struct ps_load {
    ps_load_options options;
    const ps_load_framing_ops *framing;
    const ps_load_mode_ops *mode;
    uint8_t address[128];
    uint8_t *cir;
    char *service;
    uint32_t frame;        /* bytes of a request */
    bool large;            /* that is more than a piece: */
    uint32_t out_frames;   /* so many, alike but for their ids, lie in out one behind the other; or one's beginning */
    uint32_t flight_mask;  /* flights of a connection, a power of two, less 1 */
    uint8_t *memory;       /* of the next two */
    uint8_t *in, *out;
    size_t in_room;        /* PS_LOAD_ROOM; less in tests */
    uint8_t good_head[8];  /* pysock: what a good reply's header begins with */
    ps_load_conn *conns;
    ps_flight *flights;
    uint32_t *shut;        /* connections to be opened, as a stack */
    uint32_t shut_count, opening, ready;
    int poll;
    bool scouted;          /* one connection was let in: the others may follow */
    bool started, finished;
    bool looked;           /* the last look for events was in vain */
    bool stop;             /* other threads set it */
    uint8_t *welcome;      /* the first CIR_ACCEPTED, as it arrives */
    ps_load_conn *teller;  /* whose text is being kept; */
    bool told;             /* the first error's is */
    uint64_t now_ns, start_ns, end_ns, slice_end_ns, retry_ns;
    uint64_t event_ns;     /* of the last event: the linger counts from it */
    uint64_t heard_ns;     /* of the last progress: the stall counts from it */
    uint64_t begun_ns, begun_cpu_ns;
    uint64_t left;         /* requests that may still be made (closed loop), cycles still to be begun (churn) */
    uint64_t made, answered; /* in all */
    double interval_ns;    /* open loop: between two requests; */
    uint64_t due, most;    /* those that are due by now, and that there will be */
    ps_load_result result;
    ps_histogram histogram;
    struct epoll_event events[PS_LOAD_EVENTS_MAX];
};

static inline bool ps__load_runs(const ps_load *load)
{
    return load->result.failure == PS_LOAD_WELL;
}

/* Of a counter that other threads may read. */
static inline void ps__load_count(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

static inline void ps__load_record(ps_load *load, uint64_t at_ns, uint64_t now_ns, uint64_t count)
{
    ps__histogram_add(&load->histogram, now_ns > at_ns ? now_ns - at_ns : 0, count);
    ps__load_count(&load->result.messages, count);
}

/* -- outcome.c ----------------------------------------------------------------------------------------------------- */

void ps__load_fail(ps_load *load, enum ps_load_failure failure, int error);
void ps__load_wrong(ps_load *load, enum ps_load_failure failure, uint64_t expected, uint64_t got);
void ps__load_sum_up(ps_load *load);

/* -- frames.c ------------------------------------------------------------------------------------------------------ */

int ps__load_prepare(ps_load *load);
/* What a request, and a good reply, has at this place and behind it: *size bytes at most. */
const uint8_t *ps__load_piece(const ps_load *load, size_t at, size_t *size);
/* Are these bytes those of a reply from this place on, and of the replies that follow? */
bool ps__load_compare(ps_load *load, size_t at, const uint8_t *data, size_t size);

/* -- conn.c -------------------------------------------------------------------------------------------------------- */

/* -EAGAIN: not now, the server's backlog is full or the ports of this machine are in use. */
int ps__load_open(ps_load *load, ps_load_conn *conn);
void ps__load_close(ps_load_conn *conn);
void ps__load_event(ps_load *load, ps_load_conn *conn, uint32_t events);
/* Requests that are to be sent at_ns; there must be room for them in flight. */
void ps__load_make(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t at_ns);
void ps__load_flush(ps_load *load, ps_load_conn *conn);
/* What the framing tells: the server takes requests; so many of them were answered. */
void ps__load_admitted(ps_load *load, ps_load_conn *conn);
void ps__load_answered(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns);

/* -- modes.c ------------------------------------------------------------------------------------------------------- */

void ps__load_open_some(ps_load *load);

#endif
