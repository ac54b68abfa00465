/* meter.h: what is counted for those who look from outside: how many requests each service has had, what became of them, and
 * how long they took. It lies in memory that other processes may see too: pysock/engine/meter.py says where what is.
 *
 * The loop's thread alone writes, without a lock; each number is one word. Nothing of this is touched where nobody asked for
 * it: a server that is measured has another hook for requests, and another loop around its turns.
 *
 * A look at the clock costs a twelfth of a small request that came with many others. So what one client asks of one service
 * in a row, within a turn, is a run: of that the first is timed, and then each 8th with the seven before it, of which each
 * is taken to have lasted as long as the mean; unless one of them must have lasted far longer than those before. */
#ifndef PYSOCK_BASE_METER_H
#define PYSOCK_BASE_METER_H

#include <stdbool.h>

#include "base/sys.h"
#include "base/wire.h"
#include "pysock.h"

/* What became of a request: an error code, or one of these. */
enum { PS_METER_OK = 0, PS_METER_LATER = 0xFF };

typedef struct ps_meter_row {
    uint64_t outcomes[PS_METER_OUTCOMES]; /* PS_METER_OK, the error codes, PS_METER_OTHER, PS_METER_GONE */
    uint64_t sum_ns;
    uint64_t buckets[PS_METER_BUCKETS];
    uint64_t unused[PS_METER_ROW - PS_METER_OUTCOMES - 1 - PS_METER_BUCKETS];
} ps_meter_row;

typedef struct ps_meter {
    uint64_t *counters; /* by enum ps_metered */
    ps_meter_row *rows; /* of each service; the one behind the last is of the numbers that no service has */
    uint32_t services;
    uint8_t outcome;    /* of the current request, so far */
    const ps_frame *current; /* the request that is served or answered now; or NULL */
    /* The run: whose, of what, and since when its last requests weren't looked at the clock for, and how many those are. */
    const void *who;
    uint64_t turn_ns, since_ns, mean_ns;
    uint32_t service, pending, most;
    uint64_t began_ns;    /* the turn */
    uint64_t answered_ns; /* of a batch: when its answers were there */
    uint64_t output_ns; /* when it was last looked how much output waits */
} ps_meter;

int ps__meter_open(ps_meter **meter, uint64_t *counters, uint64_t *rows, uint32_t services);
/* In a forked child, which shares that memory with the parent whose numbers they are. */
void ps__meter_leave(ps_meter *meter);
/* So many requests of this service ended so, each after so long. */
void ps__meter_count(ps_meter *meter, uint32_t service, uint8_t outcome, uint64_t each_ns, uint64_t times);
/* It is answered by this error; of the current one it is counted when that is over, of another one now. */
void ps__meter_error(ps_meter *meter, const ps_frame *frame, uint16_t code);
/* It is answered later. */
void ps__meter_later(ps_meter *meter, const ps_frame *frame);
/* Nobody has waited for the answer. */
void ps__meter_gone(ps_meter *meter, uint32_t service);
/* A request is answered that waited since then. */
void ps__meter_answering(ps_meter *meter, const ps_frame *frame);
void ps__meter_answered(ps_meter *meter, uint64_t began_ns, uint64_t now_ns);
/* A run begins with the next request: the first one of a turn has waited since that began. */
void ps__meter_run(ps_meter *meter, const void *who, uint32_t service, uint64_t turn_ns);
/* Those of the run that weren't looked at the clock for are over. */
void ps__meter_stamp(ps_meter *meter);
/* The run is over: its last request failed, or is answered later; or the turn is over, at that time. */
void ps__meter_broken(ps_meter *meter);
void ps__meter_run_over(ps_meter *meter, uint64_t now_ns);

static inline void ps__meter_begin(ps_meter *meter, const void *who, const ps_frame *frame, uint64_t turn_ns)
{
    if (who != meter->who || frame->code != meter->service)
        ps__meter_run(meter, who, frame->code, turn_ns);
    meter->current = frame;
    meter->outcome = PS_METER_OK;
}

static inline void ps__meter_end(ps_meter *meter)
{
    meter->current = NULL;
    if (meter->outcome != PS_METER_OK)
        ps__meter_broken(meter);
    else if (++meter->pending >= meter->most)
        ps__meter_stamp(meter);
}

#endif
