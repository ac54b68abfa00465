/* dismiss.c: a connection is ended by this end of it, as the table of endings says: who is told what, what is counted, and
 * what becomes of replies that aren't sent yet. */
#include "base/causes.h"
#include "base/framing.h"
#include "base/endings.h"
#include "conn/dismiss.h"
#include "conn/life.h"
#include "conn/output.h"

void ps__last_words(ps_engine *engine, ps_conn *conn, enum ps_end end, uint32_t request_id, const char *text)
{
    const ps_said *said = conn->was_let_in ? &ps__endings[end].after : &ps__endings[end].before;
    if (!said->kind || !ps__framing(engine, conn)->has_texts)
        return;
    ps__send_text(engine, conn, said->kind, said->code, said->kind == PS_ERROR ? request_id : 0,
                  said->text ? said->text : text);
}

static enum ps_conn_event event_of(const ps_ending *row, const ps_conn *conn)
{
    if (row->event >= 0)
        return (enum ps_conn_event)row->event;
    return conn->state == PS_CONN_CHALLENGED ? PS_EV_PROOF_REFUSED : PS_EV_CIR_REFUSED;
}

void ps__dismiss(ps_engine *engine, ps_conn *conn, enum ps_end end, uint32_t request_id, const char *text)
{
    const ps_ending *row = &ps__endings[end];
    bool refused = row->before.kind && !conn->was_let_in, speaks = conn->state < PS_CONN_DRAINING;
    if (row->how == PS_HOW_CUT) {
        ps__cut_off(engine, conn, end);
        return;
    }
    if (refused && !speaks) { /* it was refused before, and hasn't taken that: it hears nothing new */
        ps__lost(engine, conn, (enum ps_reason)row->reason);
        return;
    }
    if (row->cause >= 0)
        ps__note(engine, (enum ps_cause)row->cause); /* a log handler may close it: it is told all the same */
    if (refused)
        PS_ADD(engine->stats.refused, 1u);
    else if (row->is_error)
        PS_ADD(engine->stats.errors, 1u);
    if (speaks)
        ps__last_words(engine, conn, end, request_id, text);
    ps__end(engine, conn, event_of(row, conn), (enum ps_reason)row->reason);
    if (row->how != PS_HOW_NOW)
        return;
    ps__send_last(engine, conn);
    ps__lost(engine, conn, (enum ps_reason)row->reason); /* unless that closed it already */
}
