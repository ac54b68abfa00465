/* access.c: who a connection comes from, whether they may come in, and how many they have. It happens before a byte is read,
 * from what the kernel says of the other end; what a client says of itself counts for nothing here. Behind a proxy that is
 * trusted the client's address is the one that the proxy has said; so how many it has is looked at then. */
#include <netinet/in.h>
#include <string.h>

#include "base/endings.h"
#include "base/host.h"
#include "base/peers.h"
#include "base/sys.h"
#include "table/access.h"

/* -- who it is ----------------------------------------------------------------------------------------------------- */

static void remember_address(ps_conn *conn, const struct sockaddr *peer)
{
    if (conn->family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)peer;
        memcpy(conn->peer, &v4->sin_addr, sizeof v4->sin_addr);
        conn->peer_port = ntohs(v4->sin_port);
    } else if (conn->family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)peer;
        memcpy(conn->peer, &v6->sin6_addr, sizeof v6->sin6_addr);
        conn->peer_port = ntohs(v6->sin6_port);
    }
}

static ps_peers *table_of(ps_engine *engine, const ps_conn *conn)
{
    return conn->origin == AF_UNIX ? &engine->users : &engine->addresses;
}

static uint32_t most_from_peer(const ps_engine *engine, const ps_conn *conn)
{
    const ps_limits *limits = &engine->options.limits;
    if (conn->origin == AF_UNIX) /* of a process that is a proxy it says nothing */
        return ps__listener(engine, conn)->proxy ? 0 : limits->max_clients_per_uid;
    return conn->origin ? limits->max_clients_per_ip : 0;
}

/* An IPv4 address as the one that it is mapped to in IPv6. */
static void mapped(const ps_conn *conn, uint8_t address[PS_PEER_KEY])
{
    static const uint8_t before[12] = {[10] = 0xFF, [11] = 0xFF};
    bool is_v4 = conn->origin == AF_INET;
    memcpy(address, before, sizeof before);
    memcpy(is_v4 ? address + sizeof before : address, conn->peer, is_v4 ? 4 : PS_PEER_KEY);
}

static bool begins_alike(const uint8_t *address, const uint8_t *other, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(address, other, whole) == 0 && (!rest || (address[whole] ^ other[whole]) >> (8 - rest) == 0);
}

/* What counts as one: a user; an IPv4 address, also one that is mapped into IPv6; the first 64 bits of an IPv6 address,
 * for a machine commonly has all that begin with them (RFC 6177). */
static void key_of(const ps_conn *conn, uint8_t key[PS_PEER_KEY])
{
    static const uint8_t before[12] = {[10] = 0xFF, [11] = 0xFF};
    mapped(conn, key);
    if (conn->origin == AF_UNIX || memcmp(key, before, sizeof before) != 0)
        memset(key + PS_PEER_KEY / 2, 0, PS_PEER_KEY / 2);
}

static void remember_owner(ps_conn *conn, const struct ucred *who)
{
    const ps_owner owner = {.uid = who->uid, .gid = who->gid, .pid_1 = (uint32_t)who->pid + 1};
    memcpy(conn->peer, &owner, sizeof owner);
}

void ps__remember_peer(ps_conn *conn)
{
    struct ucred who;
    socklen_t size = sizeof who;
    ps_owner owner;
    memcpy(&owner, conn->peer, sizeof owner);
    if (conn->origin != AF_UNIX || owner.pid_1)
        return;
    if (ps_sys.getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0)
        remember_owner(conn, &who);
}

/* Of a connection that is closed: what was remembered. */
void ps__peer_credentials(const ps_conn *conn, ps_info *info)
{
    ps_conn copy = {.fd = conn->fd, .origin = conn->origin};
    ps_owner owner;
    memcpy(copy.peer, conn->peer, sizeof copy.peer);
    if (conn->fd >= 0)
        ps__remember_peer(&copy);
    memcpy(&owner, copy.peer, sizeof owner);
    bool known = conn->origin == AF_UNIX && owner.pid_1;
    info->pid = known ? (int64_t)owner.pid_1 - 1 : -1;
    info->uid = known ? (int64_t)owner.uid : -1;
    info->gid = known ? (int64_t)owner.gid : -1;
}

/* -- may they? ----------------------------------------------------------------------------------------------------- */

