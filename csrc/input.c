/* input.c: from bytes in the kernel to whole frames.
 *
 * All connections read into the engine's one buffer. A connection owns memory only while it has something incomplete:
 * - a header that is cut off is stashed in its slot;
 * - a frame that is cut off becomes its `part`, and what comes next is received straight behind it: for a frame over
 *   PS_LARGE inside the object that the handler will get, so that the kernel's copy is the only one;
 * - whole frames that may not be looked at yet (the client is paused) are `held`. */
#include <errno.h>
#include <string.h>

#include "internal.h"

static void forget_guess(ps_engine *engine, const ps_part *part)
{
    if (part->guessed)
        engine->guessed -= part->head.size;
}

static void free_part(ps_engine *engine, ps_part *part)
{
    if (!part)
        return;
    forget_guess(engine, part);
    if (part->object) {
        ps__enter(engine);
        engine->hooks.object_release(engine->hooks.context, part->object);
    } else {
        ps__free(part->data);
    }
    ps__free(part);
}

void ps__drop_input(ps_engine *engine, ps_conn *conn)
{
    free_part(engine, conn->part);
    conn->part = NULL;
    ps__free(conn->held);
    conn->held = NULL;
    conn->stash_size = 0;
    conn->flags &= (uint16_t)~PS_IS_SKIPPING;
}

/* -- a frame that is cut off --------------------------------------------------------------------------------------- */

static bool part_resize(ps_engine *engine, ps_part *part, uint32_t room)
{
    void *context = engine->hooks.context;
    if (part->head.size > PS_LARGE && engine->options.framing != PS_LINE) {
        ps__enter(engine);
        part->object = part->object ? engine->hooks.object_resize(context, part->object, room, &part->data)
                                    : engine->hooks.object_new(context, room, &part->data);
        if (!part->object) {
            part->data = NULL; /* it lay in the object that is gone */
            return false;
        }
    } else {
        uint8_t *data = ps_sys.resize(part->data, room);
        if (!data)
            return false;
        part->data = data;
    }
    part->room = room;
    return true;
}

/* Room for `more` bytes: at least doubled, so that copying stays linear, and never beyond the frame. */
static bool part_grow(ps_engine *engine, ps_part *part, uint32_t more)
{
    uint64_t needed = (uint64_t)part->have + more, room = part->room ? part->room * 2ull : 4ull * more;
    if (room < needed)
        room = needed;
    if (room < 1024)
        room = 1024;
    if (room > part->head.size)
        room = part->head.size;
    return part_resize(engine, part, (uint32_t)room);
}

/* Begin with the bytes that are here; they are fewer than the frame has. head->size bounds a line, too. */
static bool part_begin(ps_engine *engine, ps_conn *conn, const ps_frame *head, const uint8_t *data, size_t size)
{
    ps_part *part = ps_sys.allocate(sizeof *part);
    if (!part)
        return false;
    *part = (ps_part){.head = *head};
    conn->part = part;
    if (!part_grow(engine, part, (uint32_t)size))
        return false;
    memcpy(part->data, data, size);
    part->have = (uint32_t)size;
    return true;
}

static bool part_add(ps_engine *engine, ps_part *part, const uint8_t *data, size_t size)
{
    if (size > part->room - part->have && !part_grow(engine, part, (uint32_t)size))
        return false;
    memcpy(part->data + part->have, data, size);
    part->have += (uint32_t)size;
    return true;
}

/* The part is whole: hand it on. The connection has let go of it before, since a handler may close it. */
static void part_finish(ps_engine *engine, ps_conn *conn)
{
    ps_part *part = conn->part;
    ps_frame frame = part->head;
    conn->part = NULL;
    forget_guess(engine, part);
    if (part->object && frame.kind == PS_SRM && part->have <= PS_GUESS_MAX) {
        conn->flags |= PS_TALKS_LARGE;
        engine->guess = part->have;
    }
    frame.size = part->have;
    frame.payload = part->data;
    ps__take_frame(engine, conn, &frame, part->object);
    if (!part->object)
        ps__free(part->data);
    ps__free(part);
}

/* -- cutting ------------------------------------------------------------------------------------------------------- */

/* Each of these deals with the beginning of the bytes and returns how many of them it has used. */

static size_t skip_payload(ps_engine *engine, ps_conn *conn, size_t size)
{
    size_t used = size < conn->skip ? size : conn->skip;
    conn->skip -= (uint32_t)used;
    if (!conn->skip) {
        conn->flags &= (uint16_t)~PS_IS_SKIPPING;
        engine->frames++;
    }
    return used;
}

static size_t continue_part(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    ps_part *part = conn->part;
    size_t missing = part->head.size - part->have, used = size < missing ? size : missing;
    if (!part_add(engine, part, data, used))
        return ps__no_memory(engine, conn), size;
    if (part->have == part->head.size)
        part_finish(engine, conn);
    return used;
}

