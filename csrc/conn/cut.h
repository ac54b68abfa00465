/* cut.h: bytes become frames. */
#ifndef PYSOCK_CONN_CUT_H
#define PYSOCK_CONN_CUT_H

#include "core/engine.h"

void ps__cut(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size);
void ps__finish_part(ps_engine *engine, ps_conn *conn);

/* The head of a framing that tells the size. */
static inline void ps__read_head(const ps_framing_facts *framing, const uint8_t *data, ps_frame *frame)
{
    if (framing->name == PS_PYSOCK)
        ps__read_header(data, frame);
    else
        *frame = (ps_frame){.size = ps__get32(data), .kind = PS_SRM};
}

#endif
