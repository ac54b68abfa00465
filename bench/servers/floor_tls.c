/* floor_tls.c: the same over TLS: the bare epoll echo server with OpenSSL, that every server over TLS is held against. It sends
 * back whatever bytes have come, so it serves u32 frames without looking at them.
 *
 * Level-triggered. OpenSSL reads ahead, so a record costs no call of its own for its header; what has come is opened until there
 * is no more, and sealed at once. A client whose socket is full isn't read until it takes the rest. Deliberately not here:
 * frames, limits, timeouts. Only for measuring: it takes OpenSSL's headers.
 *
 *   floor_tls tls:HOST:PORT --cert FILE [--ask 1] */
#define _GNU_SOURCE
#include <errno.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/epoll.h>

#include "listen.h"

enum { ROOM = 256 * 1024, EVENTS = 512 };

typedef struct client {
    SSL *ssl;   /* NULL: the listener's */
    char *rest; /* NULL: nothing waits */
    size_t size, at;
    int fd;
} client;

static int poller;
static char buffer[ROOM];

static void watch(int operation, client *one, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = one};
    if (epoll_ctl(poller, operation, one->fd, &event))
        die("epoll_ctl");
}

static void accept_one(int master, SSL_CTX *context)
{
    const int on = 1;
    int fd = accept4(master, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    client *one = fd < 0 ? NULL : calloc(1, sizeof *one);
    if (!one)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    one->fd = fd;
    one->ssl = SSL_new(context);
    SSL_set_fd(one->ssl, fd);
    SSL_set_accept_state(one->ssl);
    watch(EPOLL_CTL_ADD, one, EPOLLIN);
}

static void hang_up(client *one)
{
    SSL_free(one->ssl);
    close(one->fd);
    free(one->rest);
    free(one);
}

/* What OpenSSL doesn't take now it wants to have again. */
static int send_or_keep(client *one, const char *data, size_t size)
{
    size_t written = 0, at = 0;
    while (at < size && SSL_write_ex(one->ssl, data + at, size - at, &written) == 1)
        at += written;
    if (at == size)
        return 0;
    if (SSL_get_error(one->ssl, 0) != SSL_ERROR_WANT_WRITE)
        return -1;
    one->rest = malloc(size - at);
    if (!one->rest)
        die("malloc");
    memcpy(one->rest, data + at, size - at);
    one->size = size - at;
    one->at = 0;
    watch(EPOLL_CTL_MOD, one, EPOLLOUT);
    return 0;
}

/* Also the handshake, which is OpenSSL's business. */
static int serve(client *one)
{
    size_t total = 0, got = 0;
    while (total < sizeof buffer && SSL_read_ex(one->ssl, buffer + total, sizeof buffer - total, &got) == 1)
        total += got;
    int good = total == sizeof buffer || SSL_get_error(one->ssl, 0) == SSL_ERROR_WANT_READ;
    if (total && send_or_keep(one, buffer, total) < 0)
        return -1;
    return good ? 0 : -1;
}

static int flush(client *one)
{
    size_t written = 0;
    while (one->at < one->size && SSL_write_ex(one->ssl, one->rest + one->at, one->size - one->at, &written) == 1)
        one->at += written;
    if (one->at < one->size)
        return SSL_get_error(one->ssl, 0) == SSL_ERROR_WANT_WRITE ? 0 : -1;
    free(one->rest);
    one->rest = NULL;
    watch(EPOLL_CTL_MOD, one, EPOLLIN);
    return 0;
}

static SSL_CTX *make_context(const char *cert, int asks)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context || SSL_CTX_use_certificate_chain_file(context, cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, cert, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_locations(context, cert, NULL) != 1) {
        fprintf(stderr, "%s: not a certificate and its key\n", cert);
        exit(2);
    }
    if (asks)
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(context, asks ? 0 : 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    return context;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    SSL_CTX *context = make_context(read_text(argc, argv, "--cert"), read_option(argc, argv, "--ask") != 0);
    client listener = {.fd = listen_at(argv[1])};
    signal(SIGPIPE, SIG_IGN); /* OpenSSL's socket BIO calls write() */
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        die("floor_tls");
    watch(EPOLL_CTL_ADD, &listener, EPOLLIN);
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            client *one = events[i].data.ptr;
            if (one == &listener)
                accept_one(listener.fd, context);
            else if ((one->rest ? flush(one) : serve(one)) < 0)
                hang_up(one);
        }
    }
}
