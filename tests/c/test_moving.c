/* Clients move from one engine to another by rows: what each row has, that bytes of another process are never believed, and
 * that where an allocation fails nothing is half done. No loop runs. */
#include "echo.h"
#include "base/sys.h"
#include "conn/life.h"
#include "conn/push.h"
#include "moving/add.h"
#include "moving/hold.h"
#include "moving/pack.h"
#include "moving/row.h"

enum { CLIENTS = 4 };

static ps_sys_table real;
static echo old, new;
static int peers[CLIENTS];
static uint64_t ids[CLIENTS];
static int allocations_left; /* until one fails; negative: none does */

static bool fails(void)
{
    return allocations_left >= 0 && allocations_left-- == 0;
}

static void *failing_allocate(size_t size)
{
    return fails() ? NULL : real.allocate(size);
}

static void *failing_resize(void *block, size_t size)
{
    return fails() ? NULL : real.resize(block, size);
}

static void seat_one(int i)
{
    ps_conn *conn = echo_seat(&old, SOCK_STREAM, &peers[i]);
    conn->reason = PS_NO_REASON;
    conn->max_reply = 1000;
    conn->features = PS_FEATURES;
    old.engine->stats.clients++;
    ids[i] = ps__id(conn);
}

static ps_conn *client(echo *e, int i)
{
    ps_conn *conn = ps__table_find(&e->engine->table, ids[i]);
    CHECK(conn);
    return conn;
}

/* Of each kind one: with a name, a header that is cut off, output that waits, and a payload that is skipped. */
static void begin(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    options.limits.push_soft = 1;
    echo_open(&old, &options, AF_UNIX);
    echo_open(&new, &options, AF_UNIX);
    old.inside = new.inside = old.engine->inside = new.engine->inside = true;
    for (int i = 0; i < CLIENTS; i++)
        seat_one(i);
    client(&old, 0)->name = memcpy(real.allocate(8), "ada\0x/1", 8);
    memcpy(client(&old, 1)->stash, "abcd", 4);
    client(&old, 1)->stash_size = 4;
    client(&old, 3)->skip = 77;
    client(&old, 3)->flags |= PS_IS_SKIPPING;
    CHECK_EQ(ps__hold(old.engine, NULL, 0, ids), CLIENTS);
    CHECK_EQ(ps__push(old.engine, client(&old, 2), (const uint8_t *)"news", 4), 1);
    CHECK_EQ(old.engine->over.first, PS_NO_SLOT); /* too much for long, were it read: but no clock runs */
}

static void end_one(echo *e)
{
    e->inside = e->engine->inside = false;
    ps__engine_free(e->engine);
    CHECK_EQ(ps_socket_close(e->master), 0);
}

static void leave_all(echo *e)
{
    ps__moving_ends(e->engine);
    for (uint32_t slot = e->engine->dead; slot != PS_NO_SLOT; slot = ps__slot(&e->engine->table, slot)->next)
        ps__slot(&e->engine->table, slot)->flags = 0; /* no turn empties the list of the dirty */
    e->engine->dirty = PS_NO_SLOT;
    ps__bury(e->engine);
}

static void end(void)
{
    leave_all(&new);
    leave_all(&old);
    for (int i = 0; i < CLIENTS; i++)
        close(peers[i]);
    end_one(&old);
    end_one(&new);
}

static ps_packed packed(void)
{
    ps_packed rows;
    CHECK_EQ(ps__pack(old.engine, ids, CLIENTS, &rows), 0);
    CHECK_EQ(rows.count, CLIENTS);
    return rows;
}

static int added(const uint8_t *rows, size_t size, const int *fds, size_t count, uint64_t *got)
{
    ps_added add = {.rows = rows, .size = size, .fds = fds, .count = count, .ids = got};
    int error = ps__add(new.engine, &add);
    CHECK((error == -EBADMSG) == (add.why != NULL) || error != -EBADMSG);
    return error;
}

static void copy_fds(const ps_packed *rows, int *copies)
{
    for (size_t i = 0; i < rows->count; i++)
        CHECK((copies[i] = dup(rows->fds[i])) >= 0);
}

static void each_is_as_it_was(void)
{
    begin();
    ps_packed rows = packed();
    int copies[CLIENTS];
    uint64_t got[CLIENTS];
    CHECK_EQ(ps_engine_push(old.engine, ids[0], (const uint8_t *)"news", 4), 0); /* nobody takes it any more */
    CHECK_EQ(ps_engine_broadcast(old.engine, (const uint8_t *)"news", 4), 0);
    CHECK_EQ(ps_engine_disconnect(old.engine, ids[0]), 0);
    copy_fds(&rows, copies);
    CHECK_EQ(added(rows.data, rows.size, copies, CLIENTS, got), 0);
    CHECK(memcmp(got, ids, sizeof got) == 0);
    CHECK(strcmp(client(&new, 0)->name, "ada") == 0);
    CHECK_EQ(client(&new, 1)->unread->size, 4);
    CHECK_EQ(client(&new, 2)->queued, PS_HEADER_SIZE + 4);
    CHECK_EQ(client(&new, 3)->skip, 77);
    CHECK_EQ(echo_stats(&new).clients, CLIENTS);
    CHECK_EQ(added(rows.data, rows.size, copies, CLIENTS, got), -EBADMSG); /* they are there */
    ps__discard(old.engine, ids, CLIENTS);
    CHECK_EQ(echo_stats(&old).clients, 0);
    ps__packed_free(&rows);
    end();
}

