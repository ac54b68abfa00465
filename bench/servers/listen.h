/* listen.h: what the C servers share: their command line and their listening socket. They are measured, not shipped:
 * whatever goes wrong ends them with one line.
 *
 *   floor|engine_only|floor_tls unix:PATH|tcp:HOST:PORT|tls:HOST:PORT [--work-us MICROSECONDS] */
#ifndef BENCH_LISTEN_H
#define BENCH_LISTEN_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

static inline _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline int listen_unix(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof name.sun_path) {
        fprintf(stderr, "%s: too long for a socket's path\n", path);
        exit(2);
    }
    strcpy(name.sun_path, path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&name, sizeof name))
        die(path);
    return fd;
}

static inline int listen_tcp(const char *text)
{
    struct sockaddr_in name = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(text, ':');
    const int on = 1;
    snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - text) : 0, text);
    if (!colon || inet_pton(AF_INET, host, &name.sin_addr) != 1) {
        fprintf(stderr, "%s: not of the form 127.0.0.1:9000\n", text);
        exit(2);
    }
    name.sin_port = htons((uint16_t)atoi(colon + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        bind(fd, (const struct sockaddr *)&name, sizeof name))
        die(text);
    return fd;
}

/* Non-blocking, as both loops want it. */
static inline int listen_at(const char *address)
{
    int fd = -1;
    if (!strncmp(address, "unix:", 5))
        fd = listen_unix(address + 5);
    else if (!strncmp(address, "tcp:", 4) || !strncmp(address, "tls:", 4))
        fd = listen_tcp(address + 4);
    else {
        fprintf(stderr, "%s: neither unix:PATH nor tcp:HOST:PORT\n", address);
        exit(2);
    }
    if (listen(fd, BACKLOG) || fcntl(fd, F_SETFL, O_NONBLOCK))
        die(address);
    return fd;
}

/* How many descriptors this process may have. */
static inline size_t descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        die("getrlimit");
    return limit.rlim_cur == RLIM_INFINITY ? 1u << 20 : (size_t)limit.rlim_cur;
}

static inline int is_option(const char *name)
{
    static const char *const known[] = {"--work-us", "--poll-us", "--broadcast", "--cert", "--ask"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i]))
            return 1;
    return 0;
}

/* What stands behind an option, --work-us for example; NULL where it isn't given. */
static inline const char *read_text(int argc, char **argv, const char *name)
{
    const char *value = NULL;
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 == argc || !is_option(argv[i])) {
            fprintf(stderr, "usage: %s ADDRESS [--work-us MICROSECONDS] [--poll-us MICROSECONDS] [--broadcast 1] [--cert FILE] [--ask 1]\n",
                    argv[0]);
            exit(2);
        }
        if (!strcmp(argv[i], name))
            value = argv[i + 1];
    }
    return value;
}

/* Its number; 0 where it isn't given. */
static inline uint64_t read_option(int argc, char **argv, const char *name)
{
    const char *text = read_text(argc, argv, name);
    return text ? strtoull(text, NULL, 10) : 0;
}

static inline uint64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A handler that computes for so long. */
static inline void work(uint64_t microseconds)
{
    uint64_t end = microseconds ? nanoseconds() + microseconds * 1000 : 0;
    while (end && nanoseconds() < end)
        continue;
}

#endif
