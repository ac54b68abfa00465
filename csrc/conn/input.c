/* input.c: from bytes in the kernel to bytes that are cut. All connections read into the engine's one buffer; a client that
 * sends large frames is read past it, see part.c. */
#include <errno.h>
#include <string.h>

#include "base/causes.h"
#include "base/sys.h"
#include "conn/admit.h"
#include "conn/cut.h"
#include "conn/input.h"
#include "conn/life.h"
#include "conn/output.h"
#include "conn/part.h"
#include "conn/rules.h"
#include "table/deferred.h"
#include "table/table.h"
#include "table/timers.h"
#include "transport/transport.h"

static bool is_incomplete(const ps_conn *conn)
{
    return conn->part || conn->stash_size || conn->flags & PS_IS_SKIPPING;
}

/* What comes next begins with the header of a frame, probably of a large one. A guess takes room for bytes that have not
 * come, so only so much of it. */
static bool may_guess(const ps_engine *engine, const ps_conn *conn)
{
    return conn->flags & PS_TALKS_LARGE && !is_incomplete(conn) && engine->guessed < PS_GUESSED_BYTES;
}

/* The deadline of a frame runs from its first byte to its last, however often a few bytes come between. */
static void time_frame(ps_engine *engine, ps_conn *conn, uint64_t frames_before)
{
    if (conn->state != PS_CONN_ESTABLISHED)
        return;
    if (!is_incomplete(conn))
        ps__timer_stop(engine, conn, PS_LINK_INPUT);
    else if (!(conn->flags & PS_TIMED_INPUT) || engine->frames != frames_before)
        ps__timer_start(engine, conn, PS_TIMER_FRAME);
}

/* -- reading ------------------------------------------------------------------------------------------------------- */

static ssize_t receive(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    return ps__listener(engine, conn)->transport->receive(engine, conn, iov, count);
}

/* The client sends nothing more. */
static void end_of_file(ps_engine *engine, ps_conn *conn)
{
    bool is_gone = conn->features & PS_FEATURE_CANCEL; /* such a client doesn't only stop to send */
    if (is_gone)
        ps__deferred_orphan(engine, conn, PS_WHY_GONE);
    if (is_gone && !conn->in_flight) {
        ps__finish(engine, conn);
        ps__lost(engine, conn, PS_CLOSED_BY_PEER); /* nobody takes what waits to be sent */
    } else {
        ps__end(engine, conn, PS_EV_END_OF_FILE, PS_CLOSED_BY_PEER);
    }
}

/* A connection was cut on its way, or looks so: what was cut with it is no request. Nothing else marks the end of a raw one. */
static void cut_short(ps_engine *engine, ps_conn *conn)
{
    ps__note(engine, PS_CAUSE_TLS_TRUNCATED);
    if (is_incomplete(conn) || ps__framing(engine, conn)->name == PS_RAW)
        ps__cut_off(engine, conn, PS_END_VIOLATION);
    else
        end_of_file(engine, conn);
}

/* What only a transport with rules of its own says. It has told the client what is wrong, as far as it could. */
static void transport_said(ps_engine *engine, ps_conn *conn, ssize_t said)
{
    if (said == PS_GREETED) {
        ps__greeted(engine, conn);
        return;
    }
    if (said == PS_CUT_SHORT) {
        cut_short(engine, conn);
        return;
    }
    ps__discard_input(conn->fd, engine->in, PS_READ_MAX);
    if (said == PS_GARBLED)
        ps__cut_off(engine, conn, PS_END_VIOLATION);
    else
        ps__lost(engine, conn, PS_PROTOCOL_VIOLATION);
}

/* Nothing comes now, or no more (0), or the connection is broken. */
static void input_ended(ps_engine *engine, ps_conn *conn, ssize_t result)
{
    if (result == 0)
        end_of_file(engine, conn);
    else if (result >= PS_GREETED && result <= PS_GARBLED)
        transport_said(engine, conn, result);
    else if (result == -ENOMEM || result == -ENOBUFS)
        ps__no_memory(engine, conn);
    else if (result != -EAGAIN && result != -EINTR)
        ps__lost(engine, conn, PS_CLOSED_BY_PEER);
}