static void without_memory(void)
{
    begin();
    ps_packed rows = packed(), again;
    int copies[CLIENTS];
    uint64_t got[CLIENTS];
    copy_fds(&rows, copies);
    ps_sys.allocate = failing_allocate;
    ps_sys.resize = failing_resize;
    int error = -ENOMEM, tries = 0;
    for (; error; tries++) {
        allocations_left = tries;
        error = added(rows.data, rows.size, copies, CLIENTS, got);
        CHECK(error == 0 || error == -ENOMEM);
        CHECK(error == 0 || new.engine->table.used == 0);
        allocations_left = -1;
    }
    CHECK_EQ(tries, 4); /* the name, what was read, what waits; the chunk of the table stays once it is there */
    for (error = -ENOMEM, tries = 0; error; tries++) {
        allocations_left = tries;
        error = ps__pack(old.engine, ids, CLIENTS, &again);
        allocations_left = -1;
    }
    CHECK(tries > 1);
    allocations_left = 0;
    ps__thaw(new.engine); /* it only takes longer */
    allocations_left = -1;
    for (int i = 0; i < CLIENTS; i++)
        CHECK(!(client(&new, i)->flags & (PS_IS_MOVING | PS_OUTPUT_WAITS)) && client(&new, i)->flags & PS_IS_DIRTY);
    CHECK_EQ(ps__hold(new.engine, NULL, 0, got), CLIENTS);
    ps_sys = real;
    ps__packed_free(&again);
    ps__packed_free(&rows);
    end();
}

/* Whatever the bytes are: all of them become clients, or none does. */
static void bytes_that_are_not_believed(void)
{
    begin();
    ps_packed rows = packed();
    uint64_t seed = 1, got[CLIENTS];
    uint8_t *wrong = malloc(rows.size);
    int copies[CLIENTS], refused = 0;
    for (int i = 0; i < 20000; i++) {
        memcpy(wrong, rows.data, rows.size);
        for (uint32_t k = 0; k <= random_below(&seed, 3); k++)
            wrong[random_below(&seed, (uint32_t)rows.size)] = (uint8_t)random_number(&seed);
        size_t size = random_below(&seed, 4) ? rows.size : random_below(&seed, (uint32_t)rows.size + 1);
        uint8_t *exact = malloc(size + 1); /* so that one byte more is seen */
        memcpy(exact, wrong, size);
        exact = realloc(exact, size ? size : 1);
        copy_fds(&rows, copies);
        int error = added(exact, size, copies, CLIENTS, got);
        refused += error < 0;
        CHECK(error == 0 || new.engine->table.used == 0);
        if (error == 0) {
            leave_all(&new);
        } else {
            for (int k = 0; k < CLIENTS; k++)
                close(copies[k]);
        }
        free(exact);
    }
    CHECK(refused > 5000);
    free(wrong);
    ps__packed_free(&rows);
    end();
}

static void places_are_reserved(void)
{
    ps_options options = echo_options(PS_PYSOCK);
    echo_new(&new, &options);
    ps_table *table = &new.engine->table;
    ps_sys.resize = failing_resize;
    allocations_left = 0;
    CHECK_EQ(ps__table_reserve(table, 300, 7), -ENOMEM);
    allocations_left = -1;
    ps_sys = real;
    CHECK_EQ(ps__table_reserve(table, 300, 7), 0);
    ps_conn *conn = ps__table_add(table);
    CHECK(conn && conn->slot == 300 && conn->generation == 8);
    bool taken;
    CHECK(ps__table_take(table, (uint64_t)3 << 32 | 5, &taken));
    CHECK(!ps__table_take(table, (uint64_t)4 << 32 | 5, &taken) && taken);
    CHECK(!ps__table_take(table, (uint64_t)4 << 32 | 1 << 20, &taken) && !taken);
    CHECK_EQ(ps__table_reserve(table, 0, 0), 0);
    CHECK_EQ(ps__table_add(table)->slot, 0);
    CHECK_EQ(ps__table_reserve(table, 1 << 23, 0), -ENOSPC);
    ps__engine_free(new.engine);
}

int main(void)
{
    real = ps_sys;
    allocations_left = -1;
    RUN(each_is_as_it_was);
    RUN(without_memory);
    RUN(bytes_that_are_not_believed);
    RUN(places_are_reserved);
    return 0;
}
