/* push.c: what a handler, or the loop for another thread, makes one client or all of them hear: in the loop, at once. */
#include <errno.h>

#include "conn/life.h"
#include "conn/message.h"
#include "conn/output.h"
#include "conn/push.h"
#include "table/table.h"

/* It is asked whether it may come in; or held, and its row not given away. */
static bool may_wait(const ps_conn *conn)
{
    if (conn->flags & PS_IS_MOVING)
        return conn->state == PS_CONN_ESTABLISHED && !ps__is_packed(conn);
    return conn->state <= PS_CONN_ESTABLISHED;
}

/* 1: it takes so much now; 0: it isn't there; -EMSGSIZE. */
static int takes(const ps_conn *conn, size_t size)
{
    bool waits = conn->flags & PS_OUTPUT_WAITS;
    if (waits ? !may_wait(conn) : conn->state != PS_CONN_ESTABLISHED)
        return 0;
    return size > conn->max_reply ? -EMSGSIZE : 1;
}

int ps__push(ps_engine *engine, ps_conn *conn, const uint8_t *data, size_t size)
{
    int may = takes(conn, size);
    if (may <= 0)
        return may;
    PS_ADD(engine->stats.pushes, 1u);
    ps__send_push(engine, conn, data, size);
    return conn->state != PS_CONN_CLOSED; /* by this one, over its limit */
}

/* What many get: whether this one does. */
static bool push_shared(ps_engine *engine, ps_conn *conn, const ps_many *many, size_t size)
{
    if (takes(conn, size) <= 0)
        return false;
    PS_ADD(engine->stats.pushes, 1u);
    ps__send_shared(engine, conn, many->as[ps__framing(engine, conn)->name]);
    return conn->state != PS_CONN_CLOSED;
}

int64_t ps__push_to_all(ps_engine *engine, const ps_many *many, size_t size)
{
    int64_t reached = 0;
    for (uint32_t slot = 0; slot < engine->table.made; slot++) {
        ps_conn *conn = ps__slot(&engine->table, slot);
        if (conn->state == PS_CONN_ESTABLISHED)
            reached += push_shared(engine, conn, many, size);
    }
    return reached;
}

int64_t ps__push_to(ps_engine *engine, const uint64_t *ids, size_t count, const ps_many *many, size_t size)
{
    int64_t reached = 0;
    for (size_t i = 0; i < count; i++) {
        ps_conn *conn = ps__table_find(&engine->table, ids[i]);
        reached += conn && push_shared(engine, conn, many, size);
    }
    return reached;
}

int ps__ask(ps_engine *engine, ps_conn *conn, const uint8_t *frame, size_t size, size_t request)
{
    if (conn->state != PS_CONN_ESTABLISHED || ps__is_packed(conn))
        return 0;
    if (!(conn->features & PS_FEATURE_ASK))
        return -EOPNOTSUPP;
    if (request > conn->max_reply)
        return -EMSGSIZE;
    ps__send_ready(engine, conn, frame, size);
    return conn->state != PS_CONN_CLOSED; /* as for a push */
}

int ps__disconnect(ps_engine *engine, ps_conn *conn)
{
    if (ps__is_packed(conn))
        return 0;
    ps__end(engine, conn, PS_EV_DRAIN, PS_CLOSED_BY_SERVER);
    return 1;
}
