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

#include "internal.h"

static void append_chunk(ps_conn *conn, ps_chunk *chunk)
{
    chunk->next = NULL;
    if (conn->out_tail)
        conn->out_tail->next = chunk;
    else
        conn->out_head = chunk;
    conn->out_tail = chunk;
}

static void prepend_chunk(ps_conn *conn, ps_chunk *chunk)
{
    chunk->next = conn->out_head;
    conn->out_head = chunk;
    if (!conn->out_tail)
        conn->out_tail = chunk;
}

static void release(ps_engine *engine, void *object)
{
    ps__enter(engine);
    engine->hooks.object_release(engine->hooks.context, object);
}

void ps__free_chunks(ps_engine *engine, ps_chunk *chunk)
{
    while (chunk) {
        ps_chunk *next = chunk->next;
        if (chunk->object)
            release(engine, chunk->object);
        ps__free(chunk);
        chunk = next;
    }
}

static void count_queued(ps_conn *conn, uint64_t queued)
{
    __atomic_store_n(&conn->queued, queued, __ATOMIC_RELAXED);
}

void ps__drop_output(ps_engine *engine, ps_conn *conn)
{
    if (conn == engine->out_conn)
        engine->out_used = 0;
    ps__free_chunks(engine, ps__take_queue(conn));
    ps__timer_stop(engine, conn, PS_LINK_OUTPUT);
}

ps_chunk *ps__take_queue(ps_conn *conn)
{
    ps_chunk *chunks = conn->out_head;
    conn->out_head = conn->out_tail = NULL;
    count_queued(conn, 0);
    return chunks;
}

/* The queue has grown: watch its progress, and the limits. */
static void queue_grew(ps_engine *engine, ps_conn *conn, size_t size)
{
    const ps_limits *limits = &engine->options.limits;
    count_queued(conn, conn->queued + size);
    if (conn->flags & PS_IS_HOLDING)
        return;
    if (!(conn->flags & PS_TIMED_OUTPUT))
        ps__timer_start(engine, conn, PS_TIMER_OUTPUT);
    if (conn->queued > limits->output_drop) {
        ps__lost(engine, conn, PS_OVER_A_LIMIT);
        return;
    }
    if (conn->queued > limits->output_pause)
        conn->flags |= PS_PAUSED_OUTPUT;
    ps__mark_dirty(engine, conn);
}

static ps_chunk *copy_chunk(const void *data, size_t size)
{
    size_t room = size < PS_CHUNK ? PS_CHUNK : size;
    ps_chunk *chunk = ps_sys.allocate(sizeof *chunk + room);
    if (!chunk)
        return NULL;
    *chunk = (ps_chunk){.data = chunk->own, .size = size, .room = room};
    memcpy(chunk->own, data, size);
    return chunk;
}

static void queue_copy(ps_engine *engine, ps_conn *conn, const void *data, size_t size)
{
    ps_chunk *last = conn->out_tail;
    if (last && !last->object && last->room - last->size >= size) {
        memcpy(last->own + last->size, data, size);
        last->size += size;
    } else {
        ps_chunk *chunk = copy_chunk(data, size);
        if (!chunk) {
            ps__lost(engine, conn, PS_OVER_A_LIMIT); /* no memory to keep what it does not take */
            return;
        }
        append_chunk(conn, chunk);
    }
    queue_grew(engine, conn, size);
}

/* The rest of an object's bytes waits inside the object. */
static ps_chunk *object_chunk(ps_engine *engine, const uint8_t *data, size_t size, void *object)
{
    ps_chunk *chunk = ps_sys.allocate(sizeof *chunk);
    if (!chunk)
        return NULL;
    *chunk = (ps_chunk){.data = data, .size = size, .object = object};
    engine->hooks.object_hold(engine->hooks.context, object);
    return chunk;
}

static void queue_object(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size, void *object)
{
    ps_chunk *chunk = object_chunk(engine, data, size, object);
    if (!chunk) {
        ps__lost(engine, conn, PS_OVER_A_LIMIT);
        return;
    }
    append_chunk(conn, chunk);
    queue_grew(engine, conn, size);
}

