/* The client table: slots, generations, stale ids, the full table; and a million random operations against a model. */
#include <errno.h>

#include "check.h"
#include "base/sys.h"
#include "table/table.h"

static ps_table table;

static void open_table(uint32_t most)
{
    CHECK_EQ(ps__table_open(&table, most), 0);
}

static ps_conn *add(void)
{
    ps_conn *conn = ps__table_add(&table);
    CHECK(conn);
    return conn;
}

static void a_new_row_is_empty(void)
{
    open_table(10);
    ps_conn *conn = add();
    CHECK_EQ(conn->slot, 0);
    CHECK_EQ(conn->generation, 1);
    CHECK_EQ(conn->state, PS_CONN_ACCEPTED);
    CHECK_EQ(conn->fd, -1);
    CHECK(!conn->part && !conn->unread && !conn->out_head && !conn->out_tail && !conn->object && !conn->name);
    CHECK(ps__id(conn) == (uint64_t)1 << 32);
    CHECK(ps__table_find(&table, ps__id(conn)) == conn);
    CHECK_EQ(table.used, 1);
    ps__table_close(&table);
}

static void an_id_has_room_for_the_loop(void)
{
    CHECK_EQ(ps__table_open(&table, (1u << PS_SLOT_BITS) + 1), -EINVAL);
    open_table(1u << PS_SLOT_BITS);
    uint64_t id = ps__id(add());
    CHECK(ps__table_find(&table, id));
    CHECK(!ps__table_find(&table, id | (uint64_t)1 << PS_SLOT_BITS)); /* of another loop */
    ps__table_close(&table);
}

static void a_stale_id_finds_nothing(void)
{
    open_table(1);
    ps_conn *first = add();
    uint64_t stale = ps__id(first);
    ps__table_remove(&table, first);
    CHECK(!ps__table_find(&table, stale) && !ps__table_row(&table, stale));
    ps_conn *second = add();
    CHECK(second == first); /* the slot is used again */
    CHECK(ps__id(second) != stale);
    CHECK(!ps__table_find(&table, stale) && !ps__table_row(&table, stale));
    CHECK(ps__table_find(&table, ps__id(second)) == second);
    ps__table_close(&table);
}

static void ids_that_never_were(void)
{
    open_table(1000);
    ps_conn *conn = add();
    const uint64_t wrong[] = {0, 1, UINT32_MAX, UINT64_MAX, conn->slot, ps__id(conn) + 1, ps__id(conn) + ((uint64_t)1 << 32),
                              ps__id(conn) | 255, ps__id(conn) | 256, ps__id(conn) | 999, ps__id(conn) | UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(!ps__table_find(&table, wrong[i]) && !ps__table_row(&table, wrong[i]));
    ps__table_close(&table);
}

static void a_closed_row_is_still_a_row(void)
{
    open_table(1);
    ps_conn *conn = add();
    conn->state = PS_CONN_CLOSED; /* and not buried yet */
    CHECK(!ps__table_find(&table, ps__id(conn)));
    CHECK(ps__table_row(&table, ps__id(conn)) == conn);
    ps__table_close(&table);
}

static void generation_0_is_never_used(void)
{
    open_table(1);
    ps_conn *conn = add();
    conn->generation = UINT32_MAX;
    ps__table_remove(&table, conn);
    CHECK_EQ(add()->generation, 1);
    ps__table_close(&table);
}

static void a_full_table(void)
{
    static const uint32_t sizes[] = {1, 2, PS_CHUNK_SLOTS - 1, PS_CHUNK_SLOTS, PS_CHUNK_SLOTS + 1, 3 * PS_CHUNK_SLOTS};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        open_table(sizes[i]);
        for (uint32_t k = 0; k < sizes[i]; k++)
            CHECK_EQ(add()->slot, k);
        CHECK(!ps__table_add(&table));
        CHECK_EQ(table.used, sizes[i]);
        CHECK_EQ(table.made, sizes[i]);
        ps_conn *last = ps__slot(&table, sizes[i] - 1);
        ps__table_remove(&table, last);
        CHECK(add() == last);
        CHECK(!ps__table_add(&table));
        ps__table_close(&table);
    }
}

