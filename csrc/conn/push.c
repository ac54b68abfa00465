/* push.c: what a handler, or the loop for another thread, makes one client or all of them hear: in the loop, at once. */
#include <errno.h>

#include "conn/life.h"
#include "conn/output.h"
#include "conn/push.h"
#include "table/table.h"

int ps__push(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    bool is_asked = conn->flags & PS_IN_HOOK && conn->state <= PS_CONN_CHALLENGED;
    if (conn->state != PS_CONN_ESTABLISHED && !is_asked)
        return 0;
    if (size > conn->max_reply)
        return -EMSGSIZE;
    PS_ADD(engine->stats.pushes, 1u);
    ps__send(engine, conn, PS_PUSH, 0, 0, data, size, NULL);
    return conn->state != PS_CONN_CLOSED; /* by this one, over its limit */
}

int64_t ps__push_to_all(ps_engine *engine, const uint8_t *data, size_t size)
{
    int64_t reached = 0;
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (conn->state == PS_CONN_ESTABLISHED)
            reached += ps__push(engine, conn, data, size) > 0;
    }
    return reached;
}

int ps__disconnect(ps_engine *engine, ps_conn *conn)
{
    ps__end(engine, conn, PS_EV_DRAIN, PS_CLOSED_BY_SERVER);
    return 1;
}