static void count_input(ps_engine *engine, ps_conn *conn, size_t size)
{
    PS_ADD(conn->bytes_in, size);
    PS_ADD(engine->stats.bytes_in, size);
    __atomic_store_n(&ps__tally(&engine->table, conn)->heard_ns, engine->now_ns, __ATOMIC_RELAXED);
    if (conn->features & PS_FEATURE_DEADLINE)
        engine->read_ns = ps__now_ns();
    if (conn->flags & PS_TIMED_IDLE)
        ps__timer_start(engine, conn, PS_TIMER_IDLE);
}

/* Read on behind a part, and what follows it into the buffer. Returns whether there may be more of the part. */
static bool read_part(ps_engine *engine, ps_conn *conn)
{
    ps_part *part = conn->part;
    if (part->have == part->room && !ps__part_grow(engine, part, 1)) {
        ps__no_memory(engine, conn);
        return false;
    }
    size_t here = part->room - part->have;
    struct iovec iov[2] = {{part->data + part->have, here}, {engine->in, PS_READ_MAX}};
    ssize_t got = receive(engine, conn, iov, 2);
    if (got <= 0) {
        input_ended(engine, conn, got);
        return false;
    }
    count_input(engine, conn, (size_t)got);
    size_t inside = (size_t)got < here ? (size_t)got : here;
    part->have += (uint32_t)inside;
    bool more = part->have < part->head.size;
    if (!more)
        ps__finish_part(engine, conn);
    ps__cut(engine, conn, engine->in, (size_t)got - inside);
    return more && (size_t)got >= here && conn->part == part; /* not one that follows: its turn is the next */
}

/* A guess that fits: what arrived lies where the handler will get it. */
static void take_guessed(ps_engine *engine, ps_conn *conn, const ps_frame *frame, ps_part *part, size_t got)
{
    size_t inside = got < part->room ? got : part->room;
    part->head = *frame;
    part->have = (uint32_t)inside;
    part->guessed = true;
    engine->guessed += part->room;
    conn->part = part;
    if (part->have == part->room)
        ps__finish_part(engine, conn);
    ps__cut(engine, conn, engine->in, got - inside);
}

/* A header may lie across the border to the piece before: then it is put together first. */
static void cut_piece(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    size_t stashed = conn->stash_size, more = ps__framing(engine, conn)->head_size - stashed;
    if (stashed && size) {
        uint8_t head[PS_HEADER_SIZE];
        if (more > size)
            more = size;
        memcpy(head, conn->stash, stashed);
        memcpy(head + stashed, data, more);
        conn->stash_size = 0;
        ps__cut(engine, conn, head, stashed + more);
        data += more;
        size -= more;
    }
    ps__cut(engine, conn, data, size);
}

/* One that doesn't: the pieces are cut one after the other, as if they had come so. */
static void take_pieces(ps_engine *engine, ps_conn *conn, const uint8_t *head, size_t head_size, ps_part *part, size_t got)
{
    size_t inside = got < part->room ? got : part->room;
    conn->flags &= (uint16_t)~PS_TALKS_LARGE;
    ps__cut(engine, conn, head, head_size);
    cut_piece(engine, conn, part->data, inside);
    cut_piece(engine, conn, engine->in, got - inside);
    ps__part_free(engine, part);
}

/* Only from clients that speak of deadlines one is expected in front of the payload, and from those always. */
static bool fits(ps_engine *engine, ps_conn *conn, ps_frame *frame, const uint8_t *deadline, size_t room)
{
    size_t before = ps__deadline_size(conn);
    bool is_timed = frame->flags & PS_DEADLINE;
    if (is_timed != (before > 0) || frame->size != before + room || ps__judge(engine, conn, frame) != PS_TAKE)
        return false;
    if (is_timed) {
        frame->deadline_ns = engine->read_ns;
        ps__take_deadline(frame, deadline);
    }
    return true;
}

