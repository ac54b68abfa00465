/* fork() beside an engine and inside one: the child has no descriptor of it, and the parent's clients notice nothing. */
#include "echo.h"

#include <signal.h>
#include <sys/wait.h>

enum { FD_ROOM = 256, FORKS = 200 };

/* What is open, apart from a master socket, which is the caller's. */
static void look(bool *open, int master)
{
    for (int fd = 0; fd < FD_ROOM; fd++)
        open[fd] = fd != master && fcntl(fd, F_GETFD) >= 0;
}

/* How many are open that were not before. */
static int more(const bool *before, int master)
{
    bool now[FD_ROOM];
    int count = 0;
    look(now, master);
    for (int fd = 0; fd < FD_ROOM; fd++)
        count += now[fd] && !before[fd];
    return count;
}

static int ended(pid_t child)
{
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void let_in(int fd)
{
    uint8_t room[256];
    send_cir(fd, "it");
    CHECK_EQ(receive_frame(fd, room, sizeof room).kind, PS_CIR_ACCEPTED);
}

static void ask(int fd, uint32_t id)
{
    uint8_t room[256];
    send_frame(fd, (ps_frame){.payload = (const uint8_t *)"x", .size = 1, .kind = PS_SRM, .request_id = id});
    ps_frame frame = receive_frame(fd, room, sizeof room);
    CHECK_EQ(frame.kind, PS_REPLY);
    CHECK_EQ(frame.request_id, id);
}

static void a_child_has_nothing(void)
{
    echo e;
    bool before[FD_ROOM];
    ps_options options = echo_options(PS_PYSOCK);
    look(before, -1);
    echo_begin(&e, &options, AF_UNIX);
    int fd = echo_plug(&e), gate[2];
    let_in(fd);
    CHECK_EQ(pipe(gate), 0);
    before[fd] = before[gate[0]] = before[gate[1]] = true;
    pid_t child = fork();
    if (child == 0) {
        char byte;
        ps_stats stats;
        int left = more(before, e.master);
        /* Everything may still be asked. */
        ps_engine_stats(e.engine, &stats);
        left += ps_engine_push(e.engine, (uint64_t)1 << 32, (const uint8_t *)"x", 1);
        left += ps_engine_stop(e.engine, 0);
        left += (int)read(gate[0], &byte, 1) - 1; /* it lives until the parent has seen what it wants to see */
        ps__engine_free(e.engine);
        _exit(left);
    }
    ask(fd, 7);
    echo_end(&e);
    uint8_t rest[256];
    while (recv(fd, rest, sizeof rest, 0) > 0)
        continue; /* to the end, though the child lives */
    CHECK_EQ(write(gate[1], "x", 1), 1);
    CHECK_EQ(ended(child), 0);
    close(fd);
    close(gate[0]);
    close(gate[1]);
}


/* In a process of its own, so that the clients' descriptors are none of ours. */
static _Noreturn void come_and_go(const echo *e)
{
    for (;;) {
        int fd = echo_plug(e);
        let_in(fd);
        ask(fd, 1);
        close(fd);
    }
}

static void forks_while_clients_come_and_go(void)
{
    echo e;
    bool before[FD_ROOM];
    ps_options options = echo_options(PS_PYSOCK);
    pid_t clients[2];
    look(before, -1);
    echo_begin(&e, &options, AF_UNIX);
    for (int i = 0; i < 2; i++) {
        clients[i] = fork();
        if (clients[i] == 0)
            come_and_go(&e);
    }
    WAIT_FOR(echo_stats(&e).established > 10);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(more(before, e.master));
        CHECK_EQ(ended(child), 0);
    }
    for (int i = 0; i < 2; i++) {
        int status;
        CHECK_EQ(waitpid(clients[i], &status, WNOHANG), 0); /* nobody was disturbed */
        CHECK_EQ(kill(clients[i], SIGKILL), 0);
        CHECK_EQ(waitpid(clients[i], &status, 0), clients[i]);
    }
    echo_end(&e);
}

static int (*request)(void *, ps_conn *, const ps_frame *, void *);
static pid_t parent;

static int forking_request(void *context, ps_conn *conn, const ps_frame *frame, void *object)
{
    pid_t child = fork();
    if (child == 0)
        return 0;
    CHECK_EQ(ended(child), 0);
    return request(context, conn, frame, object);
}

static void *loop_main(void *context)
{
    echo *e = context;
    e->result = ps__engine_run(e->engine);
    if (getpid() != parent) /* nobody was told that its client has gone */
        _exit(e->result != -ECHILD || e->gone || e->drained);
    return NULL;
}

static void a_loop_that_forks_ends_in_the_child(void)
{
    echo e;
    ps_options options = echo_options(PS_PYSOCK);
    parent = getpid();
    echo_new(&e, &options);
    request = e.engine->hooks.request;
    e.engine->hooks.request = forking_request;
    echo_listen(&e, AF_UNIX);
    CHECK_EQ(ps_engine_add_master(e.engine, e.master, 0), 0);
    CHECK_EQ(pthread_create(&e.thread, NULL, loop_main, &e), 0);
    int fd = echo_plug(&e), other = echo_plug(&e);
    let_in(fd);
    let_in(other);
    for (uint32_t id = 1; id <= 3; id++) {
        ask(fd, id);
        ask(other, id);
    }
    close(fd);
    close(other);
    echo_end(&e);
}

int main(void)
{
    RUN(a_child_has_nothing);
    RUN(forks_while_clients_come_and_go);
    RUN(a_loop_that_forks_ends_in_the_child);
    return 0;
}
