/* check.h: what every C test needs. A test program runs its tests one after the other and returns 0 (passed), 1 (a check
 * failed, said on standard error) or 77 (skipped, and why). */
#ifndef PYSOCK_CHECK_H
#define PYSOCK_CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            check_failed(__FILE__, __LINE__, __func__, #condition); \
    } while (0)

/* Two integers; both are shown where they differ. */
#define CHECK_EQ(got, wanted) \
    do { \
        intmax_t got_ = (intmax_t)(got), wanted_ = (intmax_t)(wanted); \
        if (got_ != wanted_) { \
            fprintf(stderr, "%jd is not %jd: ", got_, wanted_); \
            check_failed(__FILE__, __LINE__, __func__, #got " == " #wanted); \
        } \
    } while (0)

#define RUN(test) \
    do { \
        printf("  %s\n", #test); \
        fflush(stdout); \
        test(); \
    } while (0)

#define SKIP(why) \
    do { \
        printf("  SKIPPED: %s\n", why); \
        exit(77); \
    } while (0)

_Noreturn static inline void check_failed(const char *file, int line, const char *test, const char *what)
{
    fprintf(stderr, "%s:%d: %s: failed: %s\n", file, line, test, what);
    exit(1);
}

/* Numbers that are the same in every run (xorshift64*, Vigna 2016). */
static inline uint64_t random_number(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * 0x2545F4914F6CDD1Du;
}

static inline uint32_t random_below(uint64_t *seed, uint32_t limit)
{
    return (uint32_t)(random_number(seed) % limit);
}

#endif
