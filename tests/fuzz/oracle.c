/* oracle.c: what the C engine makes of one client's bytes, as a function: a shared library that Python calls, to hold the
 * engine against the protocol in Python. The struct's members are all 64 bits wide, so that ctypes has it easy. */
#include "world.h"

typedef struct played {
    /* given */
    uint64_t framing, max_payload, max_cir_bytes;
    const uint8_t *bytes;
    const uint64_t *pieces; /* their sizes */
    uint64_t count;
    /* returned; good until the next call */
    const uint8_t *down, *given;
    uint64_t down_size, given_size, reason, requests, errors, refused, violations, established;
} played;

void oracle_play(played *it);

typedef struct position {
    const played *of;
    uint64_t piece;
    const uint8_t *at;
    bool ended;
} position;

static bool step(void *driver)
{
    position *now = driver;
    sim.pause = true;
    if (!sim.link_count) {
        kernel_connect();
    } else if (now->piece < now->of->count) {
        uint64_t size = now->of->pieces[now->piece++];
        kernel_send(&sim.links[0], now->at, size);
        now->at += size;
    } else if (!now->ended) {
        now->ended = sim.links[0].half_closed = true;
    } else {
        return false;
    }
    return true;
}

__attribute__((visibility("default"))) void oracle_play(played *it)
{
    position start = {.of = it, .at = it->bytes};
    world_reset();
    sim.options = (ps_options){
        .limits = {.output_pause = 1 << 30, .output_drop = 1 << 30, .push_hard = 1 << 30, .max_clients = 1, .max_pending_cir = 1,
                   .max_cir_bytes = (uint32_t)it->max_cir_bytes, .max_payload = (uint32_t)it->max_payload,
                   .max_in_flight = 1000, .stream_window = 256 * 1024}, /* the defaults of the Rules that it's held against */
        .framing = (uint32_t)it->framing, .services = WORLD_SERVICES, .welcome = (const uint8_t *)"hello",
        .welcome_size = 5, .watch_disconnects = 1};
    sim.room = 1 << 30;
    sim.only_echoes = true;
    sim.step = step;
    sim.driver = &start;
    world_run();
    ps_stats stats = sim.last_stats;
    const link *client = &sim.links[0];
    it->down = client->down.data;
    it->down_size = client->down.size;
    it->given = client->given.data;
    it->given_size = client->given.size;
    it->reason = client->reason;
    it->requests = stats.requests;
    it->errors = stats.errors;
    it->refused = stats.refused;
    it->violations = stats.causes[PS_CAUSE_VIOLATION];
    it->established = stats.established;
}
