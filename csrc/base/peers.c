/* peers.c: how many connections each user, or each address, has: a hash table with linear probing, which exists only where
 * such a limit is set. A peer without connections has no row. */
#include <errno.h>
#include <string.h>

#include "base/mixed.h"
#include "base/peers.h"
#include "base/sys.h"

enum { FIRST_ROOM = 64 };

static uint32_t home(const ps_peers *peers, const uint8_t *key)
{
    uint64_t words[2];
    memcpy(words, key, sizeof words);
    return (uint32_t)ps__mixed(ps__mixed(words[0] ^ peers->seed) ^ words[1]) & (peers->room - 1);
}

/* The row of this peer, or the free one where it would be. */
static uint32_t row_of(const ps_peers *peers, const uint8_t *key)
{
    uint32_t row = home(peers, key);
    while (peers->rows[row].count && memcmp(peers->rows[row].key, key, PS_PEER_KEY) != 0)
        row = (row + 1) & (peers->room - 1);
    return row;
}

static int grow(ps_peers *peers)
{
    ps_peers grown = {.room = peers->room ? 2 * peers->room : FIRST_ROOM, .used = peers->used, .seed = peers->seed};
    grown.rows = ps_sys.allocate(grown.room * sizeof *grown.rows);
    if (!grown.rows)
        return -ENOMEM;
    memset(grown.rows, 0, grown.room * sizeof *grown.rows);
    for (uint32_t row = 0; row < peers->room; row++) {
        if (peers->rows[row].count)
            grown.rows[row_of(&grown, peers->rows[row].key)] = peers->rows[row];
    }
    ps__free(peers->rows);
    *peers = grown;
    return 0;
}

uint32_t ps__peers_count(const ps_peers *peers, const uint8_t *key)
{
    return peers->room ? peers->rows[row_of(peers, key)].count : 0;
}

int ps__peers_add(ps_peers *peers, const uint8_t *key)
{
    int error = 2 * (peers->used + 1) > peers->room ? grow(peers) : 0;
    if (error < 0)
        return error;
    ps_peer *peer = &peers->rows[row_of(peers, key)];
    if (!peer->count) {
        memcpy(peer->key, key, PS_PEER_KEY);
        peers->used++;
    }
    peer->count++;
    return 0;
}

/* The rows behind a freed one move up, or they could not be found any more (Knuth, volume 3, 6.4, algorithm R). */
static void close_gap(ps_peers *peers, uint32_t gap)
{
    uint32_t mask = peers->room - 1;
    for (uint32_t row = (gap + 1) & mask; peers->rows[row].count; row = (row + 1) & mask) {
        uint32_t distance = (row - home(peers, peers->rows[row].key)) & mask;
        if (distance < ((row - gap) & mask))
            continue;
        peers->rows[gap] = peers->rows[row];
        gap = row;
    }
    peers->rows[gap].count = 0;
}

void ps__peers_take(ps_peers *peers, const uint8_t *key)
{
    uint32_t row = row_of(peers, key);
    if (--peers->rows[row].count)
        return;
    peers->used--;
    close_gap(peers, row);
}

void ps__peers_close(ps_peers *peers)
{
    ps__free(peers->rows);
    *peers = (ps_peers){.seed = peers->seed};
}
