/* tls_load.c: a load generator that speaks TLS, to a server that echoes u32 frames; one thread on epoll. OpenSSL's headers are
 * needed, for it is only for measuring.
 *
 * tls_load PORT CONNECTIONS IN_FLIGHT SIZE SECONDS [--rate N] [--churn N] [--cert FILE] [--idle N]
 *
 * Each connection has so many requests in flight, a new one as each reply comes; or --rate of them a second are sent by all
 * together, evenly spaced, and counted from when they were due. With --churn each connection makes one request and is closed,
 * and another follows, N in all, or with 0 for so many seconds; with IN_FLIGHT 0 as soon as it is greeted. --cert is the client's
 * certificate and key. --idle connections are opened besides and left alone; with SECONDS 0 it waits for a line on standard
 * input then, and ends. What it prints is one JSON object. */
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES = 1 << 23, EVENTS = 64, QUEUE = 1024, WARMUP = 4 };

typedef struct load_conn {
    SSL *ssl;
    int fd;
    int is_open;
    size_t come;
    size_t to_send;         /* bytes of requests that OpenSSL hasn't taken */
    size_t asked, answered; /* requests */
    double *asked_at;       /* of the last QUEUE of them */
} load_conn;

static SSL_CTX *context;
static struct sockaddr_in place;
static int epoll;
static size_t frame_size, in_flight;
static double rate;
static long churn = -1, left; /* connections, in all; those to come */
static unsigned char *requests; /* in_flight of them */
static unsigned char room[1 << 20];
static float *samples;
static size_t sample_count, messages, greeted;

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

/* -- requests -------------------------------------------------------------------------------------------------------- */

static void ask(load_conn *conn, size_t count, double at)
{
    for (size_t i = 0; i < count; i++)
        conn->asked_at[conn->asked++ % QUEUE] = at;
    if (conn->asked - conn->answered > QUEUE)
        die("the server is too slow for this rate");
    conn->to_send += count * frame_size;
}

static void send_some(load_conn *conn)
{
    while (conn->to_send) {
        size_t total = frame_size * (in_flight ? in_flight : 1), written = 0;
        size_t at = (frame_size - conn->to_send % frame_size) % frame_size; /* within a frame, where one was cut */
        size_t size = at + conn->to_send > total ? total - at : conn->to_send;
        if (SSL_write_ex(conn->ssl, requests + at, size, &written) != 1) {
            if (SSL_get_error(conn->ssl, 0) != SSL_ERROR_WANT_WRITE)
                die("SSL_write");
            return;
        }
        conn->to_send -= written;
    }
}

static size_t receive_some(load_conn *conn)
{
    size_t got = 0;
    while (SSL_read_ex(conn->ssl, room, sizeof room, &got) == 1) /* edge-triggered: to the last byte */
        conn->come += got;
    if (SSL_get_error(conn->ssl, 0) != SSL_ERROR_WANT_READ)
        die("SSL_read");
    size_t whole = conn->come / frame_size;
    double at = whole ? now(CLOCK_MONOTONIC) : 0;
    conn->come -= whole * frame_size;
    messages += whole;
    for (size_t i = 0; i < whole; i++, conn->answered++)
        if (sample_count < SAMPLES)
            samples[sample_count++] = (float)((at - conn->asked_at[conn->answered % QUEUE]) * 1e6);
    return whole;
}

/* -- connections ------------------------------------------------------------------------------------------------------ */

static void open_one(load_conn *conn)
{
    int on = 1;
    conn->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (conn->fd < 0 || connect(conn->fd, (struct sockaddr *)&place, sizeof place) < 0)
        die("connect");
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    conn->ssl = SSL_new(context);
    SSL_set_fd(conn->ssl, conn->fd);
    conn->is_open = 0;
    conn->come = conn->to_send = conn->asked = conn->answered = 0;
}

static void watch(load_conn *conn)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = conn};
    fcntl(conn->fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event);
}

static void greet(load_conn *conn)
{
    int result = SSL_connect(conn->ssl);
    if (result != 1 && SSL_get_error(conn->ssl, result) != SSL_ERROR_WANT_READ)
        die("SSL_connect");
    if (result != 1)
        return;
    conn->is_open = 1;
    greeted++;
    if (churn >= 0 ? in_flight : in_flight && rate <= 0)
        ask(conn, churn >= 0 ? 1 : in_flight, now(CLOCK_MONOTONIC));
}

/* Reset, so that no port is waiting afterwards. */
static void follow(load_conn *conn)
{
    struct linger off = {1, 0};
    SSL_shutdown(conn->ssl);
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
    SSL_free(conn->ssl);
    close(conn->fd);
    conn->ssl = NULL;
    if (churn && left <= 0)
        return;
    left--;
    open_one(conn);
    watch(conn);
}

static void go_on(load_conn *conn)
{
    if (!conn->is_open)
        greet(conn);
    if (!conn->is_open)
        return;
    send_some(conn);
    size_t whole = receive_some(conn);
    if (churn >= 0 && (whole || !in_flight)) {
        follow(conn);
    } else if (whole && rate <= 0) {
        ask(conn, whole, now(CLOCK_MONOTONIC));
        send_some(conn);
    }
}

