/* linger.h: when polling without sleeping pays, for the engine's loop and the client alike.
 *
 * A request that comes while its server polls costs less than one that must wake it (measured at 4 clients with one
 * request each: 2.6 us of processor against 8), and its client waits less. A poll in vain costs its window. Which of the
 * two it will be is tried, as KVM's halt polling does (Linux, Documentation/virt/kvm/halt-polling.rst), and each try in
 * vain doubles the number of waits until the next. The length of the sleep that followed tells little: two ends that both
 * sleep wait for each other's waking, far longer than the window, and find each other within it if one of them polls a
 * few times. Only a sleep that was much longer yet says that there was nothing to find.
 *
 * Whether what is found is worth the polling is another question, trial.h's: it is asked where nobody has said how long to
 * poll. Who gives a number has answered it. */
#ifndef PYSOCK_BASE_LINGER_H
#define PYSOCK_BASE_LINGER_H

#include <stdbool.h>
#include <stdint.h>

#include "pysock.h"
#include "trial.h"

enum {
    PS_LINGER_USUAL_NS = 20 * 1000, /* the window, where no other is asked for */
    PS_LINGER_FAR = 5,        /* windows: nothing comes soon after a sleep that was longer */
    PS_LINGER_TRIES = 4,      /* in a row, where something might */
    PS_LINGER_MISSES_MAX = 6, /* and where it doesn't, one wait in 2^6 polls */
};

typedef struct ps_linger {
    uint64_t window_ns; /* to poll at most; 0: never */
    bool tried;         /* the trial decides, too */
    uint8_t misses; /* rows of tries in vain */
    uint8_t tries;  /* of this row */
    uint8_t skip;   /* waits that are not to poll */
    ps_trial trial;
} ps_linger;

/* PS_LINGER_AUTO: as long as usual, where that pays. */
static inline void ps__linger_init(ps_linger *linger, uint64_t window_ns)
{
    bool tried = window_ns == PS_LINGER_AUTO;
    *linger = (ps_linger){.window_ns = tried ? PS_LINGER_USUAL_NS : window_ns, .tried = tried};
}

/* Is this wait to poll before it sleeps? */
static inline bool ps__linger_now(ps_linger *linger)
{
    if (!linger->window_ns || (linger->tried && !ps__trial_polls(&linger->trial)))
        return false;
    if (!linger->skip)
        return true;
    linger->skip--;
    return false;
}

/* A poll that was to last until end_ns is over. */
static inline void ps__linger_polled(ps_linger *linger, uint64_t end_ns, uint64_t now_ns)
{
    if (linger->tried && now_ns >= end_ns + PS_TRIAL_PREEMPTED_NS)
        ps__trial_preempted(&linger->trial, now_ns, now_ns - end_ns);
}

static inline void ps__linger_hit(ps_linger *linger)
{
    linger->tries = 0;
    linger->misses /= 2;
}

static inline void ps__linger_miss(ps_linger *linger, uint64_t slept_ns)
{
    if (slept_ns < PS_LINGER_FAR * linger->window_ns && ++linger->tries < PS_LINGER_TRIES)
        return;
    linger->tries = 0;
    if (linger->misses < PS_LINGER_MISSES_MAX)
        linger->misses++;
    linger->skip = (uint8_t)((1u << linger->misses) - 1);
}

#endif
