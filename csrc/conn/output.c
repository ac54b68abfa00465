/* output.c: from replies to bytes in the kernel.
 *
 * The replies to one client's requests of a turn are gathered in the engine's one buffer (output_begin ... output_end)
 * and sent by one call. Only what the kernel does not take becomes memory of the connection: a queue of chunks, sent when
 * the poll says so. A large reply is not gathered but sent from the object the handler returned; if a rest of it must
 * wait, the queue holds that object.
 *
 * Order: what is in the gathering buffer is older than anything in the queue, since nothing is gathered for a connection
 * that has a queue. */
#include <errno.h>
#include <string.h>

#include "base/causes.h"
#include "base/wire.h"
#include "conn/life.h"
#include "conn/message.h"
#include "conn/output.h"
#include "conn/queue.h"
#include "conn/slow.h"
#include "table/backlog.h"
#include "table/table.h"
#include "table/timers.h"
#include "transport/transport.h"

/* With more unsent bytes than these the client isn't read. One that wasn't let in yet is owed nothing. */
static uint64_t pause_at(const ps_engine *engine, const ps_conn *conn)
{
    return conn->was_let_in ? engine->options.limits.output_pause : 0;
}

/* The queue has grown: see to the limits. Its deadline runs from when it is tried to be sent, which is in this turn. */
static void queue_grew(ps_engine *engine, ps_conn *conn, size_t size)
{
    ps__count_queued(conn, conn->queued + size);
    if (conn->queued > engine->options.limits.output_drop) {
        ps__cut_off(engine, conn, PS_END_OUTPUT_FULL);
        return;
    }
    if (conn->flags & PS_OUTPUT_WAITS)
        return;
    if (conn->queued > pause_at(engine, conn))
        conn->flags |= PS_PAUSED_OUTPUT;
    ps__mark_dirty(engine, conn);
}

void ps__output_grew(ps_engine *engine, ps_conn *conn)
{
    if (conn->out_head)
        queue_grew(engine, conn, 0);
}

static void count_output(ps_engine *engine, ps_conn *conn, size_t size)
{
    PS_ADD(conn->bytes_out, size);
    PS_ADD(engine->stats.bytes_out, size);
}

static void count_frames(ps_engine *engine, const ps_conn *conn, uint32_t frames)
{
    PS_ADD(ps__tally(&engine->table, conn)->frames_out, frames);
}

static void queue_copy(ps_engine *engine, ps_conn *conn, const void *data, size_t size)
{
    count_output(engine, conn, size);
    ps_chunk *last = conn->out_tail;
    if (last && (uint64_t)last->size + size <= last->room) {
        memcpy(last->own + last->size, data, size);
        last->size += (uint32_t)size;
    } else {
        ps_chunk *chunk = ps__copy_chunk(data, size);
        if (!chunk) {
            ps__no_memory(engine, conn); /* to keep what it does not take */
            return;
        }
        ps__append_chunk(conn, chunk);
    }
    queue_grew(engine, conn, size);
}

static void queue_object(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size, void *object)
{
    ps_chunk *chunk = ps__object_chunk(engine, data, size, object);
    if (!chunk) {
        ps__no_memory(engine, conn);
        return;
    }
    ps__append_chunk(conn, chunk);
    count_output(engine, conn, size);
    queue_grew(engine, conn, size);
}

static void queue_shared(ps_engine *engine, ps_conn *conn, ps_shared *shared)
{
    if (!ps__slow_takes(engine, conn, shared->size))
        return;
    ps_chunk *chunk = ps__shared_chunk(shared);
    if (!chunk) {
        ps__no_memory(engine, conn);
        return;
    }
    ps__append_chunk(conn, chunk);
    ps_backlog *row = ps__backlog_row(engine, conn);
    ps__slow_mark(engine, conn, chunk, row->lost);
    row->lost = 0;
    count_output(engine, conn, shared->size);
    count_frames(engine, conn, 1);
    queue_grew(engine, conn, shared->size);
}

/* The kernel is short of memory. Its socket stays writable, so it must not be waited for; the queue's deadline bounds
 * how long we try. */
static void starve(ps_engine *engine, ps_conn *conn)
{
    conn->flags |= PS_IS_STARVED;
    ps__note_later(engine, PS_CAUSE_SEND);
    if (!engine->send_again_ns)
        engine->send_again_ns = engine->now_ns + PS_PAUSE_SEND_MS * 1000000u;
}

/* Bytes taken by the kernel (0 when it is full), or -1: the connection is lost. */
static ssize_t send_vector(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    ssize_t sent = ps__listener(engine, conn)->transport->send(engine, conn, iov, count);
    if (sent >= 0)
        return sent;
    if (sent == -EAGAIN || sent == -EINTR)
        return 0;
    if (sent == -ENOBUFS || sent == -ENOMEM) {
        starve(engine, conn);
        return 0;
    }
    ps__lost(engine, conn, PS_CLOSED_BY_PEER);
    return -1;
}

