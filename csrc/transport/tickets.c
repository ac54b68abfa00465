/* tickets.c: by what sessions are sealed that go on later. A client keeps its session itself, as a ticket that only the server
 * can open (RFC 8446, 4.6.1; RFC 5077): whoever had the key could speak as the server's old clients, and of version 1.2 read
 * what they have said. So it is another one each hour, made from the one before by a hash, which nobody can turn back; and that
 * one opens what it has sealed for one more hour, and is overwritten. Nothing waits for the hour: the first handshake in it does
 * that. All who have been given the same keys come to the same next ones, also a forked child.
 *
 * One lock for all of them: two loops may have the same. Nothing else is done under it, and fork() waits for it. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/sys.h"
#include "transport/tls.h"

_Static_assert(sizeof(ps_ticket_keys) == PS_TICKET_KEYS, "as OpenSSL has them");

enum { HASH = 32 }; /* bytes of SHA-256 */

static pthread_mutex_t tickets_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t watching = PTHREAD_ONCE_INIT;

static void hold_tickets(void)
{
    pthread_mutex_lock(&tickets_lock);
}

static void let_go_of_tickets(void)
{
    pthread_mutex_unlock(&tickets_lock);
}

static void watch_forks(void)
{
    pthread_atfork(hold_tickets, let_go_of_tickets, let_go_of_tickets);
}

ps_tickets *ps_tickets_new(const uint8_t *keys, uint64_t period_ns, uint64_t of)
{
    ps_tickets *tickets = ps_sys.allocate(sizeof *tickets);
    if (!tickets)
        return NULL;
    pthread_once(&watching, watch_forks);
    *tickets = (ps_tickets){.users = 1, .period_ns = period_ns, .period = of};
    memcpy(&tickets->keys, keys, sizeof tickets->keys);
    return tickets;
}

ps_tickets *ps__tickets_share(ps_tickets *tickets)
{
    if (tickets)
        atomic_fetch_add(&tickets->users, 1);
    return tickets;
}

void ps_tickets_drop(ps_tickets *tickets)
{
    if (!tickets || atomic_fetch_sub(&tickets->users, 1) != 1)
        return;
    explicit_bzero(tickets, sizeof *tickets);
    ps__free(tickets);
}

/* -- the next ones ---------------------------------------------------------------------------------------------------- */

static bool next_keys(const ps_ticket_keys *keys, ps_ticket_keys *next)
{
    uint8_t from[sizeof *keys + 1], made[sizeof *keys / HASH + 1][HASH];
    bool good = true;
    memcpy(from, keys, sizeof *keys);
    for (size_t i = 0; i < sizeof made / HASH; i++) {
        from[sizeof *keys] = (uint8_t)i;
        good = good && ps_libssl.EVP_Digest(from, sizeof from, made[i], NULL, ps_libssl.EVP_sha256(), NULL) == 1;
    }
    memcpy(next, made, sizeof *next);
    explicit_bzero(from, sizeof from);
    explicit_bzero(made, sizeof made);
    return good;
}

static bool be_up_to_date(ps_tickets *tickets)
{
    uint64_t period = ps__now_ns() / tickets->period_ns;
    while (tickets->period < period) {
        ps_ticket_keys next;
        if (!next_keys(&tickets->keys, &next))
            return false;
        tickets->before = tickets->keys;
        tickets->keys = next;
        tickets->has_before = true;
        tickets->period++;
        explicit_bzero(&next, sizeof next);
    }
    return true;
}

/* -- what OpenSSL asks ------------------------------------------------------------------------------------------------ */

enum { UNKNOWN = 0, FOUND = 1, FOUND_BEFORE = 2, FAILED = -1 }; /* SSL_CTX_set_tlsext_ticket_key_cb(3) */

static int look_up(ps_tickets *tickets, unsigned char *name, bool seals, ps_ticket_keys *keys)
{
    int found = UNKNOWN;
    pthread_mutex_lock(&tickets_lock);
    if (!be_up_to_date(tickets)) {
        found = seals ? FAILED : UNKNOWN;
    } else if (seals || memcmp(name, tickets->keys.name, sizeof keys->name) == 0) {
        *keys = tickets->keys;
        found = FOUND;
    } else if (tickets->has_before && memcmp(name, tickets->before.name, sizeof keys->name) == 0) {
        *keys = tickets->before;
        found = FOUND_BEFORE;
    }
    pthread_mutex_unlock(&tickets_lock);
    if (found == FOUND && seals)
        memcpy(name, keys->name, sizeof keys->name);
    return found;
}

static bool take_keys(ps_ticket_keys *keys, unsigned char *iv, void *cipher, void *mac, bool seals)
{
    static char hash[] = "SHA256";
    const ps_OSSL_PARAM rules[] = {
        {"key", PS_OSSL_PARAM_OCTET_STRING, keys->mac, sizeof keys->mac, 0},
        {"digest", PS_OSSL_PARAM_UTF8_STRING, hash, sizeof hash - 1, 0},
        {NULL, 0, NULL, 0, 0},
    };
    if (seals && ps_libssl.RAND_bytes(iv, PS_AES_BLOCK) != 1)
        return false;
    if (ps_libssl.EVP_MAC_CTX_set_params(mac, rules) != 1)
        return false;
    if (seals)
        return ps_libssl.EVP_EncryptInit_ex(cipher, ps_libssl.EVP_aes_256_cbc(), NULL, keys->cipher, iv) == 1;
    return ps_libssl.EVP_DecryptInit_ex(cipher, ps_libssl.EVP_aes_256_cbc(), NULL, keys->cipher, iv) == 1;
}

int ps__tickets_seal(ps_SSL *ssl, unsigned char *name, unsigned char *iv, void *cipher, void *mac, int seals)
{
    const ps_tls_session *session = ps_libssl.BIO_get_data(ps_libssl.SSL_get_rbio(ssl));
    ps_ticket_keys keys;
    int found = look_up(session->security->tickets, name, seals, &keys);
    if (found > UNKNOWN && !take_keys(&keys, iv, cipher, mac, seals))
        found = FAILED;
    explicit_bzero(&keys, sizeof keys);
    return found;
}
