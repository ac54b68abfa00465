/* message.c: a message as its framing has it. What goes to many clients is made once, head and all, and waits for them where
 * it lies: each queue has a reference to it. Only the loop counts those; whoever makes it for the loop hands it over. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "base/wire.h"
#include "conn/message.h"

size_t ps__write_head(const ps_framing_facts *framing, uint8_t *to, size_t size, const ps_message_head *head)
{
    if (framing->name == PS_PYSOCK) {
        ps__write_header(to, (uint32_t)size, head->kind, head->flags, head->code, head->request_id);
        return PS_HEADER_SIZE;
    }
    if (framing->name != PS_U32)
        return 0;
    ps__put32(to, (uint32_t)size);
    return 4;
}

ps_shared *ps__shared_new(const ps_framing_facts *framing, const void *data, size_t size)
{
    static const ps_message_head head = {.kind = PS_PUSH};
    ps_shared *shared = ps_sys.allocate(sizeof *shared + PS_HEADER_SIZE + size + 1);
    if (!shared)
        return NULL;
    uint8_t *to = shared->data + ps__write_head(framing, shared->data, size, &head);
    if (size)
        memcpy(to, data, size);
    to += size;
    if (framing->ends_line)
        *to++ = '\n';
    shared->users = 1;
    shared->size = (uint32_t)(to - shared->data);
    return shared;
}

void ps__shared_drop(ps_shared *shared)
{
    if (shared && --shared->users == 0)
        ps__free(shared);
}

int ps__many_make(const ps_engine *engine, const void *data, size_t size, ps_many *many)
{
    *many = (ps_many){.as = {NULL}};
    for (uint32_t i = 0; i < engine->listener_count; i++) {
        const ps_framing_facts *framing = engine->listeners[i].framing;
        if (many->as[framing->name])
            continue;
        many->as[framing->name] = ps__shared_new(framing, data, size);
        if (!many->as[framing->name]) {
            ps__many_drop(many);
            return -ENOMEM;
        }
    }
    return 0;
}

void ps__many_drop(ps_many *many)
{
    for (size_t i = 0; i < sizeof many->as / sizeof *many->as; i++)
        ps__shared_drop(many->as[i]);
}
