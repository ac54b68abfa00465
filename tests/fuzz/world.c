/* world.c: one run from the engine's birth to its end, and what must be left then: nothing. */
#include "world.h"
#include "loop/engine.h"
#include "loop/turn.h"

world sim;

void world_wrong(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

/* Everything anew, but the memory of the links' buffers. */
void world_reset(void)
{
    link links[WORLD_LINKS];
    memcpy(links, sim.links, sizeof links);
    memset(&sim, 0, sizeof sim);
    for (unsigned i = 0; i < WORLD_LINKS; i++)
        sim.links[i] = (link){.fd = -1, .up = links[i].up, .down = links[i].down, .given = links[i].given};
    sim.now_ns = 1000000000;
}

void world_stop(uint64_t grace_ns)
{
    sim.stopping = true;
    ps_engine_stop(sim.engine, grace_ns);
}

static void check_counters(void)
{
    ps_engine_stats(sim.engine, &sim.last_stats);
    const ps_stats stats = sim.last_stats;
    REQUIRE(stats.clients == 0 && stats.pending == 0);
    REQUIRE(stats.accepted == sim.accepted);
    REQUIRE(stats.established == stats.disconnected && stats.established <= stats.accepted);
    REQUIRE(stats.requests >= sim.requests);
    REQUIRE(sim.gone <= stats.established);
    REQUIRE(!sim.options.watch_disconnects || sim.gone == stats.established);
    REQUIRE(!sim.options.ask_connects || stats.established <= sim.let_in);
    uint64_t taken = 0, given = 0;
    for (unsigned i = 0; i < sim.link_count; i++) {
        taken += sim.links[i].taken;
        given += sim.links[i].down.size;
    }
    REQUIRE(stats.bytes_in <= taken);
    if (!stats.refused) /* who is turned away at the door is told, and that isn't counted */
        REQUIRE(stats.bytes_out >= given);
}

void world_nothing_is_left(void)
{
    REQUIRE(sim.blocks == 0 && sim.objects == 0 && !sim.inside && !sim.kept_count && !sim.streams);
    for (unsigned i = 0; i < sim.fd_count; i++)
        REQUIRE(sim.fds[i].kind == FD_CLOSED);
}

static int run_engine(void)
{
    int result = ps_engine_add_master(sim.engine, kernel_master(), 0);
    REQUIRE(result == 0);
    result = ps__engine_run(sim.engine);
    REQUIRE(result == 0 || (result == -ECANCELED && sim.cancelled) || sim.starved);
    REQUIRE(sim.drained == 1);
    check_counters();
    for (unsigned i = 0; i < sim.link_count; i++)
        invariants_at_the_end(&sim.links[i]);
    return result;
}

int world_run(void)
{
    int result;
    sim.engine = ps__engine_new(&sim.options, &world_hooks, &result);
    REQUIRE(sim.engine || (sim.starved && result == -ENOMEM));
    if (sim.engine) {
        result = run_engine();
        ps__engine_free(sim.engine);
    }
    world_nothing_is_left();
    return result;
}
