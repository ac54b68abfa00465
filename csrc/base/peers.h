/* peers.h: how many connections each user, or each address, has; a key has PS_PEER_KEY bytes. */
#ifndef PYSOCK_BASE_PEERS_H
#define PYSOCK_BASE_PEERS_H

#include <stdint.h>

enum { PS_PEER_KEY = 16 };

typedef struct ps_peer {
    uint8_t key[PS_PEER_KEY];
    uint32_t count; /* of its connections; 0: a free row */
} ps_peer;

typedef struct ps_peers {
    ps_peer *rows;
    uint32_t room, used; /* room: a power of two, or 0 */
    uint64_t seed;
} ps_peers;

uint32_t ps__peers_count(const ps_peers *peers, const uint8_t *key);
int ps__peers_add(ps_peers *peers, const uint8_t *key);
void ps__peers_take(ps_peers *peers, const uint8_t *key);
void ps__peers_close(ps_peers *peers);

#endif