static size_t stash(ps_conn *conn, const uint8_t *data, size_t size)
{
    memcpy(conn->stash, data, size);
    conn->stash_size = (uint8_t)size;
    return size;
}

/* Nearly every frame: there is nothing to judge. For native framing PS_NO_REPLY is the one flag with a meaning. */
static bool is_ordinary(const ps_engine *engine, const ps_conn *conn, const ps_frame *frame)
{
    return frame->kind == PS_SRM && !(frame->flags & ~PS_NO_REPLY) && conn->state == PS_CONN_ESTABLISHED &&
           frame->size <= engine->options.limits.max_payload;
}

static size_t cut_framed(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    bool native = engine->options.framing == PS_NATIVE;
    size_t head = native ? PS_HEADER_SIZE : 4;
    ps_frame frame;
    if (size < head)
        return stash(conn, data, size);
    if (native)
        ps__read_header(data, &frame);
    else
        frame = (ps_frame){.size = ps__get32(data), .kind = PS_SRM};
    enum ps_verdict verdict = is_ordinary(engine, conn, &frame) ? PS_TAKE : ps__judge(engine, conn, &frame);
    switch (verdict) {
    case PS_BROKEN:
        return size;
    case PS_SKIP:
        conn->skip = frame.size;
        conn->flags |= PS_IS_SKIPPING;
        return head;
    default:
        break;
    }
    if (frame.size > size - head) {
        if (!part_begin(engine, conn, &frame, data + head, size - head))
            ps__no_memory(engine, conn);
        return size;
    }
    frame.payload = data + head;
    ps__take_frame(engine, conn, &frame, NULL);
    return head + frame.size;
}

static size_t cut_line(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    uint32_t most = engine->options.limits.max_payload;
    const uint8_t *newline = memchr(data, '\n', size);
    size_t length = newline ? (size_t)(newline - data) : size;
    if (length + (conn->part ? conn->part->have : 0) > most) {
        ps__over_limit(engine, conn);
        return size;
    }
    ps_frame frame = {.payload = data, .size = (uint32_t)length, .kind = PS_SRM};
    if (newline && !conn->part) {
        ps__take_frame(engine, conn, &frame, NULL);
        return length + 1;
    }
    frame.size = most;
    if (conn->part ? !part_add(engine, conn->part, data, length) : !part_begin(engine, conn, &frame, data, length))
        return ps__no_memory(engine, conn), size;
    if (!newline)
        return size;
    part_finish(engine, conn);
    return length + 1;
}

static size_t cut_raw(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    uint32_t most = engine->options.limits.max_payload;
    size = size < most ? size : most;
    ps_frame frame = {.payload = data, .size = (uint32_t)size, .kind = PS_SRM};
    ps__take_frame(engine, conn, &frame, NULL);
    return size;
}

static size_t cut(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    switch (engine->options.framing) {
    case PS_LINE:
        return cut_line(engine, conn, data, size);
    case PS_RAW:
        return cut_raw(engine, conn, data, size);
    default:
        if (conn->flags & PS_IS_SKIPPING)
            return skip_payload(engine, conn, size);
        if (conn->part)
            return continue_part(engine, conn, data, size);
        return cut_framed(engine, conn, data, size);
    }
}

static void hold(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    size_t before = conn->held ? conn->held->size : 0;
    ps_held *held = ps_sys.resize(conn->held, sizeof *held + before + size);
    if (!held) {
        ps__no_memory(engine, conn);
        return;
    }
    held->size = before + size;
    memcpy(held->data + before, data, size);
    conn->held = held;
}

/* Cut all of it. A client that may not go on keeps the rest; one that is ending loses it. */
static void take(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    while (size) {
        if (!ps__reads(engine, conn)) {
            if (conn->state <= PS_CONN_ESTABLISHED)
                hold(engine, conn, data, size);
            return;
        }
        size_t used = cut(engine, conn, data, size);
        data += used;
        size -= used;
    }
}

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

/* The client sends nothing more (0), or the connection is broken. */
static void input_ended(ps_engine *engine, ps_conn *conn, ssize_t result)
{
    if (result == 0)
        ps__end(engine, conn, PS_EV_END_OF_FILE, PS_CLOSED_BY_PEER);
    else if (result == -ENOMEM || result == -ENOBUFS)
        ps__no_memory(engine, conn);
    else if (result != -EAGAIN && result != -EINTR)
        ps__lost(engine, conn, PS_CLOSED_BY_PEER);
}

static void count_input(ps_engine *engine, ps_conn *conn, size_t size)
{
    PS_ADD(conn->bytes_in, size);
    PS_ADD(engine->stats.bytes_in, size);
    if (conn->flags & PS_TIMED_IDLE)
        ps__timer_start(engine, conn, PS_TIMER_IDLE);
}

