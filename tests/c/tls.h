/* tls.h: certificates made on the spot by the program openssl, and clients that speak TLS by the same library as the engine.
 * Where one of the two isn't there, the tests are skipped. */
#ifndef PYSOCK_TLS_CLIENT_H
#define PYSOCK_TLS_CLIENT_H

#include <dlfcn.h>

#include "echo.h"
#include "transport/libssl.h"

#define CLIENT_FUNCTIONS(each)                                                                                         \
    each(const ps_SSL_METHOD *, TLS_client_method, (void))                                                             \
    each(int, SSL_set_fd, (ps_SSL * ssl, int fd))                                                                      \
    each(int, SSL_connect, (ps_SSL * ssl))                                                                             \
    each(int, SSL_key_update, (ps_SSL * ssl, int type))                                                                \
    each(long, SSL_ctrl, (ps_SSL * ssl, int command, long number, void *pointer))                                      \
    each(void *, SSL_get1_session, (ps_SSL * ssl))                                                                     \
    each(int, SSL_set_session, (ps_SSL * ssl, void *session))                                                          \
    each(void, SSL_SESSION_free, (void *session))                                                                      \
    each(int, SSL_CTX_set_alpn_protos, (ps_SSL_CTX * context, const unsigned char *names, unsigned size))

#define CLIENT_MEMBER(result, name, arguments) result(*name) arguments;

static struct {
    CLIENT_FUNCTIONS(CLIENT_MEMBER)
} of_client;

static char tls_folder[] = "/tmp/pysock-tls-XXXXXX";
static ps_libssl_table tls_real; /* the table as it was filled */
static ps_SSL_CTX *tls_client_context;

static inline const char *tls_file(const char *name)
{
    static char paths[4][128];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", tls_folder, name);
    return path;
}

static inline void tls_remove_files(void)
{
    char command[256];
    snprintf(command, sizeof command, "rm -r %s", tls_folder);
    CHECK_EQ(system(command), 0);
}

static inline void tls_make_certificates(void)
{
    static const char *const script =
        "cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2 "
        "-subj '/O=Example/CN=both ends' -addext 'subjectAltName=DNS:a.example,URI:spiffe://x/y,IP:10.0.0.1,email:a@b.c' "
        "-addext basicConstraints=critical,CA:true >/dev/null 2>&1";
    char command[1024];
    CHECK(mkdtemp(tls_folder));
    snprintf(command, sizeof command, script, tls_folder);
    if (system(command) != 0) {
        rmdir(tls_folder);
        SKIP("there is no program openssl");
    }
    atexit(tls_remove_files);
}