static bool read_into_guess(ps_engine *engine, ps_conn *conn, ps_part *part)
{
    uint8_t head[PS_HEADER_SIZE + PS_DEADLINE_SIZE];
    const ps_framing_facts *framing = ps__framing(engine, conn);
    size_t head_size = framing->head_size + ps__deadline_size(conn), room = part->room;
    struct iovec iov[3] = {{head, head_size}, {part->data, room}, {engine->in, PS_READ_MAX}};
    ssize_t got = receive(engine, conn, iov, 3);
    if (got <= 0) {
        ps__part_free(engine, part);
        input_ended(engine, conn, got);
        return false;
    }
    count_input(engine, conn, (size_t)got);
    size_t whole = (size_t)got, behind = whole > head_size ? whole - head_size : 0;
    ps_frame frame = {.size = 0};
    if (behind)
        ps__read_head(framing, head, &frame);
    if (fits(engine, conn, &frame, head + framing->head_size, room))
        take_guessed(engine, conn, &frame, part, behind);
    else
        take_pieces(engine, conn, head, whole - behind, part, behind);
    return whole == head_size + room + PS_READ_MAX;
}

/* Whoever sent a large frame will likely send another of that size: receive it where the handler gets it, without a copy
 * through the buffer and a second call for the rest. */
static bool read_guessing(ps_engine *engine, ps_conn *conn)
{
    ps_part *part = ps_sys.allocate(sizeof *part);
    if (!part) {
        ps__no_memory(engine, conn);
        return false;
    }
    *part = (ps_part){.head = {.size = engine->guess}, .in_object = engine->guess > PS_LARGE};
    if (ps__part_resize(engine, part, engine->guess))
        return read_into_guess(engine, conn, part);
    ps__free(part);
    ps__no_memory(engine, conn);
    return false;
}

/* Returns whether there may be more: a short read has emptied the socket, and needs no second call to see it. */
static bool read_plain(ps_engine *engine, ps_conn *conn)
{
    size_t stashed = conn->stash_size;
    if (stashed)
        memcpy(engine->in, conn->stash, stashed);
    struct iovec iov = {engine->in + stashed, PS_READ_MAX};
    ssize_t got = receive(engine, conn, &iov, 1);
    if (got <= 0) {
        input_ended(engine, conn, got);
        return false;
    }
    conn->stash_size = 0;
    count_input(engine, conn, (size_t)got);
    ps__cut(engine, conn, engine->in, stashed + (size_t)got);
    return got == PS_READ_MAX;
}

void ps__readable(ps_engine *engine, ps_conn *conn)
{
    uint64_t frames_before = engine->frames, bytes_before = conn->bytes_in;
    ps__output_begin(engine, conn);
    bool behind_part = ps__framing(engine, conn)->tells_size; /* else its end is searched for, in the buffer */
    bool more = true;
    if (may_guess(engine, conn))
        more = read_guessing(engine, conn);
    else if (!conn->part || !behind_part)
        more = read_plain(engine, conn);
    while (more && conn->part && behind_part && conn->bytes_in - bytes_before < PS_LARGE_TURN)
        more = read_part(engine, conn);
    time_frame(engine, conn, frames_before);
    ps__output_end(engine, conn);
}

void ps__shake_hands(ps_engine *engine)
{
    uint64_t id = ps__next_to_shake(engine);
    ps_conn *conn = id ? ps__table_find(&engine->table, id) : NULL;
    if (conn && ps__reads(engine, conn) && !conn->unread)
        ps__readable(engine, conn);
}

/* What was received and not cut, since its client didn't take its replies. */
static void cut_unread(ps_engine *engine, ps_conn *conn)
{
    ps_unread *unread = conn->unread;
    uint64_t frames_before = engine->frames;
    conn->unread = NULL;
    engine->read_ns = unread->read_ns;
    ps__output_begin(engine, conn);
    ps__cut(engine, conn, unread->data, unread->size);
    time_frame(engine, conn, frames_before);
    ps__output_end(engine, conn);
    ps__free(unread);
}

/* What the transport has is newer, and no poll tells of it: it is for now, too. */
void ps__resume(ps_engine *engine, ps_conn *conn)
{
    if (conn->unread && ps__reads(engine, conn))
        cut_unread(engine, conn);
    if (!conn->more || conn->unread || !ps__reads(engine, conn))
        return;
    conn->more = 0;
    ps__readable(engine, conn);
}