/* Read on behind a part, and what follows it into the buffer. Returns whether there may be more of the part. */
static bool read_part(ps_engine *engine, ps_conn *conn)
{
    ps_part *part = conn->part;
    if (part->have == part->room && !part_grow(engine, part, 1))
        return ps__no_memory(engine, conn), false;
    size_t here = part->room - part->have;
    struct iovec iov[2] = {{part->data + part->have, here}, {engine->in, PS_READ_MAX}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t got = ps_sys.recvmsg(conn->fd, &message, 0);
    if (got <= 0)
        return input_ended(engine, conn, got), false;
    count_input(engine, conn, (size_t)got);
    size_t inside = (size_t)got < here ? (size_t)got : here;
    part->have += (uint32_t)inside;
    bool more = part->have < part->head.size;
    if (!more)
        part_finish(engine, conn);
    take(engine, conn, engine->in, (size_t)got - inside);
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
        part_finish(engine, conn);
    take(engine, conn, engine->in, got - inside);
}

/* One that doesn't: the pieces are cut one after the other, as if they had come so. */
static void take_pieces(ps_engine *engine, ps_conn *conn, const uint8_t *head, size_t head_size, ps_part *part, size_t got)
{
    size_t inside = got < part->room ? got : part->room;
    conn->flags &= (uint16_t)~PS_TALKS_LARGE;
    take(engine, conn, head, head_size);
    take(engine, conn, part->data, inside);
    size_t stashed = conn->stash_size, behind = got - inside;
    if (stashed && behind) { /* a header may lie across the border of two pieces */
        memmove(engine->in + stashed, engine->in, behind);
        memcpy(engine->in, conn->stash, stashed);
        conn->stash_size = 0;
        behind += stashed;
    }
    take(engine, conn, engine->in, behind);
    free_part(engine, part);
}

static bool read_into_guess(ps_engine *engine, ps_conn *conn, ps_part *part)
{
    uint8_t head[PS_HEADER_SIZE];
    size_t head_size = engine->options.framing == PS_NATIVE ? PS_HEADER_SIZE : 4, room = part->room;
    struct iovec iov[3] = {{head, head_size}, {part->data, room}, {engine->in, PS_READ_MAX}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 3};
    ssize_t got = ps_sys.recvmsg(conn->fd, &message, 0);
    if (got <= 0) {
        free_part(engine, part);
        return input_ended(engine, conn, got), false;
    }
    count_input(engine, conn, (size_t)got);
    size_t whole = (size_t)got, behind = whole > head_size ? whole - head_size : 0;
    ps_frame frame = {.size = 0};
    if (behind && head_size == PS_HEADER_SIZE)
        ps__read_header(head, &frame);
    else if (behind)
        frame = (ps_frame){.size = ps__get32(head), .kind = PS_SRM};
    if (frame.size == room && ps__judge(engine, conn, &frame) == PS_TAKE)
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
    if (!part)
        return ps__no_memory(engine, conn), false;
    *part = (ps_part){.head = {.size = engine->guess}};
    if (part_resize(engine, part, engine->guess))
        return read_into_guess(engine, conn, part);
    ps__free(part);
    return ps__no_memory(engine, conn), false;
}

/* Returns whether there may be more: a short read has emptied the socket, and needs no second call to see it. */
static bool read_plain(ps_engine *engine, ps_conn *conn)
{
    size_t stashed = conn->stash_size;
    if (stashed)
        memcpy(engine->in, conn->stash, stashed);
    ssize_t got = ps_sys.recvfrom(conn->fd, engine->in + stashed, PS_READ_MAX, 0);
    if (got <= 0)
        return input_ended(engine, conn, got), false;
    conn->stash_size = 0;
    count_input(engine, conn, (size_t)got);
    take(engine, conn, engine->in, stashed + (size_t)got);
    return got == PS_READ_MAX;
}

void ps__readable(ps_engine *engine, ps_conn *conn)
{
    uint64_t frames_before = engine->frames, bytes_before = conn->bytes_in;
    ps__output_begin(engine, conn);
    bool lines = engine->options.framing == PS_LINE; /* a line's end is not known: it is searched for in the buffer */
    bool more = true;
    if (may_guess(engine, conn))
        more = read_guessing(engine, conn);
    else if (!conn->part || lines)
        more = read_plain(engine, conn);
    while (more && conn->part && !lines && conn->bytes_in - bytes_before < PS_LARGE_TURN)
        more = read_part(engine, conn);
    time_frame(engine, conn, frames_before);
    ps__output_end(engine, conn);
}

void ps__resume(ps_engine *engine, ps_conn *conn)
{
    ps_held *held = conn->held;
    if (!held || !ps__reads(engine, conn))
        return;
    uint64_t frames_before = engine->frames;
    conn->held = NULL;
    ps__output_begin(engine, conn);
    take(engine, conn, held->data, held->size);
    time_frame(engine, conn, frames_before);
    ps__output_end(engine, conn);
    ps__free(held);
}
