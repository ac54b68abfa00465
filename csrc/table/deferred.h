/* deferred.h: the records of requests whose handler has returned, and whose answer comes later. */
#ifndef PYSOCK_TABLE_DEFERRED_H
#define PYSOCK_TABLE_DEFERRED_H

#include "core/engine.h"

/* In engine->ids_in_flight, of a handle: it is a deferred request that has this id. */
#define PS_ID_OF_DEFERRED (1ull << 63)

typedef struct ps_deferred {
    ps_pending pending;
    void *object; /* whose work it is, or NULL; the record's */
    uint64_t began_ns; /* when its handler was called, or a little before */
    uint64_t limit, sent; /* of a stream: bytes that it may send in all, as far as its client has given credit; and has */
    uint64_t told;        /* how many whoever sends them knows of */
    uint32_t generation; /* 31 bits, never 0 */
    uint32_t previous, next; /* of the same client; next: of the free ones */
    uint32_t next_told;
    uint32_t previous_ready, next_ready;
    uint32_t due_at;  /* its place in the heap, or PS_NO_SLOT */
    uint8_t why;      /* enum ps_why: it isn't waited for */
    bool is_listed;   /* among those who are to be told */
    bool is_told;
    bool is_answered; /* by an ERROR, but its work goes on, and counts as in flight as long */
    bool is_over;     /* its work, or its client: no handle finds it, and told of that its slot is free */
    bool is_stream;   /* it is answered in pieces */
    bool is_pulled;   /* which the loop asks for */
    bool is_ready;    /* among those of which the next piece is to be asked for */
    bool is_held;     /* a stream that waits until its client has taken what waits to be sent */
    bool is_endless;  /* it is ended as soon as the server begins to stop */
} ps_deferred;

static inline ps_deferred *ps__deferred_at(const ps_engine *engine, uint32_t slot)
{
    return &engine->deferred.records[slot];
}

/* A new record, its client's first. 0: there is no memory; else its handle, which finds nothing once it is over. */
uint64_t ps__deferred_add(ps_engine *engine, ps_conn *conn, const ps_pending *pending);
ps_deferred *ps__deferred_find(const ps_engine *engine, uint64_t handle);
uint64_t ps__deferred_handle(const ps_engine *engine, const ps_deferred *record);
/* Its work is over, of a client that is there. */
void ps__deferred_remove(ps_engine *engine, ps_conn *conn, ps_deferred *record);
/* Nobody waits for it: it is to be told so. What was to be told first counts. */
void ps__deferred_mark(ps_engine *engine, ps_deferred *record, enum ps_why why);
/* The same of those whose time is over. */
void ps__deferred_expire(ps_engine *engine);
/* Nothing more is read of this client, so its streams get no credit: those that have none left are ended, or all. */
void ps__deferred_end_streams(ps_engine *engine, const ps_conn *conn, bool all);
/* The client has gone: all its records are over. Those that it didn't wait for are done all the same: they aren't told. */
void ps__deferred_orphan(ps_engine *engine, ps_conn *conn, enum ps_why why);
/* Take one who is to be told from the list; PS_NO_SLOT: there is none. */
uint32_t ps__deferred_pop(ps_engine *engine);
/* The next piece of a stream is to be asked for, and the last one of the list is the next but all others; or not any more. */
void ps__deferred_ready(ps_engine *engine, ps_deferred *record);
void ps__deferred_unready(ps_engine *engine, ps_deferred *record);
void ps__deferred_hold(ps_engine *engine, ps_deferred *record);
void ps__deferred_release(ps_engine *engine, ps_deferred *record);
/* It is over, and told; the object is the caller's. */
void ps__deferred_put_away(ps_engine *engine, uint32_t slot);
/* In a forked child, where nobody waits; and at the end of everything. */
void ps__deferred_forget(ps_engine *engine);
void ps__deferred_close(ps_engine *engine);

#endif