static inline void tls_find(void)
{
    char why[256];
    if (ps_libssl_load("libssl.so.3", "libcrypto.so.3", why, sizeof why) < 0)
        SKIP(why);
    tls_real = ps_libssl;
    void *handle = dlopen("libssl.so.3", RTLD_NOW);
    CHECK(handle);
#define CLIENT_FIND(result, name, arguments)                                                                           \
    {                                                                                                                  \
        void *found_ = dlsym(handle, #name);                                                                           \
        CHECK(found_);                                                                                                 \
        memcpy(&of_client.name, &found_, sizeof found_);                                                               \
    }
    CLIENT_FUNCTIONS(CLIENT_FIND)
}

/* A context for clients, which have a certificate, and look at none. */
static inline void tls_begin(void)
{
    tls_find();
    tls_make_certificates();
    tls_client_context = tls_real.SSL_CTX_new(of_client.TLS_client_method());
    CHECK(tls_client_context);
    CHECK_EQ(tls_real.SSL_CTX_use_certificate_chain_file(tls_client_context, tls_file("cert.pem")), 1);
    CHECK_EQ(tls_real.SSL_CTX_use_PrivateKey_file(tls_client_context, tls_file("key.pem"), PS_SSL_FILETYPE_PEM), 1);
}

static inline ps_tls_options tls_options(uint32_t verify)
{
    return (ps_tls_options){
        .cert = tls_file("cert.pem"), .key = tls_file("key.pem"), .ca_file = verify ? tls_file("cert.pem") : NULL,
        .alpn = (const uint8_t *)"\x08pysock/1", .alpn_size = 9, .minimum = PS_TLS1_3_VERSION, .verify = verify,
    };
}

#define TLS_TICKETS "eighty bytes that nobody knows, but for everybody who reads this, which is a test.."

/* An engine with one master, which speaks TLS, in a thread of its own; its sessions are sealed by these, or NULL. */
static inline void tls_serve_with(echo *e, const ps_options *options, uint32_t verify, ps_tickets *tickets)
{
    char why[256];
    ps_tls_options tls = tls_options(verify);
    tls.tickets = tickets;
    echo_new(e, options);
    echo_listen(e, AF_INET);
    CHECK_EQ(ps_engine_add_master(e->engine, e->master, 0), 0);
    CHECK_EQ(ps_engine_secure(e->engine, 0, &tls, why, sizeof why), 0);
    CHECK_EQ(pthread_create(&e->thread, NULL, echo_main, e), 0);
}

static inline void tls_serve(echo *e, const ps_options *options, uint32_t verify)
{
    ps_tickets *tickets = ps_tickets_new((const uint8_t *)TLS_TICKETS, UINT64_MAX, 0);
    CHECK(tickets);
    tls_serve_with(e, options, verify, tickets);
    ps_tickets_drop(tickets);
}

/* These can't fail, and there would be no sense in what follows. */
static inline bool tls_is_sure(const char *name)
{
    static const char *const sure[] = {"BIO_get_data", "BIO_set_data", "BIO_set_init", "BIO_set_flags", "SSL_get_rbio",
                                       "SSL_set_bio", "SSL_set_accept_state", "SSL_CTX_set_alpn_select_cb",
                                       "SSL_CTX_set_client_CA_list"};
    for (size_t i = 0; i < sizeof sure / sizeof *sure; i++) {
        if (strcmp(sure[i], name) == 0)
            return true;
    }
    return strstr(name, "free") != NULL; /* which would be a leak of the test's */
}

/* A client that has connected, and begun nothing. */
static inline ps_SSL *tls_client(int fd)
{
    ps_SSL *ssl = tls_real.SSL_new(tls_client_context);
    CHECK(ssl);
    CHECK_EQ(of_client.SSL_set_fd(ssl, fd), 1);
    return ssl;
}

/* Whether there is still somebody who takes it. */
static inline bool tls_write(ps_SSL *ssl, const void *data, size_t size)
{
    size_t written = 0;
    bool good = tls_real.SSL_write_ex(ssl, data, size, &written) == 1;
    tls_real.ERR_clear_error();
    CHECK(!good || written == size);
    return good;
}

/* Fewer bytes than asked for: it has ended. */
static inline size_t tls_read(ps_SSL *ssl, void *to, size_t size)
{
    size_t have = 0, got;
    while (have < size && tls_real.SSL_read_ex(ssl, (uint8_t *)to + have, size - have, &got) == 1)
        have += got;
    tls_real.ERR_clear_error();
    return have;
}

static inline bool tls_send_frame(ps_SSL *ssl, uint8_t kind, uint16_t code, uint32_t id, const void *data, uint32_t size)
{
    uint8_t *whole = malloc(PS_HEADER_SIZE + (size_t)size);
    CHECK(whole);
    ps__write_header(whole, size, kind, 0, code, id);
    if (size)
        memcpy(whole + PS_HEADER_SIZE, data, size);
    bool good = tls_write(ssl, whole, PS_HEADER_SIZE + (size_t)size);
    free(whole);
    return good;
}

/* Whether it came, as it should be. */
static inline bool tls_gets(ps_SSL *ssl, uint8_t kind, uint32_t id, const void *data, uint32_t size)
{
    uint8_t head[PS_HEADER_SIZE], *room = malloc(size + 1u);
    ps_frame frame;
    CHECK(room);
    bool good = tls_read(ssl, head, sizeof head) == sizeof head;
    if (good) {
        ps__read_header(head, &frame);
        CHECK(frame.kind == kind && frame.request_id == id && (!data || frame.size == size) && frame.size <= size);
        good = tls_read(ssl, room, frame.size) == frame.size;
    }
    if (good && data && size)
        CHECK(memcmp(room, data, size) == 0);
    free(room);
    return good;
}

static inline bool tls_hello(ps_SSL *ssl)
{
    return tls_send_frame(ssl, PS_CIR, 1, 0, "PSK1", 4) && tls_gets(ssl, PS_CIR_ACCEPTED, 0, NULL, 512);
}

static inline void tls_leave(ps_SSL *ssl, int fd)
{
    tls_real.SSL_shutdown(ssl);
    tls_real.SSL_free(ssl);
    tls_real.ERR_clear_error();
    CHECK_EQ(close(fd), 0);
}

/* One that has been let in. */
static inline ps_SSL *tls_join(const echo *e, int *fd)
{
    *fd = echo_plug(e);
    ps_SSL *ssl = tls_client(*fd);
    CHECK_EQ(of_client.SSL_connect(ssl), 1);
    CHECK(tls_hello(ssl));
    return ssl;
}

static inline void tls_served(ps_SSL *ssl, uint32_t id, const void *data, uint32_t size)
{
    CHECK(tls_send_frame(ssl, PS_SRM, 0, id, data, size));
    CHECK(tls_gets(ssl, PS_REPLY, id, data, size));
}

#endif
