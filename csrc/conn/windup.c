/* windup.c: the server stops, or a client can't stay with it: it is told so, what it has asked for is answered, and then it is
 * closed. */
#include "conn/defer.h"
#include "conn/dismiss.h"
#include "conn/input.h"
#include "conn/life.h"
#include "conn/stream.h"
#include "conn/windup.h"
#include "table/descriptors.h"
#include "table/table.h"

/* What was read is served; what lies in the kernel came too late and is told so: a client learns that it was not run. */
void ps__wind_up(ps_engine *engine, ps_conn *conn)
{
    if (ps__has_foreign_fd(engine, conn)) {
        ps__lost(engine, conn, PS_CLOSED_BY_SERVER);
        return;
    }
    ps__resume(engine, conn);
    if (conn->state == PS_CONN_ESTABLISHED) {
        conn->unsettled = conn->in_flight != 0;
        ps__last_words(engine, conn, conn->unsettled ? PS_END_STOPPING : PS_END_SETTLED, 0, NULL);
        conn->flags |= PS_REFUSES;
        if (conn->state == PS_CONN_ESTABLISHED)
            ps__readable(engine, conn);
    } else if (conn->state < PS_CONN_ESTABLISHED) {
        ps__dismiss(engine, conn, PS_END_STOPPING, 0, NULL);
    }
    ps__defer_end_endless(engine, conn);
    if (!ps__has_streams(engine, conn)) /* else it is read on: they need their CREDITs */
        ps__end(engine, conn, PS_EV_DRAIN, PS_SERVER_STOPPING);
    ps__mark_dirty(engine, conn);
}