/* -- gathering ----------------------------------------------------------------------------------------------------- */

/* What the kernel did not take of the pieces goes in front of the queue: it is older. */
static void keep_rest(ps_engine *engine, ps_conn *conn, size_t sent)
{
    ps_chunk *first = NULL, **end = &first, *last = NULL;
    size_t size = 0;
    for (unsigned i = 0; i < engine->piece_count; i++) {
        size_t here = engine->pieces[i].iov_len, done = sent < here ? sent : here;
        sent -= done;
        if (done == here)
            continue;
        last = *end = ps__chunk_of_piece(engine, i, done);
        if (!last) {
            ps__free_chunks(engine, first);
            ps__no_memory(engine, conn);
            return;
        }
        end = &last->next;
        size += here - done;
    }
    if (!last)
        return;
    last->next = conn->out_head;
    conn->out_head = first;
    if (!conn->out_tail)
        conn->out_tail = last;
    queue_grew(engine, conn, size);
}

static void send_gathered(ps_engine *engine, ps_conn *conn)
{
    ps__close_piece(engine);
    count_frames(engine, conn, engine->out_frames);
    engine->out_frames = 0;
    if (!engine->piece_count)
        return;
    count_output(engine, conn, engine->out_used + engine->out_lent);
    ssize_t sent = send_vector(engine, conn, engine->pieces, engine->piece_count);
    if (sent >= 0)
        keep_rest(engine, conn, (size_t)sent);
    ps__drop_gathered(engine);
}

static bool gathers(const ps_engine *engine, const ps_conn *conn)
{
    return conn == engine->out_conn && !conn->out_head && !(conn->flags & PS_OUTPUT_WAITS);
}

static void put(ps_engine *engine, ps_conn *conn, const void *data, size_t size)
{
    if (gathers(engine, conn) && engine->out_used + size > PS_OUT_ROOM)
        send_gathered(engine, conn);
    if (conn->state == PS_CONN_CLOSED)
        return;
    if (gathers(engine, conn) && size <= PS_OUT_ROOM) {
        memcpy(engine->out + engine->out_used, data, size);
        engine->out_used += size;
    } else {
        queue_copy(engine, conn, data, size);
    }
}

/* Lend the object's bytes to the next send. Two pieces may be needed: what was copied before it, and itself. */
static void lend(ps_engine *engine, const uint8_t *data, size_t size, void *object)
{
    ps__close_piece(engine);
    engine->hooks.object_ref(engine->hooks.context, object);
    engine->pieces[engine->piece_count] = (struct iovec){(void *)(uintptr_t)data, size};
    engine->piece_objects[engine->piece_count++] = object;
    engine->out_lent += size;
}

static void put_object(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size, void *object)
{
    if (gathers(engine, conn) && engine->piece_count + 3 > PS_PIECES_MAX) /* and one more for what is copied behind it */
        send_gathered(engine, conn);
    if (conn->state == PS_CONN_CLOSED)
        return;
    if (!gathers(engine, conn)) {
        queue_object(engine, conn, data, size, object);
        return;
    }
    lend(engine, data, size, object);
    if (engine->out_lent > PS_LENT_MAX)
        send_gathered(engine, conn);
}

void ps__output_begin(ps_engine *engine, ps_conn *conn)
{
    engine->out_conn = conn;
}

void ps__output_end(ps_engine *engine, ps_conn *conn)
{
    if (conn->state != PS_CONN_CLOSED)
        send_gathered(engine, conn);
    engine->out_conn = NULL;
    if (conn->state != PS_CONN_ESTABLISHED || conn->flags & (PS_PAUSED_OUTPUT | PS_PAUSED_PENDING))
        ps__settle(engine, conn);
}

/* Nearly every message: small, and the buffer has room. The head is made where it goes: bytes stored one by one and
 * copied at once as a word stall the processor. */
static bool gather(ps_engine *engine, const ps_conn *conn, const ps_message_head *head, const void *data, size_t size)
{
    const ps_framing_facts *framing = ps__framing(engine, conn);
    if (!gathers(engine, conn) || engine->out_used + size > PS_OUT_ROOM) /* the buffer has slack for head and newline */
        return false;
    uint8_t *to = engine->out + engine->out_used;
    to += ps__write_head(framing, to, size, head);
    if (size)
        memcpy(to, data, size);
    to += size;
    if (framing->ends_line)
        *to++ = '\n';
    engine->out_used = (size_t)(to - engine->out);
    engine->out_frames++;
    return true;
}

static inline void send_message(ps_engine *engine, ps_conn *conn, ps_message_head message, const void *data, size_t size,
                                void *object)
{
    bool by_reference = object && size >= PS_BY_REFERENCE;
    if (conn->state == PS_CONN_CLOSED || (!by_reference && gather(engine, conn, &message, data, size)))
        return;
    uint8_t head[PS_HEADER_SIZE];
    const ps_framing_facts *framing = ps__framing(engine, conn);
    size_t head_size = ps__write_head(framing, head, size, &message);
    count_frames(engine, conn, 1);
    if (head_size)
        put(engine, conn, head, head_size);
    if (by_reference)
        put_object(engine, conn, data, size, object);
    else if (size)
        put(engine, conn, data, size);
    if (framing->ends_line)
        put(engine, conn, "\n", 1);
}