/* -- a run ------------------------------------------------------------------------------------------------------------ */

static int start_clock(void)
{
    if (rate <= 0)
        return -1;
    struct itimerspec each = {.it_interval.tv_nsec = (long)(1e9 / rate), .it_value.tv_nsec = (long)(1e9 / rate)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    int clock = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    timerfd_settime(clock, 0, &each, NULL);
    epoll_ctl(epoll, EPOLL_CTL_ADD, clock, &event);
    return clock;
}

/* One more request of the next connection, for each time that the clock has struck. */
static void send_due(int clock, load_conn *conns, int count, double begin)
{
    static size_t due;
    uint64_t struck = 0;
    if (read(clock, &struck, sizeof struck) != sizeof struck)
        return;
    for (; struck; struck--) {
        load_conn *conn = &conns[due++ % (size_t)count];
        ask(conn, 1, begin + (double)due / rate);
        send_some(conn);
    }
}

static int compare(const void *left_one, const void *right_one)
{
    float a = *(const float *)left_one, b = *(const float *)right_one;
    return a < b ? -1 : a > b;
}

static double quantile(double share)
{
    return sample_count ? (double)samples[(size_t)(share * (double)(sample_count - 1))] : 0.0;
}

static void print_run(double seconds, double cpu)
{
    qsort(samples, sample_count, sizeof *samples, compare);
    printf("{\"messages\": %zu, \"seconds\": %.6f, \"messages_per_second\": %.1f, \"client_core\": %.3f, \"errors\": 0, "
           "\"greeted\": %zu, \"latency_us\": {\"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f}}\n",
           messages, seconds, (double)messages / seconds, cpu / seconds, greeted, quantile(.5), quantile(.99), quantile(.999),
           quantile(1));
}

static void run(load_conn *conns, int count, double seconds)
{
    double begin = now(CLOCK_MONOTONIC), warm = begin + seconds / WARMUP, end = begin + seconds, cpu = 0, at = begin;
    int clock = start_clock();
    double first = begin;
    for (int i = 0; i < count; i++)
        go_on(&conns[i]);
    while ((at = now(CLOCK_MONOTONIC)) < end && (churn <= 0 || greeted < (size_t)churn)) {
        struct epoll_event events[EVENTS];
        if (!cpu && (churn > 0 || at > warm)) {
            messages = greeted = sample_count = 0;
            begin = at;
            cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        }
        for (int i = 0, ready = epoll_wait(epoll, events, EVENTS, 1000); i < ready; i++) {
            if (events[i].data.ptr)
                go_on(events[i].data.ptr);
            else
                send_due(clock, conns, count, first);
        }
    }
    print_run(at - begin, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
}

/* -- the command line -------------------------------------------------------------------------------------------------- */

static const char *option(int argc, char **argv, const char *name)
{
    for (int i = 6; i + 1 < argc; i += 2)
        if (!strcmp(argv[i], name))
            return argv[i + 1];
    return NULL;
}

static double number(int argc, char **argv, const char *name, double otherwise)
{
    const char *text = option(argc, argv, name);
    return text ? atof(text) : otherwise;
}

static void make_requests(uint32_t bytes)
{
    uint32_t size = htonl(bytes);
    size_t count = in_flight ? in_flight : 1;
    frame_size = 4 + (size_t)bytes;
    requests = calloc(count, frame_size);
    for (size_t i = 0; i < count; i++)
        memcpy(requests + i * frame_size, &size, 4);
}

static void make_context(const char *cert, int reads_ahead)
{
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, reads_ahead);
    if (cert && (SSL_CTX_use_certificate_chain_file(context, cert) != 1 ||
                 SSL_CTX_use_PrivateKey_file(context, cert, SSL_FILETYPE_PEM) != 1))
        die(cert);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    place = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int count = atoi(argv[2]), idle = (int)number(argc, argv, "--idle", 0);
    double seconds = atof(argv[5]);
    in_flight = (size_t)atoi(argv[3]);
    rate = number(argc, argv, "--rate", 0);
    churn = (long)number(argc, argv, "--churn", -1);
    left = churn - count;
    make_requests((uint32_t)atoi(argv[4]));
    make_context(option(argc, argv, "--cert"), idle == 0);
    samples = malloc(SAMPLES * sizeof *samples);
    load_conn *conns = calloc((size_t)(count + idle), sizeof *conns);
    double *queues = calloc((size_t)count * QUEUE, sizeof *queues);
    epoll = epoll_create1(0);
    for (int i = 0; i < count + idle; i++) {
        conns[i].asked_at = i < count ? queues + (size_t)i * QUEUE : NULL;
        open_one(&conns[i]);
        if (churn < 0 && SSL_connect(conns[i].ssl) != 1)
            die("SSL_connect");
        if (i < count)
            watch(&conns[i]);
    }
    if (seconds > 0)
        run(conns, count, seconds);
    fflush(stdout);
    if (seconds <= 0)
        getchar();
    return 0;
}
