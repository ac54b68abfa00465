/* meter.c: requests, counted by service, outcome and time; see meter.h. */
#include "base/meter.h"

#include <errno.h>
#include <string.h>

enum {
    FIRST_NS = 1024,      /* the least time that is told from shorter ones: 2 to the power of FIRST_BIT */
    FIRST_BIT = 10,
    RUN_STAMP = 8,        /* of a run, each 8th is timed */
    STANDS_OUT_NS = 64 * 1024, /* one request that takes so much longer than those before it isn't spread over them */
};

_Static_assert(sizeof(ps_meter_row) == PS_METER_ROW * sizeof(uint64_t), "as pysock/engine/meter.py has it");

int ps__meter_open(ps_meter **meter, uint64_t *counters, uint64_t *rows, uint32_t services)
{
    *meter = ps_sys.allocate(sizeof **meter);
    if (!*meter)
        return -ENOMEM;
    memset(*meter, 0, sizeof **meter);
    (*meter)->counters = counters;
    (*meter)->rows = (ps_meter_row *)rows;
    (*meter)->services = services;
    return 0;
}

void ps__meter_leave(ps_meter *meter)
{
    static uint64_t counters[PS_M_COUNTERS];
    static ps_meter_row row;
    meter->counters = counters;
    meter->rows = &row;
    meter->services = 0;
}

/* Others read it meanwhile. */
static void count(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static ps_meter_row *service_row(const ps_meter *meter, uint32_t service)
{
    return &meter->rows[service < meter->services ? service : meter->services];
}

/* Four buckets to each power of two. */
static unsigned bucket_of(uint64_t ns)
{
    if (ns < FIRST_NS)
        return 0;
    unsigned bit = 63u - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (bit - FIRST_BIT) * 4u + (unsigned)(ns >> (bit - 2u) & 3u);
    return bucket < PS_METER_BUCKETS ? bucket : PS_METER_BUCKETS - 1u;
}

static uint8_t outcome_of(uint16_t code)
{
    return code && code < PS_METER_OTHER ? (uint8_t)code : PS_METER_OTHER;
}

void ps__meter_count(ps_meter *meter, uint32_t service, uint8_t outcome, uint64_t each_ns, uint64_t times)
{
    ps_meter_row *row = service_row(meter, service);
    count(&row->outcomes[outcome], times);
    count(&row->sum_ns, each_ns * times);
    count(&row->buckets[bucket_of(each_ns)], times);
}

void ps__meter_error(ps_meter *meter, const ps_frame *frame, uint16_t code)
{
    if (frame == meter->current)
        meter->outcome = outcome_of(code);
    else
        count(&service_row(meter, frame->code)->outcomes[outcome_of(code)], 1);
}

void ps__meter_later(ps_meter *meter, const ps_frame *frame)
{
    if (frame == meter->current)
        meter->outcome = PS_METER_LATER;
}

void ps__meter_gone(ps_meter *meter, uint32_t service)
{
    count(&service_row(meter, service)->outcomes[PS_METER_GONE], 1);
}

void ps__meter_answering(ps_meter *meter, const ps_frame *frame)
{
    meter->current = frame;
    meter->outcome = PS_METER_OK;
}

void ps__meter_answered(ps_meter *meter, uint64_t began_ns, uint64_t now_ns)
{
    uint64_t took = now_ns > began_ns ? now_ns - began_ns : 0;
    if (meter->outcome != PS_METER_LATER)
        ps__meter_count(meter, meter->current->code, meter->outcome, took, 1);
    meter->current = NULL;
}

/* -- runs ---------------------------------------------------------------------------------------------------------- */

/* Those that weren't timed are over at that time, together with others: or not before them, if `most` is less. */
static void count_pending(ps_meter *meter, uint64_t took_ns, bool all)
{
    uint64_t times = meter->pending, usual = meter->mean_ns * times;
    if (!times)
        return;
    if (meter->mean_ns && took_ns > usual + STANDS_OUT_NS) {
        ps__meter_count(meter, meter->service, PS_METER_OK, took_ns - (usual - meter->mean_ns), 1);
        if (times > 1)
            ps__meter_count(meter, meter->service, PS_METER_OK, meter->mean_ns, times - 1);
    } else {
        uint64_t mean = times == RUN_STAMP ? took_ns / RUN_STAMP : took_ns / times;
        uint64_t each = all ? mean : meter->mean_ns < mean ? meter->mean_ns : mean;
        ps__meter_count(meter, meter->service, PS_METER_OK, each, times);
        if (all)
            meter->mean_ns = each;
    }
    meter->pending = 0;
}

void ps__meter_stamp(ps_meter *meter)
{
    uint64_t now = ps__now_ns();
    count_pending(meter, now - meter->since_ns, true);
    meter->since_ns = now;
    meter->most = RUN_STAMP;
}

/* Answers are sent between the last request of a run and what follows: that isn't theirs. */
void ps__meter_run_over(ps_meter *meter, uint64_t now_ns)
{
    count_pending(meter, now_ns - meter->since_ns, false);
    meter->who = NULL;
    meter->mean_ns = 0;
}

void ps__meter_run(ps_meter *meter, const void *who, uint32_t service, uint64_t turn_ns)
{
    uint64_t now = meter->turn_ns == turn_ns ? ps__now_ns() : turn_ns;
    ps__meter_run_over(meter, now);
    meter->who = who;
    meter->service = service;
    meter->turn_ns = turn_ns;
    meter->since_ns = now;
    meter->most = 1;
    __atomic_store_n(&meter->counters[PS_M_CALLED], service, __ATOMIC_RELAXED);
}

void ps__meter_broken(ps_meter *meter)
{
    uint64_t now = ps__now_ns(), took = now - meter->since_ns, before = meter->mean_ns * meter->pending;
    uint64_t last = took > before ? took - before : 0;
    if (meter->outcome != PS_METER_LATER)
        ps__meter_count(meter, meter->service, meter->outcome, last, 1);
    count_pending(meter, took - last, false);
    meter->who = NULL;
    meter->mean_ns = 0;
}