static void a_table_without_room(void)
{
    open_table(0);
    CHECK(!ps__table_add(&table));
    CHECK(!ps__table_find(&table, (uint64_t)1 << 32));
    ps__table_close(&table);
}

/* -- out of memory ------------------------------------------------------------------------------------------------- */

static void *no_memory(size_t size)
{
    (void)size;
    return NULL;
}

static void without_memory(void)
{
    ps_sys_table saved = ps_sys;
    ps_sys.allocate = no_memory;
    CHECK_EQ(ps__table_open(&table, 10), -ENOMEM);
    ps__table_close(&table); /* does no harm */
    ps_sys = saved;
    open_table(10);
    ps_sys.allocate = no_memory;
    CHECK(!ps__table_add(&table));
    CHECK_EQ(table.used, 0);
    ps_sys = saved;
    CHECK_EQ(add()->slot, 0); /* memory is there again */
    ps__table_close(&table);
}

/* -- the model ----------------------------------------------------------------------------------------------------- */

enum { MOST = 700, OPERATIONS = 1000 * 1000 };

static struct {
    uint64_t live[MOST]; /* ids in use, in no order */
    uint32_t count;
    uint32_t generations[MOST]; /* of each slot's last client */
    uint64_t stale[MOST];       /* some ids that are gone */
    bool taken[MOST];
} model;

static void model_add(void)
{
    ps_conn *conn = ps__table_add(&table);
    CHECK((conn == NULL) == (model.count == MOST));
    if (!conn)
        return;
    CHECK(conn->slot < MOST && !model.taken[conn->slot]);
    CHECK(conn->generation > model.generations[conn->slot]);
    CHECK_EQ(conn->state, PS_CONN_ACCEPTED);
    conn->requests = ps__id(conn); /* a mark: what nobody else may change */
    model.taken[conn->slot] = true;
    model.generations[conn->slot] = conn->generation;
    model.live[model.count++] = ps__id(conn);
}

static void model_remove(uint64_t random)
{
    if (!model.count)
        return;
    uint32_t index = (uint32_t)(random % model.count);
    uint64_t id = model.live[index];
    ps_conn *conn = ps__table_find(&table, id);
    CHECK(conn && ps__id(conn) == id && conn->requests == id);
    ps__table_remove(&table, conn);
    model.taken[conn->slot] = false;
    model.stale[conn->slot] = id;
    model.live[index] = model.live[--model.count];
}

static void model_find(uint64_t random)
{
    uint64_t stale = model.stale[random % MOST];
    CHECK(!ps__table_find(&table, stale));
    if (!model.count)
        return;
    uint64_t id = model.live[random % model.count];
    const ps_conn *conn = ps__table_find(&table, id);
    CHECK(conn && ps__id(conn) == id && conn->requests == id);
}

static void a_million_random_operations(void)
{
    uint64_t seed = 20261122;
    bool was_full = false, was_empty = false;
    open_table(MOST);
    for (int i = 0; i < OPERATIONS; i++) {
        uint64_t random = random_number(&seed);
        unsigned adds = i / 10000 % 2 ? 3 : 5; /* of 8: the table fills, then empties */
        if (random % 8 < adds)
            model_add();
        else
            model_remove(random >> 8);
        model_find(random >> 8);
        CHECK_EQ(table.used, model.count);
        was_full |= model.count == MOST;
        was_empty |= i > MOST && model.count == 0;
    }
    CHECK(was_full && was_empty);
    ps__table_close(&table);
}

int main(void)
{
    RUN(a_new_row_is_empty);
    RUN(an_id_has_room_for_the_loop);
    RUN(a_stale_id_finds_nothing);
    RUN(ids_that_never_were);
    RUN(a_closed_row_is_still_a_row);
    RUN(generation_0_is_never_used);
    RUN(a_full_table);
    RUN(a_table_without_room);
    RUN(without_memory);
    RUN(a_million_random_operations);
    return 0;
}
