/* load.h: what the files of the load generator share. Of the engine's files it uses what works without an engine: system
 * calls, frames and fields, clocks, histograms. It knows no Python.
 *
 * Ownership: a ps_load owns its sockets, its memory and its poll; one thread runs it. Other threads set stop and read
 * the counters that PS_ADD changes, no more. */
#ifndef PYSOCK_LOAD_H
#define PYSOCK_LOAD_H

#include "internal.h"

enum {
    PS_LOAD_ROOM = 256 * 1024,    /* bytes received, or sent, by one call */
    PS_LOAD_PIECE = 8 * 1024,     /* of a message; longer ones are made of a piece again and again, which so stays
                                     in the fastest cache */
    PS_LOAD_OPENING_MAX = 256,    /* connections that wait to be let in at once: a quarter of what our server allows */
    PS_LOAD_WELCOME_MAX = 1 << 20, /* bytes of a CIR_ACCEPTED */
    PS_LOAD_CONNECTIONS_MAX = 1000 * 1000,
    PS_LOAD_IN_FLIGHT_MAX = 64 * 1024,
    PS_LOAD_SIZE_MAX = 256 << 20, /* of a payload */
};

/* -- histogram.c --------------------------------------------------------------------------------------------------- */

/* Latencies in ns, log-linear as an HDR histogram: each power of two in 128 buckets, so none is wider than 1/128 of
 * what it holds. */
enum {
    PS_LOAD_SUB_BITS = 7,
    PS_LOAD_SUB = 1 << PS_LOAD_SUB_BITS,
    PS_LOAD_BUCKETS = (65 - PS_LOAD_SUB_BITS) * PS_LOAD_SUB,
};

_Static_assert(PS_LOAD_BUCKETS == PS_LOAD_ROWS_MAX, "who reads the histogram makes room for all of it");

typedef struct ps_histogram {
    uint64_t total, min_ns, max_ns, sum_ns;
    uint64_t counts[PS_LOAD_BUCKETS];
} ps_histogram;

static inline unsigned ps__bucket(uint64_t ns)
{
    if (ns < 2 * PS_LOAD_SUB)
        return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - PS_LOAD_SUB_BITS;
    return shift * PS_LOAD_SUB + (unsigned)(ns >> shift);
}

static inline void ps__histogram_add(ps_histogram *h, uint64_t ns, uint64_t count)
{
    h->counts[ps__bucket(ns)] += count;
    h->total += count;
    h->sum_ns += ns * count;
    if (ns > h->max_ns)
        h->max_ns = ns;
    if (ns < h->min_ns)
        h->min_ns = ns;
}

void ps__histogram_clear(ps_histogram *h);
uint64_t ps__bucket_longest(unsigned bucket); /* the longest latency that falls into it */
size_t ps__histogram_rows(const ps_histogram *h, uint64_t *longest_ns, uint64_t *counts, size_t room);

/* -- connections --------------------------------------------------------------------------------------------------- */

/* Requests in flight. native: one slot per request, which its id names; a free slot waits in the ring of slots. The
 * other framings answer in order: one entry for all requests made at the same moment, in a ring as well. */
typedef struct ps_flight {
    uint64_t at_ns;  /* when it was sent, or was to be sent; native: 0 in a free slot */
    uint32_t number; /* native: the request id, kept when answered so that the next differs; else how many */
    uint32_t slot;   /* native: an entry of the ring of slots, which has nothing to do with the other members */
} ps_flight;

enum ps_load_phase { PS_LOAD_SHUT, PS_LOAD_CONNECTING, PS_LOAD_GREETING, PS_LOAD_READY };

typedef struct ps_load_conn {
    int fd;
    uint8_t phase;    /* enum ps_load_phase */
    uint8_t interest; /* EPOLLIN, EPOLLOUT: what is waited for */
    bool deaf;        /* takes nothing any more; why may still be read */
    uint8_t head_have;
    uint8_t head[PS_HEADER_SIZE]; /* native: of the frame that is arriving */
    uint32_t out_at;  /* bytes of the first unsent request that are sent */
    uint32_t in_at;   /* bytes of the first unread reply, or of its payload (native), that are here */
    uint32_t first_flight, last_flight; /* of the ring, unless native */
    uint64_t made, sent, done; /* requests; done: answered. made - done are in flight or wait for the kernel */
    uint64_t opened_ns;
    ps_flight *flights;
} ps_load_conn;

struct ps_load {
    ps_load_options options;
    uint8_t address[128];
    uint8_t *cir;
    char *service;
    uint32_t service_number;
    uint32_t head, frame;  /* bytes of a request's header, and of all of it */
    bool large;            /* a request is more than a piece: */
    uint32_t out_frames;   /* so many, alike but for their ids, lie in out one behind the other; or one's beginning */
    uint32_t flight_mask;  /* flights of a connection, a power of two, less 1 */
    uint8_t *memory;       /* of the next two */
    uint8_t *in, *out;
    size_t in_room;        /* PS_LOAD_ROOM; less in tests */
    uint8_t good_head[8];  /* native: what a good reply's header begins with */
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
    struct epoll_event events[PS_EVENTS_MAX];
};

/* load.c */
void ps__load_fail(ps_load *load, enum ps_load_failure failure, int error);
void ps__load_wrong(ps_load *load, enum ps_load_failure failure, uint64_t expected, uint64_t got);

static inline bool ps__load_runs(const ps_load *load)
{
    return load->result.failure == PS_LOAD_WELL;
}

/* load_modes.c */
void ps__load_open_some(ps_load *load);
void ps__load_start(ps_load *load); /* requests may be made from now on */
void ps__load_make_all_due(ps_load *load);
void ps__load_admitted(ps_load *load, ps_load_conn *conn);
void ps__load_answered(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t now_ns);

/* Open loop: when this request is to be sent. */
static inline uint64_t ps__load_due_ns(const ps_load *load, uint64_t number)
{
    return load->start_ns + (uint64_t)((double)number * load->interval_ns);
}

/* load_conn.c */
/* -EAGAIN: not now, the server's backlog is full or the ports of this machine are in use. */
int ps__load_open(ps_load *load, ps_load_conn *conn);
void ps__load_close(ps_load_conn *conn);
void ps__load_event(ps_load *load, ps_load_conn *conn, uint32_t events);
void ps__load_make(ps_load *load, ps_load_conn *conn, uint64_t count, uint64_t at_ns);
void ps__load_flush(ps_load *load, ps_load_conn *conn);

static inline void ps__load_record(ps_load *load, uint64_t at_ns, uint64_t now_ns, uint64_t count)
{
    ps__histogram_add(&load->histogram, now_ns > at_ns ? now_ns - at_ns : 0, count);
    PS_ADD(load->result.messages, count);
}

/* load_frames.c */
int ps__load_prepare(ps_load *load);
void ps__load_set_service(ps_load *load, uint16_t number);
/* What a request, and a good reply, has at this place and behind it: *size bytes at most. */
const uint8_t *ps__load_piece(const ps_load *load, size_t at, size_t *size);
/* Are these bytes those of a reply from this place on, and of the replies that follow? */
bool ps__load_compare(ps_load *load, size_t at, const uint8_t *data, size_t size);
/* Bytes that came on a connection that is ready, at now_ns. */
void ps__load_take_stream(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns);

/* load_native.c */
void ps__load_free_slots(const ps_load *load, ps_load_conn *conn);
/* The same, also of one that is not ready yet. */
void ps__load_take_native(ps_load *load, ps_load_conn *conn, const uint8_t *data, size_t size, uint64_t now_ns);

#endif
