/* cut.c: bytes become frames: a cutter for each framing. Each deals with the beginning of the bytes and returns how many of
 * them it has used, at least one; what is no whole frame yet has been put away then, see part.c. */
#include <string.h>

#include "base/sys.h"
#include "base/wire.h"
#include "conn/cut.h"
#include "conn/dismiss.h"
#include "conn/life.h"
#include "conn/part.h"
#include "conn/rules.h"
#include "table/table.h"

/* The part is whole: hand it on. The connection has let go of it before, since a handler may close it. */
void ps__finish_part(ps_engine *engine, ps_conn *conn)
{
    ps_part *part = conn->part;
    ps_frame frame = part->head;
    conn->part = NULL;
    ps__part_forget_guess(engine, part);
    bool as_expected = !frame.deadline_ns == !ps__deadline_size(conn);
    if (part->object && frame.kind == PS_SRM && part->have <= PS_GUESS_MAX && as_expected) {
        conn->flags |= PS_TALKS_LARGE;
        engine->guess = part->have;
    }
    frame.size = part->have;
    frame.payload = part->data;
    if (frame.flags & PS_DEADLINE) {
        ps__take_deadline(&frame, frame.payload);
        frame.payload += PS_DEADLINE_SIZE;
    }
    ps__take_frame(engine, conn, &frame, part->object);
    if (!part->object)
        ps__free(part->data);
    ps__free(part);
}

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
    if (!ps__part_add(engine, part, data, used)) {
        ps__no_memory(engine, conn);
        return size;
    }
    if (part->have == part->head.size)
        ps__finish_part(engine, conn);
    return used;
}

static size_t stash(ps_conn *conn, const uint8_t *data, size_t size)
{
    memcpy(conn->stash, data, size);
    conn->stash_size = size & 0xF;
    return size;
}

/* Nearly every frame: there is nothing to judge. PS_NO_REPLY is the one flag that any client may set. */
static bool is_ordinary(const ps_engine *engine, const ps_conn *conn, const ps_frame *frame)
{
    return frame->kind == PS_SRM && !(frame->flags & ~PS_NO_REPLY) && conn->state == PS_CONN_ESTABLISHED &&
           frame->size <= engine->options.limits.max_payload;
}

static size_t cut_framed(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    const ps_framing_facts *framing = ps__framing(engine, conn);
    size_t head = framing->head_size;
    ps_frame frame;
    if (size < head)
        return stash(conn, data, size);
    ps__read_head(framing, data, &frame);
    enum ps_verdict verdict = is_ordinary(engine, conn, &frame) ? PS_TAKE : ps__judge(engine, conn, &frame);
    switch (verdict) {
    case PS_BROKEN:
        return size;
    case PS_SKIP:
        PS_ADD(ps__tally(&engine->table, conn)->frames_in, 1u);
        conn->skip = frame.size;
        conn->flags |= PS_IS_SKIPPING;
        return head;
    default:
        break;
    }
    if (frame.flags & PS_DEADLINE) {
        frame.deadline_ns = engine->read_ns;
        if (size - head >= PS_DEADLINE_SIZE) {
            ps__take_deadline(&frame, data + head);
            head += PS_DEADLINE_SIZE;
        }
    }
    if (frame.size > size - head) {
        if (!ps__part_begin(engine, conn, &frame, data + head, size - head))
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
        ps__dismiss(engine, conn, PS_END_TOO_LARGE, 0, NULL);
        return size;
    }
    ps_frame frame = {.payload = data, .size = (uint32_t)length, .kind = PS_SRM};
    if (newline && !conn->part) {
        ps__take_frame(engine, conn, &frame, NULL);
        return length + 1;
    }
    frame.size = most;
    if (conn->part ? !ps__part_add(engine, conn->part, data, length) : !ps__part_begin(engine, conn, &frame, data, length)) {
        ps__no_memory(engine, conn);
        return size;
    }
    if (!newline)
        return size;
    ps__finish_part(engine, conn);
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
    switch (ps__framing(engine, conn)->name) {
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

/* Of a client that is paused. */
static void put_aside(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    size_t before = conn->unread ? conn->unread->size : 0;
    ps_unread *unread = ps_sys.resize(conn->unread, sizeof *unread + before + size);
    if (!unread) {
        ps__no_memory(engine, conn);
        return;
    }
    if (!before)
        unread->read_ns = engine->read_ns;
    unread->size = before + size;
    memcpy(unread->data + before, data, size);
    conn->unread = unread;
}

/* Cut all of it. A client that may not go on keeps the rest; one that is ending loses it. */
void ps__cut(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    while (size) {
        if (!ps__reads(engine, conn)) {
            if (conn->state <= PS_CONN_ESTABLISHED)
                put_aside(engine, conn, data, size);
            return;
        }
        size_t used = cut(engine, conn, data, size);
        data += used;
        size -= used;
    }
}