/* Bytes taken by the kernel (0 when it is full), or -1: the connection is lost. */
static ssize_t send_vector(ps_engine *engine, ps_conn *conn, struct iovec *iov, size_t count)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t sent;
    if (count == 1)
        sent = ps_sys.sendto(conn->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
    else
        sent = ps_sys.sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    if (sent >= 0)
        return sent;
    if (sent == -EAGAIN || sent == -EINTR || sent == -ENOBUFS || sent == -ENOMEM)
        return 0; /* the last two: the kernel is short of memory; the queue's deadline bounds how long we try */
    ps__lost(engine, conn, PS_CLOSED_BY_PEER);
    return -1;
}

/* Send what was gathered, and then the bytes of an object if there is one. What the kernel does not take is queued. */
static void send_gathered(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size, void *object)
{
    size_t gathered = engine->out_used;
    struct iovec iov[2] = {{engine->out, gathered}, {(void *)(uintptr_t)data, size}};
    size_t first = gathered ? 0 : 1, last = object ? 2 : 1;
    engine->out_used = 0;
    if (first == last)
        return;
    ssize_t sent = send_vector(engine, conn, iov + first, last - first);
    if (sent < 0)
        return;
    size_t done = (size_t)sent;
    if (done < gathered) {
        ps_chunk *rest = copy_chunk(engine->out + done, gathered - done);
        if (!rest) {
            ps__lost(engine, conn, PS_OVER_A_LIMIT);
            return;
        }
        prepend_chunk(conn, rest);
        queue_grew(engine, conn, gathered - done);
        done = gathered;
    }
    done -= gathered;
    if (done < size && conn->state != PS_CONN_CLOSED)
        queue_object(engine, conn, data + done, size - done, object);
}

static bool gathers(const ps_engine *engine, const ps_conn *conn)
{
    return conn == engine->out_conn && !conn->out_head && !(conn->flags & PS_IS_HOLDING);
}

static void put(ps_engine *engine, ps_conn *conn, const void *data, size_t size)
{
    if (gathers(engine, conn) && size > PS_OUT_ROOM - engine->out_used)
        send_gathered(engine, conn, NULL, 0, NULL);
    if (conn->state == PS_CONN_CLOSED)
        return;
    if (gathers(engine, conn) && size <= PS_OUT_ROOM) {
        memcpy(engine->out + engine->out_used, data, size);
        engine->out_used += size;
    } else {
        queue_copy(engine, conn, data, size);
    }
}

static void put_object(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size, void *object)
{
    if (conn->state == PS_CONN_CLOSED)
        return;
    if (gathers(engine, conn))
        send_gathered(engine, conn, data, size, object);
    else
        queue_object(engine, conn, data, size, object);
}

void ps__output_begin(ps_engine *engine, ps_conn *conn)
{
    engine->out_conn = conn;
}

void ps__output_end(ps_engine *engine, ps_conn *conn)
{
    if (engine->out_used && conn->state != PS_CONN_CLOSED)
        send_gathered(engine, conn, NULL, 0, NULL);
    engine->out_used = 0;
    engine->out_conn = NULL;
    if (conn->state != PS_CONN_ESTABLISHED || conn->flags & (PS_PAUSED_OUTPUT | PS_PAUSED_BATCH))
        ps__settle(engine, conn);
}

static size_t write_head(uint32_t framing, uint8_t *head, size_t size, uint8_t kind, uint16_t code, uint32_t request_id)
{
    if (framing == PS_NATIVE) {
        ps__write_header(head, (uint32_t)size, kind, 0, code, request_id);
        return PS_HEADER_SIZE;
    }
    if (framing != PS_U32)
        return 0;
    ps__put32(head, (uint32_t)size);
    return 4;
}

/* Nearly every message: small, and the buffer has room. */
static bool gather(ps_engine *engine, const ps_conn *conn, const uint8_t *head, size_t head_size, const void *data,
                   size_t size, bool line)
{
    if (!gathers(engine, conn) || head_size + size + line > PS_OUT_ROOM - engine->out_used)
        return false;
    uint8_t *to = engine->out + engine->out_used;
    memcpy(to, head, PS_HEADER_SIZE); /* of a fixed size, for speed: what is too much is overwritten */
    to += head_size;
    if (size)
        memcpy(to, data, size);
    if (line)
        to[size] = '\n';
    engine->out_used += head_size + size + line;
    return true;
}

