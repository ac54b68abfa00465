/* endings.h: how connections end, as a table. pysock/wire/endings.py has the same rows, and says more of each; a test
 * compares them cell by cell. */
#ifndef PYSOCK_BASE_ENDINGS_H
#define PYSOCK_BASE_ENDINGS_H

#include "base/texts.h"
#include "pysock.h"

/* The cells of a ps_ending. endings.c says what NOTHING, REFUSED and BY_STATE are. */
#define PS_ENDINGS(row) \
    row(VIOLATION, REFUSED(PS_REFUSED_MALFORMED, NULL), {NULL, PS_MALFORMED, PS_ERROR}, PS_CAUSE_VIOLATION,            \
        PS_EV_VIOLATION, PS_PROTOCOL_VIOLATION, PS_HOW_FLUSH, 1)                                                       \
    row(VERSION, REFUSED(PS_REFUSED_VERSION, NULL), NOTHING, PS_CAUSE_VIOLATION, PS_EV_VIOLATION,                      \
        PS_PROTOCOL_VIOLATION, PS_HOW_FLUSH, 0)                                                                        \
    row(KEY_WANTED, REFUSED(PS_REFUSED_PROOF, PS_TEXT_KEY_WANTED), NOTHING, PS_CAUSE_PROOF, BY_STATE,                  \
        PS_CLOSED_BY_SERVER, PS_HOW_FLUSH, 0)                                                                          \
    row(WRONG_PROOF, REFUSED(PS_REFUSED_PROOF, PS_TEXT_WRONG_PROOF), NOTHING, PS_CAUSE_PROOF, BY_STATE,                \
        PS_CLOSED_BY_SERVER, PS_HOW_FLUSH, 0)                                                                          \
    row(NOT_LET_IN, REFUSED(PS_REFUSED_NOT_ALLOWED, NULL), NOTHING, -1, BY_STATE, PS_CLOSED_BY_SERVER,                 \
        PS_HOW_FLUSH, 0)                                                                                               \
    row(CIR_LATE, REFUSED(PS_REFUSED_TOO_LATE, PS_TEXT_CIR_TOO_LATE), NOTHING, PS_CAUSE_LATE, BY_STATE,                \
        PS_TIMED_OUT, PS_HOW_NOW, 0)                                                                                   \
    row(CROWD, REFUSED(PS_REFUSED_TOO_LATE, PS_TEXT_CIR_CROWD), NOTHING, PS_CAUSE_CROWD, BY_STATE,                     \
        PS_OVER_A_LIMIT, PS_HOW_NOW, 0)                                                                                \
    row(FRAME_LATE, NOTHING, {PS_TEXT_FRAME_TOO_SLOW, PS_DEADLINE_PASSED, PS_ERROR}, PS_CAUSE_FRAME_LATE,              \
        PS_EV_DRAIN, PS_TIMED_OUT, PS_HOW_NOW, 0)                                                                      \
    row(IDLE, NOTHING, {PS_TEXT_IDLE, 0, PS_GOAWAY}, PS_CAUSE_IDLE, PS_EV_DRAIN, PS_TIMED_OUT, PS_HOW_NOW, 0)          \
    row(OUTPUT_STALLED, NOTHING, NOTHING, PS_CAUSE_OUTPUT_STALLED, PS_EV_DRAIN, PS_TIMED_OUT, PS_HOW_CUT, 0)           \
    row(OUTPUT_FULL, NOTHING, NOTHING, PS_CAUSE_OUTPUT_FULL, PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0)              \
    row(NO_MEMORY, NOTHING, NOTHING, PS_CAUSE_NO_MEMORY, PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0)                  \
    row(TOO_LARGE, NOTHING, NOTHING, PS_CAUSE_TOO_LARGE, PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_FLUSH, 0)                \
    row(STOPPING, REFUSED(PS_REFUSED_SHUTTING_DOWN, PS_TEXT_SHUTTING_DOWN),                                            \
        {PS_TEXT_SHUTTING_DOWN, 0, PS_GOAWAY}, -1, PS_EV_DRAIN, PS_SERVER_STOPPING, PS_HOW_FLUSH, 0)                   \
    row(DOOR_FULL, REFUSED(PS_REFUSED_FULL, PS_TEXT_SERVER_FULL), NOTHING, PS_CAUSE_FULL, PS_EV_DRAIN,                 \
        PS_OVER_A_LIMIT, PS_HOW_CUT, 0)                                                                                \
    row(DOOR_PEER, REFUSED(PS_REFUSED_FULL, PS_TEXT_PEER_FULL), NOTHING, PS_CAUSE_PEER, PS_EV_DRAIN,                   \
        PS_OVER_A_LIMIT, PS_HOW_CUT, 0)                                                                                \
    row(DOOR_ACCESS, REFUSED(PS_REFUSED_NOT_ALLOWED, PS_TEXT_NOT_ALLOWED), NOTHING, PS_CAUSE_ACCESS,                   \
        PS_EV_DRAIN, PS_CLOSED_BY_SERVER, PS_HOW_CUT, 0)                                                               \
    row(DOOR_NO_MEMORY, REFUSED(PS_REFUSED_FULL, PS_TEXT_SERVER_FULL), NOTHING, PS_CAUSE_NO_MEMORY,                    \
        PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0)                                                                   \
    row(REPLACED, NOTHING, {PS_TEXT_REPLACED, 1, PS_GOAWAY}, -1, PS_EV_DRAIN, PS_CLOSED_BY_SERVER, PS_HOW_FLUSH, 0)    \
    row(PUSHES_FULL, NOTHING, NOTHING, PS_CAUSE_PUSHES_FULL, PS_EV_DRAIN, PS_OVER_A_LIMIT, PS_HOW_CUT, 0)              \
    row(ONLY_TLS, REFUSED(PS_REFUSED_VERSION, PS_TEXT_NO_TLS_HERE), NOTHING, PS_CAUSE_ONLY_TLS, PS_EV_VIOLATION,       \
        PS_PROTOCOL_VIOLATION, PS_HOW_FLUSH, 0)                                                                        \
    row(SETTLED, NOTHING, {PS_TEXT_SHUTTING_DOWN, 2, PS_GOAWAY}, -1, PS_EV_DRAIN, PS_SERVER_STOPPING, PS_HOW_FLUSH, 0) \
    row(DOOR_UNTRUSTED, REFUSED(PS_REFUSED_NOT_ALLOWED, PS_TEXT_UNTRUSTED), NOTHING, PS_CAUSE_UNTRUSTED,               \
        PS_EV_DRAIN, PS_CLOSED_BY_SERVER, PS_HOW_CUT, 0)                                                               \
    row(HEADER, REFUSED(PS_REFUSED_MALFORMED, NULL), NOTHING, PS_CAUSE_HEADER, PS_EV_VIOLATION,                        \
        PS_PROTOCOL_VIOLATION, PS_HOW_FLUSH, 0)                                                                        \
    row(ORIGIN, REFUSED(PS_REFUSED_FULL, PS_TEXT_PEER_FULL), NOTHING, PS_CAUSE_PEER, BY_STATE, PS_OVER_A_LIMIT,        \
        PS_HOW_FLUSH, 0)

#define PS_END_OF_ROW(name, ...) PS_END_##name,

enum ps_end { PS_ENDINGS(PS_END_OF_ROW) PS_ENDS }; /* how a connection is ended by this end of it */

extern const ps_ending ps__endings[PS_ENDS];

#endif
