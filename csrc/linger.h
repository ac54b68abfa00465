/* linger.h: when polling without sleeping pays, for the engine's loop and the client alike.
 *
 * A request that comes while its server polls costs less than one that must wake it (measured at 4 clients with one
 * request each: 2.6 us of processor against 8), and its client waits less. A poll in vain costs its window. Which of the
 * two it will be is tried, as KVM's halt polling does (Linux, Documentation/virt/kvm/halt-polling.rst), and each try in
 * vain doubles the number of waits until the next. The length of the sleep that followed tells little: two ends that both
 * sleep wait for each other's waking, far longer than the window, and find each other within it if one of them polls a
 * few times. Only a sleep that was much longer yet says that there was nothing to find. */
#ifndef PYSOCK_LINGER_H
#define PYSOCK_LINGER_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PS_LINGER_FAR = 5,        /* windows: nothing comes soon after a sleep that was longer */
    PS_LINGER_TRIES = 4,      /* in a row, where something might */
    PS_LINGER_MISSES_MAX = 6, /* and where it doesn't, one wait in 2^6 polls */
};

typedef struct ps_linger {
    uint8_t misses; /* rows of tries in vain */
    uint8_t tries;  /* of this row */
    uint8_t skip;   /* waits that are not to poll */
} ps_linger;

/* Is this wait to poll before it sleeps? */
static inline bool ps__linger_now(ps_linger *linger)
{
    if (!linger->skip)
        return true;
    linger->skip--;
    return false;
}

static inline void ps__linger_hit(ps_linger *linger)
{
    linger->tries = 0;
    linger->misses /= 2;
}

static inline void ps__linger_miss(ps_linger *linger, uint64_t window_ns, uint64_t slept_ns)
{
    if (slept_ns < PS_LINGER_FAR * window_ns && ++linger->tries < PS_LINGER_TRIES)
        return;
    linger->tries = 0;
    if (linger->misses < PS_LINGER_MISSES_MAX)
        linger->misses++;
    linger->skip = (uint8_t)((1u << linger->misses) - 1);
}

#endif
