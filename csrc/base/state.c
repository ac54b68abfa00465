/* state.c: the two transition tables, the same as in pysock/states.py (rules and theory are there; a test compares the
 * two cell by cell). 0 in a cell = the event is illegal in that state. */
#include <errno.h>

#include "base/state.h"

static const uint8_t server_table[PS_SERVER_STATES][PS_SERVER_EVENTS] = {
    [PS_SERVER_NEW] = {[PS_SERVER_CREATE] = PS_SERVER_CREATED,
                       [PS_SERVER_ADOPT] = PS_SERVER_LISTENING,
                       [PS_SERVER_CLOSE] = PS_SERVER_CLOSED},
    [PS_SERVER_CREATED] = {[PS_SERVER_BIND] = PS_SERVER_BOUND, [PS_SERVER_CLOSE] = PS_SERVER_CLOSED},
    [PS_SERVER_BOUND] = {[PS_SERVER_LISTEN] = PS_SERVER_LISTENING, [PS_SERVER_CLOSE] = PS_SERVER_CLOSED},
    [PS_SERVER_LISTENING] = {[PS_SERVER_SERVE] = PS_SERVER_SERVING, [PS_SERVER_CLOSE] = PS_SERVER_CLOSED},
    [PS_SERVER_SERVING] = {[PS_SERVER_DRAIN] = PS_SERVER_DRAINING, [PS_SERVER_CLOSE] = PS_SERVER_CLOSED},
    [PS_SERVER_DRAINING] = {[PS_SERVER_CLOSE] = PS_SERVER_CLOSED},
};

#define ENDINGS \
    [PS_EV_BYE] = PS_CONN_DRAINING, [PS_EV_END_OF_FILE] = PS_CONN_DRAINING, [PS_EV_VIOLATION] = PS_CONN_DRAINING, \
    [PS_EV_DRAIN] = PS_CONN_DRAINING, [PS_EV_LOST] = PS_CONN_CLOSED

const uint8_t ps__conn_table[PS_CONN_STATES][PS_CONN_EVENTS] = {
    [PS_CONN_ACCEPTED] = {[PS_EV_CIR_ACCEPTED] = PS_CONN_ESTABLISHED,
                          [PS_EV_CIR_CHALLENGED] = PS_CONN_CHALLENGED,
                          [PS_EV_CIR_REFUSED] = PS_CONN_DRAINING,
                          [PS_EV_PING] = PS_CONN_ACCEPTED,
                          ENDINGS},
    [PS_CONN_CHALLENGED] = {[PS_EV_PROOF_ACCEPTED] = PS_CONN_ESTABLISHED,
                            [PS_EV_PROOF_REFUSED] = PS_CONN_DRAINING,
                            [PS_EV_PING] = PS_CONN_CHALLENGED,
                            ENDINGS},
    [PS_CONN_ESTABLISHED] = {[PS_EV_SRM] = PS_CONN_ESTABLISHED, [PS_EV_PING] = PS_CONN_ESTABLISHED, ENDINGS},
    [PS_CONN_DRAINING] = {[PS_EV_END_OF_FILE] = PS_CONN_DRAINING,
                          [PS_EV_DRAIN] = PS_CONN_DRAINING,
                          [PS_EV_FLUSHED] = PS_CONN_CLOSED,
                          [PS_EV_LOST] = PS_CONN_CLOSED},
};

#ifndef PYSOCK_ABI
#define PYSOCK_ABI 0 /* the C tests need none */
#endif

uint64_t ps_abi(void)
{
    return PYSOCK_ABI;
}

int ps_server_next(int state, int event)
{
    if (state < 0 || state >= PS_SERVER_STATES || event < 0 || event >= PS_SERVER_EVENTS)
        return -EINVAL;
    int next = server_table[state][event];
    return next ? next : -EINVAL;
}

int ps_conn_next(int state, int event)
{
    if (state < 0 || state >= PS_CONN_STATES || event < 0 || event >= PS_CONN_EVENTS)
        return -EINVAL;
    int next = ps__conn_table[state][event];
    return next ? next : -EINVAL;
}
