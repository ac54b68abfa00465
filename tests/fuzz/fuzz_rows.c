/* fuzz_rows.c: rows of clients that come from another process. Input: four bytes of options, then the rows.
 *
 * Nothing of them is believed: all of them become clients, or none does and nothing is left of any. What they have become is
 * packed again and goes to a second engine: there it must be the same, byte by byte. Then the clients are woken and served,
 * whatever was said of them. */
#include "conn/life.h"
#include "loop/accept.h"
#include "loop/engine.h"
#include "loop/turn.h"
#include "moving/add.h"
#include "moving/hold.h"
#include "moving/pack.h"
#include "moving/row.h"
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CLIENTS = 8 };

typedef struct arrivals {
    int fds[CLIENTS];
    uint64_t ids[CLIENTS];
    size_t count;
} arrivals;

static ps_engine *new_engine(void)
{
    int error;
    ps_engine *engine = ps__engine_new(&sim.options, &world_hooks, &error);
    REQUIRE(engine && ps_engine_add_master(engine, kernel_master(), 0) == 0);
    engine->inside = true; /* no loop runs: this thread is it */
    return engine;
}

/* As many descriptors as there are rows, were their sizes true. */
static size_t count_rows(const uint8_t *rows, size_t size)
{
    size_t count = 0;
    for (size_t at = 0; count < CLIENTS && size - at >= 4; count++) {
        uint32_t length = ps__get32le(rows + at);
        at += length < size - at - 4 ? length + 4 : size - at;
    }
    return count;
}

static void plug_in(arrivals *all, size_t count)
{
    all->count = count;
    for (size_t i = 0; i < count; i++)
        all->fds[i] = kernel_move_in();
}

static int add(ps_engine *engine, arrivals *all, const uint8_t *rows, size_t size)
{
    ps_added added = {.rows = rows, .size = size, .fds = all->fds, .count = all->count, .ids = all->ids};
    int error = ps__add(engine, &added);
    REQUIRE(error == 0 || error == -ENOSPC || (error == -EBADMSG && added.why) || (error == -ENOMEM && sim.starved));
    REQUIRE(engine->table.used == (error ? 0 : all->count));
    REQUIRE(engine->stats.clients + engine->stats.pending == engine->table.used);
    return error;
}

static void pack(ps_engine *engine, const arrivals *all, ps_packed *packed)
{
    REQUIRE(ps__pack(engine, all->ids, all->count, packed) == 0);
    REQUIRE(packed->count == all->count);
}

/* No loop has run. It closes its copies of the descriptors. */
static void end_asleep(ps_engine *engine)
{
    ps__stop_accepting(engine);
    ps__moving_ends(engine);
    for (uint32_t slot = engine->dead; slot != PS_NO_SLOT; slot = ps__slot(&engine->table, slot)->next)
        ps__slot(&engine->table, slot)->flags = 0; /* no turn empties the list of the dirty */
    engine->dirty = PS_NO_SLOT;
    ps__bury(engine);
    engine->inside = false;
    ps__engine_free(engine);
}

static void check_they_move_on(ps_engine *engine, const arrivals *all)
{
    ps_packed first, second;
    arrivals there;
    ps_engine *other = new_engine();
    plug_in(&there, all->count);
    pack(engine, all, &first);
    REQUIRE(add(other, &there, first.data, first.size) == 0);
    REQUIRE(memcmp(there.ids, all->ids, all->count * sizeof *all->ids) == 0);
    pack(other, &there, &second);
    REQUIRE(first.size == second.size && (!first.size || memcmp(first.data, second.data, first.size) == 0));
    end_asleep(other);
    ps__packed_free(&first);
    ps__packed_free(&second);
}

/* What each sends once it is awake. */
static bool step(void *driver)
{
    static const uint8_t bytes[] = {0, 0, 0, 5, PS_SRM, 0, 0, 0, 0, 0, 0, 9, 'h', 'e', 'l', 'l', 'o'};
    unsigned *next = driver;
    if (*next == sim.link_count)
        return false;
    kernel_send(&sim.links[*next], bytes, sizeof bytes);
    sim.links[(*next)++].half_closed = true;
    return true;
}

static void serve(ps_engine *engine, const arrivals *all)
{
    unsigned next = 0;
    sim.step = step;
    sim.driver = &next;
    for (size_t i = 0; i < all->count; i++)
        sim.links[i].id = all->ids[i];
    ps__thaw(engine);
    engine->inside = false;
    int result = ps__engine_run(engine);
    REQUIRE(result == 0 || sim.starved);
    ps_engine_stats(engine, &sim.last_stats);
    REQUIRE(sim.last_stats.clients == 0 && sim.last_stats.pending == 0);
}

static ps_options options_of(const uint8_t options[4])
{
    return (ps_options){
        .limits = {.cir_timeout_ns = 50000000, .frame_timeout_ns = 200000000, .idle_timeout_ns = 1000000000,
                   .output_timeout_ns = 100000000, .output_pause = 1000, .output_drop = 100000, .push_soft = 1000,
                   .push_soft_seconds_ns = 50000000, .push_hard = 100000, .max_clients = options[1] & 4 ? 2 : 100,
                   .max_pending_cir = 100, .max_cir_bytes = 300, .max_payload = options[1] & 8 ? 16 : 20000,
                   .max_in_flight = 5, .stream_window = 5000},
        .framing = options[0] & 3, .has_key = options[0] >> 2 & 1 && !(options[0] & 3), .slow = options[1] % 3,
        .watch_disconnects = 1, .services = WORLD_SERVICES, .welcome = (const uint8_t *)"",
    };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    world_reset();
    sim.moved = sim.only_echoes = true;
    sim.options = options_of(data);
    sim.room = 1 << 20;
    arrivals all;
    ps_engine *engine = sim.engine = new_engine();
    plug_in(&all, count_rows(data + 4, size - 4));
    sim.fail_allocation = data[2];
    int error = add(engine, &all, data + 4, size - 4);
    sim.fail_allocation = 0;
    if (error == 0) {
        check_they_move_on(engine, &all);
        serve(engine, &all);
    }
    for (size_t i = 0; i < all.count; i++)
        if (error)
            ps_sys.close(all.fds[i]);
    if (error)
        end_asleep(engine);
    else
        ps__engine_free(engine);
    kernel_close_masters();
    world_nothing_is_left();
    return 0;
}
