/* trial.h: whether polling is worth its price, found out by trying: a while with it, a while without.
 *
 * A poll that finds something may still be a waste. Where requests come by themselves, as from many users, they come no
 * sooner for being answered sooner: all that is bought is the length of a wakening, with a processor that others may
 * need, or that is counted (a cgroup's quota). Where the next request waits for this reply, the same poll pays itself
 * back. No single wait shows which of the two it is; what a request costs does, with polling and without: the processor
 * time of the thread for each request, times the square of the time for each request, the energy-delay-squared product
 * that processors are compared by. Where polling changes nothing about how fast requests come this compares processor
 * time alone; where it makes them come 1.4 times as fast it may cost twice as much.
 *
 * Both are measured in turns, in the order with, without, without, with, so that a load that grows favours neither; each
 * pair has one vote, so that a disturbance spoils one. What was found holds for a while, twice as long each time it is
 * found again. A few milliseconds of the worse of the two in each such while are the price of knowing.
 *
 * A trial is too short to see what comes of polling later: a cgroup whose quota of processor time it uses up is stopped
 * for the rest of a tenth of a second, or neighbours want the processor. Who polls sees that for nothing: the poll ends
 * long after its time. Where too much of the time that was found good for polling is lost so, it ends, and the next trial
 * comes later each time: a quota doesn't go away. */
#ifndef PYSOCK_BASE_TRIAL_H
#define PYSOCK_BASE_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PS_TRIAL_PAIRS = 5,                      /* odd: one of the two has more */
    PS_TRIAL_DONE = 32,                      /* requests at least in each half of a pair, */
    PS_TRIAL_NS = 1000 * 1000,               /* and so much time; */
    PS_TRIAL_MOST_NS = 100 * 1000 * 1000,    /* one that took longer was idle most of it, and is tried again */
    PS_TRIAL_HOLD_NS = 64 * 1000 * 1000,     /* what was found holds so long, at first; */
    PS_TRIAL_HOLDS_MAX = 4,                  /* doubled so often at most, */
    PS_TRIAL_HOLD_TRIALS = 16,               /* and so many times as long as the trial took at least */
    PS_TRIAL_PERCENT = 95,                   /* of the price without polling: what polling must cost less than */
    PS_TRIAL_PREEMPTED_NS = 5 * 1000 * 1000, /* a poll that ends so late was taken off the processor; */
    PS_TRIAL_PREEMPTED_PART = 4,             /* polling ends where more than this part of its time is lost so: it gains less, */
    PS_TRIAL_WITHDRAWN_MAX = 5,              /* for four times as long each time, so often at most */
};

typedef struct ps_trial {
    uint64_t due_ns, due_done; /* what is going on ends when both are reached */
    uint64_t start_ns;         /* of the trial */
    uint64_t ns, cpu_ns, done; /* at the beginning of this half of a pair */
    uint64_t preempted_ns;     /* lost by polls since polling was found to pay */
    double price;              /* of the other half */
    uint8_t half;              /* from 1; 0: none is being measured, what was found holds */
    uint8_t votes;             /* for polling */
    uint8_t holds;             /* times that the same was found in a row */
    uint8_t withdrawn;         /* times that polling didn't last until the next trial, less those that it did */
    bool pays;                 /* what was found */
} ps_trial;

/* With, without, without, with. */
static inline bool ps__trial_polls(const ps_trial *trial)
{
    return trial->half ? !(trial->half & 2) : trial->pays;
}

static inline bool ps__trial_is_due(const ps_trial *trial, uint64_t now_ns, uint64_t done)
{
    return now_ns >= trial->due_ns && done >= trial->due_done;
}

static inline void ps__trial_begin_half(ps_trial *trial, uint64_t now_ns, uint64_t cpu_ns, uint64_t done)
{
    trial->ns = now_ns;
    trial->cpu_ns = cpu_ns;
    trial->done = done;
    trial->due_ns = now_ns + PS_TRIAL_NS;
    trial->due_done = done + PS_TRIAL_DONE;
}

static inline double ps__trial_price(const ps_trial *trial, uint64_t now_ns, uint64_t cpu_ns, uint64_t done)
{
    double count = (double)(done - trial->done), each = (double)(now_ns - trial->ns) / count;
    return (double)(cpu_ns - trial->cpu_ns) / count * each * each;
}

static inline void ps__trial_vote(ps_trial *trial, double price)
{
    if (trial->half & 1) {
        trial->price = price;
        return;
    }
    double with = ps__trial_polls(trial) ? price : trial->price, without = ps__trial_polls(trial) ? trial->price : price;
    trial->votes = (uint8_t)(trial->votes + (100 * with < PS_TRIAL_PERCENT * without));
}

static inline void ps__trial_end(ps_trial *trial, uint64_t now_ns, uint64_t done)
{
    bool pays = trial->votes > PS_TRIAL_PAIRS / 2;
    trial->holds = pays != trial->pays ? 0 : trial->holds < PS_TRIAL_HOLDS_MAX ? (uint8_t)(trial->holds + 1) : trial->holds;
    if (trial->pays && trial->withdrawn)
        trial->withdrawn--;
    trial->pays = pays;
    trial->half = 0;
    trial->preempted_ns = 0;
    uint64_t hold = (uint64_t)PS_TRIAL_HOLD_NS << trial->holds, least = PS_TRIAL_HOLD_TRIALS * (now_ns - trial->start_ns);
    trial->due_ns = now_ns + (hold > least ? hold : least);
    trial->due_done = done;
}

/* What was due has come. cpu_ns is that of the thread, done the requests so far. */
static inline void ps__trial_step(ps_trial *trial, uint64_t now_ns, uint64_t cpu_ns, uint64_t done)
{
    bool begins = !trial->half;
    if (begins) {
        trial->start_ns = now_ns;
        trial->votes = 0;
        trial->half = 1;
    } else if (now_ns - trial->ns > PS_TRIAL_MOST_NS) {
        trial->start_ns += now_ns - trial->ns;
    } else {
        ps__trial_vote(trial, ps__trial_price(trial, now_ns, cpu_ns, done));
        if (trial->half == 2 * PS_TRIAL_PAIRS) {
            ps__trial_end(trial, now_ns, done);
            return;
        }
        trial->half++;
    }
    ps__trial_begin_half(trial, now_ns, cpu_ns, done);
}

/* A poll has ended so much too late, PS_TRIAL_PREEMPTED_NS at least. In a trial the price tells. */
static inline void ps__trial_preempted(ps_trial *trial, uint64_t now_ns, uint64_t late_ns)
{
    if (trial->half || !trial->pays)
        return;
    trial->preempted_ns += late_ns;
    uint64_t until = now_ns > trial->due_ns ? now_ns : trial->due_ns;
    if (PS_TRIAL_PREEMPTED_PART * trial->preempted_ns <= until - trial->start_ns)
        return;
    if (trial->withdrawn < PS_TRIAL_WITHDRAWN_MAX)
        trial->withdrawn++;
    trial->pays = false;
    trial->holds = 0;
    trial->due_ns = now_ns + ((uint64_t)PS_TRIAL_HOLD_NS << 2 * trial->withdrawn);
}

#endif
