/* The transition tables: each cell is decided, each state can be reached, CLOSED is the end of each way and the end. That
 * they equal pysock/states.py is checked from Python. */
#include <errno.h>

#include "check.h"
#include "conn/life.h"

typedef int (*next_state)(int state, int event);

static const struct machine {
    next_state next;
    int first, closed, states, events;
} machines[] = {
    {ps_server_next, PS_SERVER_NEW, PS_SERVER_CLOSED, PS_SERVER_STATES, PS_SERVER_EVENTS},
    {ps_conn_next, PS_CONN_ACCEPTED, PS_CONN_CLOSED, PS_CONN_STATES, PS_CONN_EVENTS},
};

#define FOR_EACH_MACHINE(m) for (const struct machine *m = machines; m < machines + 2; m++)

static void each_cell_is_decided(void)
{
    FOR_EACH_MACHINE(m)
        for (int state = 1; state < m->states; state++)
            for (int event = 0; event < m->events; event++) {
                int next = m->next(state, event);
                CHECK(next == -EINVAL || (next >= 1 && next < m->states));
            }
}

static void what_is_no_state_or_event(void)
{
    static const int wrong[] = {-1, INT32_MIN, INT32_MAX, 100};
    FOR_EACH_MACHINE(m) {
        for (int event = 0; event < m->events; event++) {
            CHECK_EQ(m->next(0, event), -EINVAL); /* a free slot has state 0 */
            CHECK_EQ(m->next(m->states, event), -EINVAL);
        }
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            CHECK_EQ(m->next(wrong[i], 0), -EINVAL);
            CHECK_EQ(m->next(m->first, wrong[i]), -EINVAL);
        }
        CHECK_EQ(m->next(m->first, m->events), -EINVAL);
    }
}

/* The states that can be reached from this one, as bits. */
static unsigned reachable(const struct machine *m, int from)
{
    unsigned seen = 1u << from, before;
    do {
        before = seen;
        for (int state = 1; state < m->states; state++)
            for (int event = 0; event < m->events && seen >> state & 1; event++)
                if (m->next(state, event) > 0)
                    seen |= 1u << m->next(state, event);
    } while (seen != before);
    return seen;
}

static void each_state_can_be_reached_and_left_for_closed(void)
{
    FOR_EACH_MACHINE(m) {
        CHECK_EQ(reachable(m, m->first), (1u << m->states) - 2);
        for (int state = 1; state < m->states; state++)
            CHECK(reachable(m, state) >> m->closed & 1);
    }
}

static void nothing_leaves_closed(void)
{
    FOR_EACH_MACHINE(m)
        for (int event = 0; event < m->events; event++)
            CHECK_EQ(m->next(m->closed, event), -EINVAL);
}

static void nothing_leads_back_to_the_first_state(void)
{
    FOR_EACH_MACHINE(m)
        for (int state = 1; state < m->states; state++)
            for (int event = 0; event < m->events; event++)
                CHECK(m->next(state, event) != m->first || state == m->first);
}

static void an_srm_is_for_the_established(void)
{
    for (int state = 1; state < PS_CONN_STATES; state++)
        CHECK_EQ(ps_conn_next(state, PS_EV_SRM), state == PS_CONN_ESTABLISHED ? PS_CONN_ESTABLISHED : -EINVAL);
}

static void a_cir_is_accepted_once(void)
{
    for (int state = 1; state < PS_CONN_STATES; state++)
        CHECK_EQ(ps_conn_next(state, PS_EV_CIR_ACCEPTED), state == PS_CONN_ACCEPTED ? PS_CONN_ESTABLISHED : -EINVAL);
}

static void an_illegal_event_changes_nothing(void)
{
    for (int state = 0; state < PS_CONN_STATES; state++)
        for (int event = 0; event < PS_CONN_EVENTS; event++) {
            ps_conn conn = {.state = (uint8_t)state};
            int next = ps_conn_next(state, event);
            CHECK_EQ(ps__conn_event(&conn, (enum ps_conn_event)event), next < 0 ? next : 0);
            CHECK_EQ(conn.state, next < 0 ? state : next);
        }
}

int main(void)
{
    RUN(each_cell_is_decided);
    RUN(what_is_no_state_or_event);
    RUN(each_state_can_be_reached_and_left_for_closed);
    RUN(nothing_leaves_closed);
    RUN(nothing_leads_back_to_the_first_state);
    RUN(an_srm_is_for_the_established);
    RUN(a_cir_is_accepted_once);
    RUN(an_illegal_event_changes_nothing);
    return 0;
}
