/* cut.h: bytes become frames. */
#ifndef PYSOCK_CONN_CUT_H
#define PYSOCK_CONN_CUT_H

#include "core/engine.h"

void ps__cut(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size);
void ps__finish_part(ps_engine *engine, ps_conn *conn);

/* What lies between the head and the payload of a request, of a client that speaks of deadlines. */
static inline size_t ps__deadline_size(const ps_conn *conn)
{
    return conn->features & PS_FEATURE_DEADLINE ? PS_DEADLINE_SIZE : 0;
}

/* Its bytes are here: from the moment it counts from, deadline_ns becomes the one when it ends. */
static inline void ps__take_deadline(ps_frame *frame, const uint8_t *bytes)
{
    frame->deadline_ns += ps__get32(bytes) * 1000ull;
    frame->size -= PS_DEADLINE_SIZE;
    frame->flags &= (uint8_t)~PS_DEADLINE;
}

/* The head of a framing that tells the size. */
static inline void ps__read_head(const ps_framing_facts *framing, const uint8_t *data, ps_frame *frame)
{
    if (framing->name == PS_PYSOCK)
        ps__read_header(data, frame);
    else
        *frame = (ps_frame){.size = ps__get32(data), .kind = PS_SRM};
}

#endif
