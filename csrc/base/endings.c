/* endings.c: how connections end, as a table. pysock/wire/endings.py has the same rows, and says more of each; a test
 * compares them cell by cell. */
#include <stddef.h>

#include "base/endings.h"

#define NOTHING {NULL, 0, 0}
#define REFUSED(code, text) {text, code, PS_CIR_REFUSED}
#define BY_STATE (-1)

const ps_ending ps__endings[PS_ENDS] = {
    [PS_END_VIOLATION] = {REFUSED(PS_REFUSED_MALFORMED, NULL), {NULL, PS_MALFORMED, PS_ERROR}, PS_CAUSE_VIOLATION,
                          PS_EV_VIOLATION, PS_PROTOCOL_VIOLATION, PS_HOW_FLUSH, 1},
    [PS_END_VERSION] = {REFUSED(PS_REFUSED_VERSION, NULL), NOTHING, PS_CAUSE_VIOLATION,
                        PS_EV_VIOLATION, PS_PROTOCOL_VIOLATION, PS_HOW_FLUSH, 0},
    [PS_END_KEY_WANTED] = {REFUSED(PS_REFUSED_PROOF, "this server wants an auth key"), NOTHING, PS_CAUSE_PROOF,
                           BY_STATE, PS_CLOSED_BY_SERVER, PS_HOW_FLUSH, 0},
    [PS_END_WRONG_PROOF] = {REFUSED(PS_REFUSED_PROOF, "wrong proof: the auth keys differ"), NOTHING, PS_CAUSE_PROOF,
                            BY_STATE, PS_CLOSED_BY_SERVER, PS_HOW_FLUSH, 0},
    [PS_END_NOT_LET_IN] = {REFUSED(PS_REFUSED_NOT_ALLOWED, NULL), NOTHING, -1,
                           BY_STATE, PS_CLOSED_BY_SERVER, PS_HOW_FLUSH, 0},
    [PS_END_CIR_LATE] = {REFUSED(PS_REFUSED_TOO_LATE, "the CIR did not come in time"), NOTHING, PS_CAUSE_LATE,
                         BY_STATE, PS_TIMED_OUT, PS_HOW_NOW, 0},
    [PS_END_CROWD] = {REFUSED(PS_REFUSED_TOO_LATE, "too many others wait to be let in"), NOTHING, PS_CAUSE_CROWD,
                      BY_STATE, PS_OVER_A_LIMIT, PS_HOW_NOW, 0},
    [PS_END_FRAME_LATE] = {NOTHING, {"the rest of the frame did not come in time", PS_DEADLINE_PASSED, PS_ERROR},
                           PS_CAUSE_FRAME_LATE, PS_EV_DRAIN, PS_TIMED_OUT, PS_HOW_NOW, 0},
    [PS_END_IDLE] = {NOTHING, {"nothing came for too long", 0, PS_GOAWAY}, PS_CAUSE_IDLE,
                     PS_EV_DRAIN, PS_TIMED_OUT, PS_HOW_NOW, 0},
    [PS_END_OUTPUT_STALLED] = {NOTHING, NOTHING, PS_CAUSE_OUTPUT_STALLED, PS_EV_DRAIN, PS_TIMED_OUT, PS_HOW_CUT, 0},
    [PS_END_OUTPUT_FULL] = {NOTHING, NOTHING, PS_CAUSE_OUTPUT_FULL, PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0},
    [PS_END_NO_MEMORY] = {NOTHING, NOTHING, PS_CAUSE_NO_MEMORY, PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0},
    [PS_END_TOO_LARGE] = {NOTHING, NOTHING, PS_CAUSE_TOO_LARGE, PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_FLUSH, 0},
    [PS_END_STOPPING] = {REFUSED(PS_REFUSED_SHUTTING_DOWN, "the server is shutting down"),
                         {"the server is shutting down", 0, PS_GOAWAY}, -1,
                         PS_EV_DRAIN, PS_SERVER_STOPPING, PS_HOW_FLUSH, 0},
    [PS_END_DOOR_FULL] = {REFUSED(PS_REFUSED_FULL, "the server is full"), NOTHING, PS_CAUSE_FULL,
                          PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0},
    [PS_END_DOOR_PEER] = {REFUSED(PS_REFUSED_FULL, "too many connections from this user or address"), NOTHING,
                          PS_CAUSE_PEER, PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0},
    [PS_END_DOOR_ACCESS] = {REFUSED(PS_REFUSED_NOT_ALLOWED, "not allowed"), NOTHING, PS_CAUSE_ACCESS,
                            PS_EV_DRAIN, PS_CLOSED_BY_SERVER, PS_HOW_CUT, 0},
    [PS_END_DOOR_NO_MEMORY] = {REFUSED(PS_REFUSED_FULL, "the server is full"), NOTHING, PS_CAUSE_NO_MEMORY,
                               PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0},
};

const ps_ending *ps_ending_of(int end)
{
    return end >= 0 && end < PS_ENDS ? &ps__endings[end] : NULL;
}
