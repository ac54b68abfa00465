/* queue.c: what is on its way to one client and not in the kernel yet.
 *
 * The replies of a turn are gathered in the engine's one buffer, as pieces: copied bytes and lent objects in turn. Only what
 * the kernel does not take of them becomes memory of the connection: a queue of chunks. Whoever appends to it decides what
 * that means for the client: see output.c. */
#include <string.h>

#include "base/host.h"
#include "base/sys.h"
#include "base/wire.h"
#include "conn/message.h"
#include "conn/queue.h"
#include "table/backlog.h"
#include "table/timers.h"

void ps__append_chunk(ps_conn *conn, ps_chunk *chunk)
{
    chunk->next = NULL;
    if (conn->out_tail)
        conn->out_tail->next = chunk;
    else
        conn->out_head = chunk;
    conn->out_tail = chunk;
}

static void release(ps_engine *engine, void *object)
{
    ps__enter(engine);
    engine->hooks.object_unref(engine->hooks.context, object);
}

void ps__free_chunks(ps_engine *engine, ps_chunk *chunk)
{
    while (chunk) {
        ps_chunk *next = chunk->next;
        if (chunk->object)
            release(engine, chunk->object);
        ps__shared_drop(chunk->shared);
        ps__free(chunk);
        chunk = next;
    }
}

void ps__count_queued(ps_conn *conn, uint64_t queued)
{
    __atomic_store_n(&conn->queued, queued, __ATOMIC_RELAXED);
}

ps_chunk *ps__take_queue(ps_conn *conn)
{
    ps_chunk *chunks = conn->out_head;
    conn->out_head = conn->out_tail = NULL;
    ps__count_queued(conn, 0);
    return chunks;
}

ps_chunk *ps__copy_chunk(const void *data, size_t size)
{
    size_t room = size < PS_CHUNK ? PS_CHUNK : size;
    ps_chunk *chunk = ps_sys.allocate(sizeof *chunk + room);
    if (!chunk)
        return NULL;
    *chunk = (ps_chunk){.data = chunk->own, .size = (uint32_t)size, .room = (uint32_t)room};
    memcpy(chunk->own, data, size);
    return chunk;
}

/* The rest of an object's bytes waits inside the object. */
ps_chunk *ps__object_chunk(ps_engine *engine, const uint8_t *data, size_t size, void *object)
{
    ps_chunk *chunk = ps_sys.allocate(sizeof *chunk);
    if (!chunk)
        return NULL;
    *chunk = (ps_chunk){.data = data, .size = (uint32_t)size, .object = object};
    engine->hooks.object_ref(engine->hooks.context, object);
    return chunk;
}

ps_chunk *ps__shared_chunk(ps_shared *shared)
{
    ps_chunk *chunk = ps_sys.allocate(sizeof *chunk);
    if (!chunk)
        return NULL;
    *chunk = (ps_chunk){.data = shared->data, .size = shared->size, .shared = shared};
    shared->users++;
    return chunk;
}

/* Forget the first `sent` bytes of the queue. */
void ps__advance_queue(ps_engine *engine, ps_conn *conn, size_t sent)
{
    ps__count_queued(conn, conn->queued - sent);
    while (sent) {
        ps_chunk *chunk = conn->out_head;
        uint32_t here = ps__chunk_size(chunk) - chunk->sent;
        if (chunk->shared && !chunk->sent)
            ps__backlog_take(engine, conn, chunk->size);
        if (sent < here) {
            chunk->sent += (uint32_t)sent;
            return;
        }
        sent -= here;
        conn->out_head = chunk->next;
        if (!conn->out_head)
            conn->out_tail = NULL;
        chunk->next = NULL;
        ps__free_chunks(engine, chunk);
    }
}

/* One iovec, or two of a push that tells of others. */
size_t ps__put_chunk(const ps_chunk *chunk, struct iovec *iov, uint8_t mark[PS_MARKED_HEAD])
{
    uint32_t sent = chunk->sent, skip = chunk->lost ? sent - PS_GAP_SIZE : sent;
    size_t count = 0;
    if (chunk->lost && sent < PS_MARKED_HEAD) {
        ps__write_header(mark, ps__chunk_size(chunk) - PS_HEADER_SIZE, PS_PUSH, PS_GAP, 0, 0);
        ps__put32(mark + PS_HEADER_SIZE, chunk->lost);
        iov[count++] = (struct iovec){mark + sent, PS_MARKED_HEAD - sent};
        skip = PS_HEADER_SIZE;
    }
    if (chunk->size > skip)
        iov[count++] = (struct iovec){(void *)(uintptr_t)(chunk->data + skip), chunk->size - skip};
    return count;
}

size_t ps__queue_vector(const ps_conn *conn, struct iovec *iov, ps_marks marks, size_t *total)
{
    size_t count = 0;
    *total = 0;
    for (const ps_chunk *chunk = conn->out_head; chunk && count < PS_IOV_MAX - 1; chunk = chunk->next) {
        count += ps__put_chunk(chunk, iov + count, marks[count]);
        *total += ps__chunk_size(chunk) - chunk->sent;
    }
    return count;
}

static bool is_whole_push(const ps_chunk *chunk)
{
    return chunk->shared && !chunk->sent;
}

ps_chunk *ps__unlink_push(ps_conn *conn, ps_chunk **behind)
{
    ps_chunk *before = NULL, *chunk = conn->out_head;
    for (; chunk && !is_whole_push(chunk); chunk = chunk->next)
        before = chunk;
    if (!chunk)
        return NULL;
    *behind = chunk->next;
    while (*behind && !is_whole_push(*behind))
        *behind = (*behind)->next;
    if (before)
        before->next = chunk->next;
    else
        conn->out_head = chunk->next;
    if (conn->out_tail == chunk)
        conn->out_tail = before;
    chunk->next = NULL;
    return chunk;
}

/* -- what is gathered ---------------------------------------------------------------------------------------------- */

/* What was copied into the buffer since the last piece becomes a piece. */
void ps__close_piece(ps_engine *engine)
{
    size_t from = engine->out_closed, size = engine->out_used - from;
    if (!size)
        return;
    engine->pieces[engine->piece_count] = (struct iovec){engine->out + from, size};
    engine->piece_objects[engine->piece_count++] = NULL;
    engine->out_closed = engine->out_used;
}

void ps__drop_gathered(ps_engine *engine)
{
    unsigned count = engine->piece_count;
    engine->piece_count = 0;
    engine->out_used = engine->out_closed = engine->out_lent = engine->out_frames = 0;
    for (unsigned i = 0; i < count; i++)
        if (engine->piece_objects[i])
            release(engine, engine->piece_objects[i]);
}

ps_chunk *ps__chunk_of_piece(ps_engine *engine, unsigned i, size_t sent)
{
    const uint8_t *data = (const uint8_t *)engine->pieces[i].iov_base + sent;
    size_t size = engine->pieces[i].iov_len - sent;
    void *object = engine->piece_objects[i];
    return object ? ps__object_chunk(engine, data, size, object) : ps__copy_chunk(data, size);
}

void ps__gathered_clear(ps_engine *engine)
{
    engine->out_used = engine->out_closed = engine->out_lent = engine->out_frames = 0;
    engine->piece_count = 0;
}

void ps__drop_output(ps_engine *engine, ps_conn *conn)
{
    if (conn == engine->out_conn)
        ps__drop_gathered(engine);
    ps__free_chunks(engine, ps__take_queue(conn));
    ps__backlog_drop(engine, conn);
    ps__timer_stop(engine, conn, PS_LINK_OUTPUT);
}
