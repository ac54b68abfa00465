/* slow.c: what becomes of a client for which too many pushes wait: more than the hard limit, or more than the soft one for
 * some time. One may always wait, however large it is. */
#include "base/endings.h"
#include "conn/life.h"
#include "conn/slow.h"
#include "table/backlog.h"

bool ps__slow_takes(ps_engine *engine, ps_conn *conn, size_t size)
{
    const ps_backlog *row = ps__backlog(engine, conn);
    if (!row) {
        ps__no_memory(engine, conn);
        return false;
    }
    if (row->waiting && row->waiting + size + PS_PUSH_COST > engine->options.limits.push_hard) {
        ps__cut_off(engine, conn, PS_END_PUSHES_FULL);
        return false;
    }
    ps__backlog_add(engine, conn, size);
    return true;
}

void ps__slow_end(ps_engine *engine)
{
    for (ps_conn *late; (late = ps__backlog_late(engine)) != NULL;)
        ps__cut_off(engine, late, PS_END_PUSHES_FULL);
}