void ps__send(ps_engine *engine, ps_conn *conn, uint8_t kind, uint16_t code, uint32_t request_id, const void *data,
              size_t size, void *object)
{
    send_message(engine, conn, (ps_message_head){kind, 0, code, request_id}, data, size, object);
}

void ps__send_piece(ps_engine *engine, ps_conn *conn, uint32_t request_id, const void *data, size_t size, void *object)
{
    send_message(engine, conn, (ps_message_head){PS_REPLY, PS_MORE, 0, request_id}, data, size, object);
}

void ps__send_error(ps_engine *engine, ps_conn *conn, uint8_t flags, uint16_t code, uint32_t request_id, const char *text)
{
    send_message(engine, conn, (ps_message_head){PS_ERROR, flags, code, request_id}, text, strlen(text), NULL);
}

void ps__send_text(ps_engine *engine, ps_conn *conn, uint8_t kind, uint16_t code, uint32_t request_id, const char *text)
{
    ps__send(engine, conn, kind, code, request_id, text, strlen(text), NULL);
}

void ps__send_shared(ps_engine *engine, ps_conn *conn, ps_shared *shared)
{
    bool fits = shared->size <= PS_OUT_ROOM && !ps__slow_tells(engine, conn); /* a mark is made of what is queued */
    if (gathers(engine, conn) && (!fits || engine->out_used + shared->size > PS_OUT_ROOM))
        send_gathered(engine, conn); /* it is older */
    if (conn->state == PS_CONN_CLOSED || !shared->size) /* an empty one of the framing raw */
        return;
    if (!fits || !gathers(engine, conn)) {
        queue_shared(engine, conn, shared);
        return;
    }
    engine->out_frames++;
    memcpy(engine->out + engine->out_used, shared->data, shared->size);
    engine->out_used += shared->size;
}

void ps__send_push(ps_engine *engine, ps_conn *conn, const void *data, size_t size)
{
    const ps_message_head head = {.kind = PS_PUSH};
    if (!ps__slow_tells(engine, conn) && gather(engine, conn, &head, data, size))
        return;
    ps_shared *shared = ps__shared_new(ps__framing(engine, conn), data, size);
    if (shared)
        ps__send_shared(engine, conn, shared);
    else
        ps__no_memory(engine, conn);
    ps__shared_drop(shared);
}

void ps__send_ready(ps_engine *engine, ps_conn *conn, const void *frame, size_t size)
{
    put(engine, conn, frame, size);
}

void ps__join_queue(ps_engine *engine, ps_conn *conn, ps_chunk *chunks)
{
    while (chunks) {
        ps_chunk *next = chunks->next;
        ps__append_chunk(conn, chunks);
        queue_grew(engine, conn, ps__chunk_size(chunks) - chunks->sent);
        if (conn->state == PS_CONN_CLOSED) { /* over the limit: all that was queued is gone, not what comes next */
            ps__free_chunks(engine, next);
            return;
        }
        chunks = next;
    }
}

/* What the transport holds is older than the queue. Whether anything was sent. */
static bool send_held(ps_engine *engine, ps_conn *conn)
{
    return !(conn->flags & PS_IS_STARVED) && send_vector(engine, conn, NULL, 0) > 0;
}

/* Until it is empty or the kernel full. */
static void send_queued(ps_engine *engine, ps_conn *conn)
{
    bool progress = conn->holds && send_held(engine, conn), more = !conn->holds && !(conn->flags & PS_IS_STARVED);
    while (more && conn->out_head) {
        struct iovec iov[PS_IOV_MAX];
        ps_marks marks;
        size_t total, count = ps__queue_vector(conn, iov, marks, &total);
        ssize_t sent = send_vector(engine, conn, iov, count);
        if (sent < 0)
            return;
        ps__advance_queue(engine, conn, (size_t)sent);
        progress |= sent > 0;
        more = (size_t)sent == total;
    }
    if (conn->state == PS_CONN_CLOSED)
        return;
    if (!conn->out_head && !conn->holds)
        ps__timer_stop(engine, conn, PS_LINK_OUTPUT);
    else if (progress || !(conn->flags & PS_TIMED_OUTPUT))
        ps__timer_start_now(engine, conn, PS_TIMER_OUTPUT);
}

void ps__send_queue(ps_engine *engine, ps_conn *conn)
{
    send_queued(engine, conn);
    if (conn->flags & PS_PAUSED_OUTPUT && conn->queued <= pause_at(engine, conn) / 2)
        conn->flags &= (uint16_t)~PS_PAUSED_OUTPUT;
}

void ps__send_last(ps_engine *engine, ps_conn *conn)
{
    ps__send_queue(engine, conn);
    ps__settle(engine, conn);
}