static bool is_among(uint32_t id, const uint32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

/* The engine's input buffer has room for all the groups that a process can reasonably have: 16,000. */
static bool is_in_group(ps_engine *engine, int fd, gid_t primary)
{
    const ps_options *options = &engine->options;
    socklen_t size = PS_READ_MAX;
    if (!options->gid_count || is_among(primary, options->gids, options->gid_count))
        return options->gid_count;
    if (ps_sys.getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, engine->in, &size) < 0)
        return false;
    for (socklen_t at = 0; at + sizeof(uint32_t) <= size; at += sizeof(uint32_t)) {
        uint32_t group;
        memcpy(&group, engine->in + at, sizeof group);
        if (is_among(group, options->gids, options->gid_count))
            return true;
    }
    return false;
}

static bool is_allowed(ps_engine *engine, int fd, const struct ucred *who)
{
    const ps_options *options = &engine->options;
    if (!options->ask_allow)
        return is_among(who->uid, options->uids, options->uid_count) || is_in_group(engine, fd, who->gid);
    int answer = ps__enter(engine);
    if (answer == 0)
        answer = engine->hooks.allow(engine->hooks.context, who->pid, who->uid, who->gid);
    ps__fail(engine, answer);
    return answer > 0;
}

/* Whether the uid was looked at when it came in. */
static bool has_uid(const ps_engine *engine, const ps_conn *conn)
{
    return ps__listener(engine, conn)->checked || most_from_peer(engine, conn);
}

int64_t ps__peer_uid(const ps_engine *engine, const ps_conn *conn)
{
    ps_conn copy = {.fd = conn->fd, .origin = conn->origin, .peer = {0}};
    ps_owner owner;
    if (conn->origin != AF_UNIX)
        return -1;
    memcpy(copy.peer, conn->peer, sizeof copy.peer);
    if (!has_uid(engine, conn))
        ps__remember_peer(&copy);
    memcpy(&owner, copy.peer, sizeof owner);
    return has_uid(engine, conn) || owner.pid_1 ? (int64_t)owner.uid : -1;
}

static bool user_may(ps_engine *engine, ps_conn *conn)
{
    bool checked = ps__listener(engine, conn)->checked;
    struct ucred who;
    socklen_t size = sizeof who;
    if (!has_uid(engine, conn))
        return true;
    if (ps_sys.getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0)
        return false;
    remember_owner(conn, &who);
    return !checked || is_allowed(engine, conn->fd, &who);
}

/* Of one that has come through another process: it was asked then whether it might. */
void ps__remember_origin(const ps_engine *engine, ps_conn *conn)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    if (conn->family != AF_UNIX && getpeername(conn->fd, (struct sockaddr *)&peer, &size) == 0)
        remember_address(conn, (const struct sockaddr *)&peer);
    else if (conn->family == AF_UNIX && has_uid(engine, conn))
        ps__remember_peer(conn);
}

/* A proxy over TCP. */
static bool is_trusted(const ps_listener *listener, const ps_conn *conn)
{
    uint8_t address[PS_PEER_KEY];
    mapped(conn, address);
    for (uint32_t i = 0; i < listener->trusted_count; i++) {
        if (begins_alike(address, listener->trusted[i].address, listener->trusted[i].bits))
            return true;
    }
    return conn->family == AF_UNIX;
}

int ps__may_connect(ps_engine *engine, ps_conn *conn, const struct sockaddr *peer)
{
    const ps_listener *listener = ps__listener(engine, conn);
    if (conn->family != AF_UNIX)
        remember_address(conn, peer);
    else if (!user_may(engine, conn))
        return PS_END_DOOR_ACCESS;
    if (listener->proxy) /* how many its client has is seen when that is known */
        return is_trusted(listener, conn) ? PS_NO_END : PS_END_DOOR_UNTRUSTED;
    return ps__has_its_share(engine, conn) ? PS_END_DOOR_PEER : PS_NO_END;
}

/* -- how many they have -------------------------------------------------------------------------------------------- */

bool ps__has_its_share(ps_engine *engine, const ps_conn *conn)
{
    uint8_t key[PS_PEER_KEY];
    uint32_t most = most_from_peer(engine, conn);
    if (!most)
        return false;
    key_of(conn, key);
    return ps__peers_count(table_of(engine, conn), key) >= most;
}

int ps__count_peer(ps_engine *engine, ps_conn *conn)
{
    uint8_t key[PS_PEER_KEY];
    if (!most_from_peer(engine, conn))
        return 0;
    key_of(conn, key);
    int error = ps__peers_add(table_of(engine, conn), key);
    if (error == 0)
        conn->counted = 1;
    return error;
}

void ps__uncount_peer(ps_engine *engine, ps_conn *conn)
{
    uint8_t key[PS_PEER_KEY];
    if (!conn->counted)
        return;
    conn->counted = 0;
    key_of(conn, key);
    ps__peers_take(table_of(engine, conn), key);
}
