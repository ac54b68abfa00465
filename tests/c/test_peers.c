/* Connections counted by peer: held against plain counting, over thousands of random steps. */
#include <errno.h>

#include "check.h"
#include "base/peers.h"
#include "base/sys.h"

enum { KINDS = 300, STEPS = 200000 };

static uint32_t counts[KINDS];

static void make_key(uint8_t *key, uint32_t kind)
{
    memset(key, 0, PS_PEER_KEY);
    memcpy(key, &kind, sizeof kind);
}

static uint32_t chance(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

static void all_agree(const ps_peers *peers)
{
    uint32_t used = 0;
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        uint8_t key[PS_PEER_KEY];
        make_key(key, kind);
        CHECK_EQ(ps__peers_count(peers, key), counts[kind]);
        used += counts[kind] > 0;
    }
    CHECK_EQ(peers->used, used);
}

static void random_steps(void)
{
    ps_peers peers = {.seed = 42};
    uint32_t state = 1;
    for (int step = 0; step < STEPS; step++) {
        uint32_t kind = chance(&state, KINDS);
        uint8_t key[PS_PEER_KEY];
        make_key(key, kind);
        if (counts[kind] && chance(&state, 2)) {
            ps__peers_take(&peers, key);
            counts[kind]--;
        } else if (counts[kind] < 3) {
            CHECK_EQ(ps__peers_add(&peers, key), 0);
            counts[kind]++;
        }
        if (step % 1000 == 0)
            all_agree(&peers);
    }
    all_agree(&peers);
    ps__peers_close(&peers);
    CHECK_EQ(peers.room, 0);
}

static void *no_memory(size_t size)
{
    (void)size;
    return NULL;
}

static void without_memory(void)
{
    ps_sys_table before = ps_sys;
    ps_peers peers = {.seed = 1};
    uint8_t key[PS_PEER_KEY] = {1};
    ps_sys.allocate = no_memory;
    CHECK_EQ(ps__peers_add(&peers, key), -ENOMEM);
    CHECK_EQ(ps__peers_count(&peers, key), 0);
    ps_sys = before;
    CHECK_EQ(ps__peers_add(&peers, key), 0);
    CHECK_EQ(ps__peers_count(&peers, key), 1);
    ps__peers_close(&peers);
}

int main(void)
{
    RUN(random_steps);
    RUN(without_memory);
    return 0;
}
