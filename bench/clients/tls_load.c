/* tls_load.c: a load generator that speaks TLS, to a server that echoes u32 frames: so many connections, each with so many
 * requests in flight; one thread on epoll. OpenSSL's headers are needed, for it is only for measuring.
 *
 * tls_load PORT CONNECTIONS IN_FLIGHT SIZE SECONDS IDLE: prints messages a second, its own share of a processor, the median of
 * the times from a request to its reply in us where one is in flight, and handshakes a second. IDLE connections are opened and
 * left alone; with SECONDS 0 it waits for a line on standard input then, and ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES = 1 << 20 };

typedef struct load_conn {
    SSL *ssl;
    int fd;
    size_t come;
    size_t to_send;  /* bytes of requests that OpenSSL hasn't taken */
    double asked_at;
} load_conn;

static size_t frame_size, in_flight;
static unsigned char *requests; /* in_flight of them */
static unsigned char room[1 << 20];
static float samples[SAMPLES];
static size_t sample_count, messages;

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void open_one(load_conn *conn, SSL_CTX *context, unsigned short port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    conn->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (conn->fd < 0 || connect(conn->fd, (struct sockaddr *)&to, sizeof to) < 0)
        die("connect");
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    conn->ssl = SSL_new(context);
    SSL_set_fd(conn->ssl, conn->fd);
    if (SSL_connect(conn->ssl) != 1)
        die("SSL_connect");
}

static void send_some(load_conn *conn)
{
    while (conn->to_send) {
        size_t total = frame_size * in_flight, written = 0, left = conn->to_send > total ? total : conn->to_send;
        size_t at = (frame_size - conn->to_send % frame_size) % frame_size; /* within a frame, where one was cut */
        if (at + left > total)
            left = total - at;
        if (SSL_write_ex(conn->ssl, requests + at, left, &written) != 1) {
            if (SSL_get_error(conn->ssl, 0) != SSL_ERROR_WANT_WRITE)
                die("SSL_write");
            return;
        }
        conn->to_send -= written;
    }
}

static void receive_some(load_conn *conn)
{
    size_t got = 0, whole;
    while (SSL_read_ex(conn->ssl, room, sizeof room, &got) == 1) /* edge-triggered: to the last byte */
        conn->come += got;
    if (SSL_get_error(conn->ssl, 0) != SSL_ERROR_WANT_READ)
        die("SSL_read");
    whole = conn->come / frame_size;
    if (!whole)
        return;
    conn->come -= whole * frame_size;
    messages += whole;
    if (in_flight == 1 && sample_count < SAMPLES)
        samples[sample_count++] = (float)((now(CLOCK_MONOTONIC) - conn->asked_at) * 1e6);
    conn->asked_at = now(CLOCK_MONOTONIC);
    conn->to_send += whole * frame_size;
    send_some(conn);
}

static int compare(const void *left, const void *right)
{
    float a = *(const float *)left, b = *(const float *)right;
    return a < b ? -1 : a > b;
}

static void run(load_conn *conns, int count, double seconds)
{
    int epoll = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &conns[i]};
        fcntl(conns[i].fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(epoll, EPOLL_CTL_ADD, conns[i].fd, &event);
        conns[i].to_send = frame_size * in_flight;
        conns[i].asked_at = now(CLOCK_MONOTONIC);
    }
    double begin = now(CLOCK_MONOTONIC), warm = begin + seconds / 4, end = begin + seconds, cpu = 0, at = begin;
    while ((at = now(CLOCK_MONOTONIC)) < end) {
        struct epoll_event events[64];
        if (!cpu && at > warm) {
            messages = sample_count = 0;
            begin = at;
            cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        }
        for (int i = 0, ready = epoll_wait(epoll, events, 64, 1000); i < ready; i++) {
            send_some(events[i].data.ptr);
            receive_some(events[i].data.ptr);
        }
    }
    qsort(samples, sample_count, sizeof *samples, compare);
    printf("%.0f %.2f %.1f ", (double)messages / (at - begin), (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (at - begin),
           sample_count ? (double)samples[sample_count / 2] : 0.0);
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    unsigned short port = (unsigned short)atoi(argv[1]);
    int count = atoi(argv[2]), idle = atoi(argv[6]);
    uint32_t size = htonl((uint32_t)atoi(argv[4]));
    in_flight = (size_t)atoi(argv[3]);
    frame_size = 4 + (size_t)atoi(argv[4]);
    requests = calloc(in_flight, frame_size);
    for (size_t i = 0; i < in_flight; i++)
        memcpy(requests + i * frame_size, &size, 4);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, idle == 0);
    load_conn *conns = calloc((size_t)(count + idle), sizeof *conns);
    double begin = now(CLOCK_MONOTONIC);
    for (int i = 0; i < count + idle; i++)
        open_one(&conns[i], context, port);
    double took = now(CLOCK_MONOTONIC) - begin;
    if (atof(argv[5]) > 0)
        run(conns, count, atof(argv[5]));
    printf("%.0f\n", (double)(count + idle) / took);
    fflush(stdout);
    if (atof(argv[5]) <= 0)
        getchar();
    return 0;
}