void ps__send(ps_engine *engine, ps_conn *conn, uint8_t kind, uint16_t code, uint32_t request_id, const void *data,
              size_t size, void *object)
{
    if (conn->state == PS_CONN_CLOSED)
        return;
    uint8_t head[PS_HEADER_SIZE];
    uint32_t framing = engine->options.framing;
    size_t head_size = write_head(framing, head, size, kind, code, request_id);
    bool line = framing == PS_LINE, by_reference = object && size >= PS_BY_REFERENCE;
    size_t whole = head_size + size + line;
    PS_ADD(conn->bytes_out, whole);
    PS_ADD(engine->stats.bytes_out, whole);
    if (!by_reference && gather(engine, conn, head, head_size, data, size, line))
        return;
    if (head_size)
        put(engine, conn, head, head_size);
    if (by_reference)
        put_object(engine, conn, data, size, object);
    else if (size)
        put(engine, conn, data, size);
    if (line)
        put(engine, conn, "\n", 1);
}

void ps__send_text(ps_engine *engine, ps_conn *conn, uint8_t kind, uint16_t code, uint32_t request_id, const char *text)
{
    ps__send(engine, conn, kind, code, request_id, text, strlen(text), NULL);
}

void ps__join_queue(ps_engine *engine, ps_conn *conn, ps_chunk *chunks)
{
    while (chunks) {
        ps_chunk *next = chunks->next;
        append_chunk(conn, chunks);
        queue_grew(engine, conn, chunks->size - chunks->sent);
        if (conn->state == PS_CONN_CLOSED) { /* over the limit: all that was queued is gone, not what comes next */
            ps__free_chunks(engine, next);
            return;
        }
        chunks = next;
    }
}

/* Forget the first `sent` bytes of the queue. */
static void advance(ps_engine *engine, ps_conn *conn, size_t sent)
{
    count_queued(conn, conn->queued - sent);
    while (sent) {
        ps_chunk *chunk = conn->out_head;
        size_t here = chunk->size - chunk->sent;
        if (sent < here) {
            chunk->sent += sent;
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

static size_t fill_vector(const ps_conn *conn, struct iovec *iov, size_t *total)
{
    size_t count = 0;
    *total = 0;
    for (const ps_chunk *chunk = conn->out_head; chunk && count < PS_IOV_MAX; chunk = chunk->next) {
        size_t left = chunk->size - chunk->sent;
        iov[count++] = (struct iovec){(void *)(uintptr_t)(chunk->data + chunk->sent), left};
        *total += left;
    }
    return count;
}

/* Send the queue until it is empty or the kernel full. */
static void send_queue(ps_engine *engine, ps_conn *conn)
{
    while (conn->out_head) {
        struct iovec iov[PS_IOV_MAX];
        size_t total, count = fill_vector(conn, iov, &total);
        ssize_t sent = send_vector(engine, conn, iov, count);
        if (sent < 0)
            return;
        if (sent > 0) {
            advance(engine, conn, (size_t)sent);
            ps__timer_start(engine, conn, PS_TIMER_OUTPUT); /* progress */
        }
        if ((size_t)sent < total)
            return;
    }
    ps__timer_stop(engine, conn, PS_LINK_OUTPUT);
}

void ps__flush(ps_engine *engine, ps_conn *conn)
{
    if (conn->state == PS_CONN_CLOSED || conn->flags & PS_IS_HOLDING)
        return;
    send_queue(engine, conn);
    if (conn->state == PS_CONN_CLOSED)
        return;
    if (conn->flags & PS_PAUSED_OUTPUT && conn->queued <= engine->options.limits.output_pause / 2)
        conn->flags &= (uint16_t)~PS_PAUSED_OUTPUT;
    ps__resume(engine, conn);
    ps__settle(engine, conn);
}

void ps__flush_dirty(ps_engine *engine)
{
    /* What becomes dirty meanwhile is dealt with in the next turn, which does not sleep then: nobody is starved. */
    uint32_t slot = engine->dirty;
    engine->dirty = PS_NOBODY;
    while (slot != PS_NOBODY) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        slot = conn->next_dirty;
        conn->flags &= (uint16_t)~PS_IS_DIRTY;
        ps__flush(engine, conn);
    }
}
