/* Tickets of libssl's sessions: how long one is good for, by whom, and what becomes of a client where a function that seals or
 * opens one fails. */
#include "tls.h"
#include "transport/tls.h"

enum { HOURS = 8 }; /* that have gone by since the machine has begun: an hour of these tests is an eighth of that time */

static echo server;
static ps_tickets *tickets;

static void begin(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    tickets = ps_tickets_new((const uint8_t *)TLS_TICKETS, ps__now_ns() / HOURS, HOURS);
    CHECK(tickets);
    tls_serve_with(&server, &options, PS_VERIFY_NONE, tickets);
}

static void end(void)
{
    echo_end(&server);
    ps_tickets_drop(tickets);
    ps_libssl = tls_real;
}

/* As if the keys were an hour older. */
static void an_hour_goes_by(void)
{
    tickets->period--;
}

/* A client that would go on with this session, or with none: whether it did, and what the next one may go on with. */
static bool visit(void *before, void **next)
{
    int fd = echo_plug(&server);
    ps_SSL *ssl = tls_client(fd);
    CHECK(!before || of_client.SSL_set_session(ssl, before) == 1);
    CHECK_EQ(of_client.SSL_connect(ssl), 1);
    CHECK(tls_hello(ssl)); /* the ticket comes before it */
    bool went_on = tls_real.SSL_session_reused(ssl);
    tls_served(ssl, 1, "hello", 5);
    if (next)
        *next = of_client.SSL_get1_session(ssl);
    tls_leave(ssl, fd);
    return went_on;
}

static void good_for_an_hour_and_one_more(void)
{
    void *first, *second, *third;
    begin();
    CHECK(!visit(NULL, &first));
    CHECK(visit(first, NULL));
    an_hour_goes_by();
    CHECK(visit(first, &second)); /* which is sealed by the new keys */
    an_hour_goes_by();
    CHECK(!visit(first, NULL));
    CHECK(visit(second, &third));
    an_hour_goes_by();
    an_hour_goes_by();
    CHECK(!visit(third, NULL));
    of_client.SSL_SESSION_free(first);
    of_client.SSL_SESSION_free(second);
    of_client.SSL_SESSION_free(third);
    end();
}

/* Also of those that were handed over late: they open what was sealed in their own hour, and in that before, as it was there. */
static void keys_of_another_hour(void)
{
    void *before, *now;
    begin();
    CHECK(!visit(NULL, &before));
    an_hour_goes_by();
    CHECK(!visit(NULL, &now));
    const ps_ticket_keys handed = tickets->before;
    CHECK(memcmp(&handed, TLS_TICKETS, sizeof handed) == 0);
    ps_tickets *late = ps_tickets_new((const uint8_t *)&handed, tickets->period_ns, tickets->period - 1);
    ps_tls_options tls = tls_options(PS_VERIFY_NONE);
    char why[256] = "";
    tls.tickets = late;
    CHECK_EQ(ps_engine_secure(server.engine, 0, &tls, why, sizeof why), 0);
    ps_tickets_drop(late);
    CHECK(visit(now, NULL));
    CHECK(visit(before, NULL));
    of_client.SSL_SESSION_free(before);
    of_client.SSL_SESSION_free(now);
    end();
}

/* Before the first hour is over there are no keys before: not those of zeros, which anybody has. */
static void nobody_has_those_before_the_first(void)
{
    void *first;
    begin();
    const ps_ticket_keys ours = tickets->keys;
    memset(&tickets->keys, 0, sizeof ours);
    CHECK(!visit(NULL, &first));
    tickets->keys = ours;
    CHECK(!visit(first, NULL));
    of_client.SSL_SESSION_free(first);
    end();
}

static void others_with_the_same_keys_come_to_the_same(void)
{
    void *first, *second;
    begin();
    an_hour_goes_by();
    CHECK(!visit(NULL, &first));
    end();
    begin(); /* another process could do that */
    an_hour_goes_by();
    CHECK(visit(first, &second));
    ps_tls_options tls = tls_options(PS_VERIFY_NONE);
    char why[256] = "";
    tls.tickets = tickets;
    CHECK_EQ(ps_engine_secure(server.engine, 0, &tls, why, sizeof why), 0);
    CHECK(visit(second, NULL)); /* and on a server with other certificates */
    of_client.SSL_SESSION_free(first);
    of_client.SSL_SESSION_free(second);
    end();
}

static void without_any_they_are_openssls(void)
{
    const ps_options options = echo_options(PS_PYSOCK);
    void *first;
    tls_serve_with(&server, &options, PS_VERIFY_NONE, NULL);
    CHECK(!visit(NULL, &first));
    CHECK(visit(first, NULL));
    of_client.SSL_SESSION_free(first);
    tickets = NULL;
    end();
}

static long fails(void)
{
    return 0;
}

/* A client may be lost by it, as by any failure in a handshake; it never goes on with what nobody could open. */
static void where_a_function_fails(void)
{
    static const size_t places[] = {offsetof(ps_libssl_table, EVP_Digest), offsetof(ps_libssl_table, RAND_bytes),
                                    offsetof(ps_libssl_table, EVP_MAC_CTX_set_params),
                                    offsetof(ps_libssl_table, EVP_aes_256_cbc),
                                    offsetof(ps_libssl_table, EVP_EncryptInit_ex),
                                    offsetof(ps_libssl_table, EVP_DecryptInit_ex)};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        void *first;
        begin();
        CHECK(!visit(NULL, &first));
        an_hour_goes_by();
        long (*function)(void) = fails;
        memcpy((char *)&ps_libssl + places[i], &function, sizeof function);
        int fd = echo_plug(&server);
        ps_SSL *ssl = tls_client(fd);
        CHECK_EQ(of_client.SSL_set_session(ssl, first), 1);
        CHECK(of_client.SSL_connect(ssl) != 1 || !tls_hello(ssl) || !tls_real.SSL_session_reused(ssl));
        tls_leave(ssl, fd);
        WAIT_FOR(!echo_stats(&server).pending && !echo_stats(&server).clients);
        ps_libssl = tls_real;
        of_client.SSL_SESSION_free(first); /* it may be of no use any more, to this client */
        CHECK(!visit(NULL, &first));
        CHECK(visit(first, NULL));
        of_client.SSL_SESSION_free(first);
        end();
    }
}

int main(void)
{
    tls_begin();
    RUN(good_for_an_hour_and_one_more);
    RUN(keys_of_another_hour);
    RUN(nobody_has_those_before_the_first);
    RUN(others_with_the_same_keys_come_to_the_same);
    RUN(without_any_they_are_openssls);
    RUN(where_a_function_fails);
    tls_real.SSL_CTX_free(tls_client_context);
    return 0;
}
