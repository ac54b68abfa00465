/* Ids of requests in flight: held against a plain table, over thousands of random steps. */
#include "check.h"
#include "base/ids.h"
#include "base/sys.h"

enum { CLIENTS = 10, IDS = 60, STEPS = 200000 };

static uint64_t values[CLIENTS][IDS];

static uint32_t chance(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

static uint64_t client_id(uint32_t client)
{
    return (uint64_t)(client / 3 + 1) << 32 | client;
}

static void all_agree(const ps_ids *ids)
{
    uint32_t used = 0;
    for (uint32_t client = 0; client < CLIENTS; client++) {
        for (uint32_t id = 0; id < IDS; id++) {
            CHECK_EQ(ps__ids_find(ids, client_id(client), id), values[client][id]);
            used += values[client][id] > 0;
        }
    }
    CHECK_EQ(ids->used, used);
}

static void random_steps(void)
{
    ps_ids ids = {.seed = 42};
    uint32_t state = 1;
    for (uint64_t step = 1; step <= STEPS; step++) {
        uint32_t client = chance(&state, CLIENTS), id = chance(&state, IDS);
        uint64_t *value = &values[client][id];
        if (*value) {
            CHECK(!ps__ids_take(&ids, client_id(client), id, step));
            CHECK(ps__ids_take(&ids, client_id(client), id, *value));
            *value = 0;
        } else if (chance(&state, 2)) {
            CHECK(!ps__ids_take(&ids, client_id(client), id, step));
            CHECK(ps__ids_put(&ids, client_id(client), id, step));
            *value = step;
        }
        if (step % 1000 == 0)
            all_agree(&ids);
    }
    ps__ids_close(&ids);
    CHECK_EQ(ids.room, 0);
    CHECK_EQ(ps__ids_find(&ids, 1, 1), 0);
}

static void *no_memory(size_t size)
{
    (void)size;
    return NULL;
}

static void what_is_there_stays_without_memory(void)
{
    ps_ids ids = {.seed = 1};
    ps_sys_table before = ps_sys;
    for (uint32_t id = 0; id < 32; id++)
        CHECK(ps__ids_put(&ids, 7, id, id + 1u));
    ps_sys.allocate = no_memory;
    CHECK(!ps__ids_put(&ids, 7, 32, 33));
    ps_sys = before;
    for (uint32_t id = 0; id < 33; id++)
        CHECK_EQ(ps__ids_find(&ids, 7, id), id < 32 ? id + 1u : 0u);
    ps__ids_close(&ids);
}

int main(void)
{
    RUN(random_steps);
    RUN(what_is_there_stays_without_memory);
    return 0;
}
