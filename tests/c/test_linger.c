/* When the linger polls: each row of tries in vain doubles the waits that don't. */
#include "check.h"
#include "linger.h"

static int waits_that_poll(ps_linger *linger, int waits, uint64_t window_ns, uint64_t slept_ns)
{
    int polls = 0;
    for (int i = 0; i < waits; i++)
        if (ps__linger_now(linger)) {
            polls++;
            ps__linger_miss(linger, window_ns, slept_ns);
        }
    return polls;
}

static void nothing_comes_soon(void)
{
    ps_linger linger = {0};
    CHECK_EQ(waits_that_poll(&linger, 127, 20, 1000), 7); /* the waits 0, 2, 6, 14, 30, 62 and 126 */
    CHECK_EQ(waits_that_poll(&linger, 64000, 20, 1000), 1000);
}

static void something_might(void)
{
    ps_linger linger = {0};
    CHECK_EQ(waits_that_poll(&linger, 4, 20, 99), 4);
    CHECK_EQ(waits_that_poll(&linger, 1, 20, 99), 0);
    CHECK_EQ(waits_that_poll(&linger, 4, 20, 99), 4);
    CHECK_EQ(waits_that_poll(&linger, 3, 20, 99), 0);
}

static void it_comes(void)
{
    ps_linger linger = {0};
    waits_that_poll(&linger, 1000, 20, 1000);
    while (!ps__linger_now(&linger))
        continue;
    for (int i = 0; i < 3; i++)
        ps__linger_hit(&linger);
    CHECK_EQ(waits_that_poll(&linger, 4, 20, 1000), 2); /* as in the beginning */
}

int main(void)
{
    RUN(nothing_comes_soon);
    RUN(something_might);
    RUN(it_comes);
    return 0;
}
