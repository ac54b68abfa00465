/* part.c: what is half received of a frame, and what was read of a client that is paused.
 *
 * A connection owns memory for its input only while it has something incomplete:
 * - a header that is cut off is stashed in its slot;
 * - a frame that is cut off becomes its `part`, and what comes next is received straight behind it: for a frame over
 *   PS_LARGE inside the object that the handler will get, so that the kernel's copy is the only one;
 * - whole frames that may not be looked at yet (the client is paused) are `unread`. */
#include <string.h>

#include "base/host.h"
#include "base/sys.h"
#include "conn/part.h"

void ps__part_forget_guess(ps_engine *engine, const ps_part *part)
{
    if (part->guessed)
        engine->guessed -= part->head.size;
}

void ps__part_free(ps_engine *engine, ps_part *part)
{
    if (!part)
        return;
    ps__part_forget_guess(engine, part);
    if (part->object) {
        ps__enter(engine);
        engine->hooks.object_unref(engine->hooks.context, part->object);
    } else {
        ps__free(part->data);
    }
    ps__free(part);
}

void ps__drop_input(ps_engine *engine, ps_conn *conn)
{
    ps__part_free(engine, conn->part);
    conn->part = NULL;
    ps__free(conn->unread);
    conn->unread = NULL;
    conn->stash_size = 0;
    conn->flags &= (uint16_t)~PS_IS_SKIPPING;
}

bool ps__part_resize(ps_engine *engine, ps_part *part, uint32_t room)
{
    void *context = engine->hooks.context;
    if (part->in_object) {
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
bool ps__part_grow(ps_engine *engine, ps_part *part, uint32_t more)
{
    uint64_t needed = (uint64_t)part->have + more, room = part->room ? part->room * 2ull : 4ull * more;
    if (room < needed)
        room = needed;
    if (room < 1024)
        room = 1024;
    if (room > part->head.size)
        room = part->head.size;
    return ps__part_resize(engine, part, (uint32_t)room);
}

/* Begin with the bytes that are here; they are fewer than the frame has. head->size bounds a line, too. */
bool ps__part_begin(ps_engine *engine, ps_conn *conn, const ps_frame *head, const uint8_t *data, size_t size)
{
    ps_part *part = ps_sys.allocate(sizeof *part);
    if (!part)
        return false;
    *part = (ps_part){.head = *head, .in_object = head->size > PS_LARGE && ps__framing(engine, conn)->tells_size &&
                                                !(head->flags & PS_DEADLINE)}; /* the handler gets an object as it is */
    conn->part = part;
    if (!ps__part_grow(engine, part, (uint32_t)size))
        return false;
    memcpy(part->data, data, size);
    part->have = (uint32_t)size;
    return true;
}

bool ps__part_add(ps_engine *engine, ps_part *part, const uint8_t *data, size_t size)
{
    if (size > part->room - part->have && !ps__part_grow(engine, part, (uint32_t)size))
        return false;
    memcpy(part->data + part->have, data, size);
    part->have += (uint32_t)size;
    return true;
}
