/* engine_only.c: the C engine with a C echo hook, framing u32: what the engine costs without Python. Compiled with all of
 * csrc but python/ and load/. Compare it with the floor, never with a server whose handler is Python. */
#include "listen.h"
#include "conn/output.h"
#include "loop/engine.h"
#include "loop/turn.h"

/* A payload that the engine needs beyond the call, as bytes objects are for Python. One thread: a plain count. */
typedef struct object {
    int users;
    uint8_t data[];
} object;

static ps_engine *engine;
static uint64_t work_us;

static void do_nothing(void *context)
{
    (void)context;
}

static int check(void *context)
{
    (void)context;
    return 0;
}

static void *object_new(void *context, size_t size, uint8_t **data)
{
    (void)context;
    object *o = malloc(sizeof *o + size);
    if (o) {
        o->users = 1;
        *data = o->data;
    }
    return o;
}

static void *object_resize(void *context, void *old, size_t size, uint8_t **data)
{
    (void)context;
    object *o = realloc(old, sizeof *o + size);
    if (o)
        *data = o->data;
    else
        free(old);
    return o;
}

static void object_ref(void *context, void *o)
{
    (void)context;
    ((object *)o)->users++;
}

static void object_unref(void *context, void *o)
{
    (void)context;
    if (!--((object *)o)->users)
        free(o);
}

static int echo(void *context, ps_conn *conn, const ps_frame *frame, void *o)
{
    (void)context;
    work(work_us);
    ps__send(engine, conn, PS_REPLY, 0, frame->request_id, frame->payload, frame->size, o);
    if (o)
        object_unref(context, o);
    return 0;
}

static int no_batches(void *context, bool all, uint64_t *due_ns)
{
    (void)context;
    (void)all;
    *due_ns = UINT64_MAX;
    return 0;
}

static int gone(void *context, ps_conn *conn)
{
    (void)context;
    (void)conn;
    return 0;
}

static int say(void *context, enum ps_tell what, uint64_t cause, uint64_t times)
{
    (void)context;
    if (what == PS_TELL_NOTED)
        fprintf(stderr, "engine_only: cause %d, %llu times\n", (int)cause, (unsigned long long)times);
    return 0;
}

/* Those of pysock.Server, but for the number of clients. */
static ps_options options(void)
{
    const uint64_t second = 1000000000;
    return (ps_options){
        .limits = {.cir_timeout_ns = 5 * second, .frame_timeout_ns = 30 * second, .output_timeout_ns = 10 * second,
                   .output_pause = 1 << 20, .output_drop = 64 << 20, .push_soft = 8 << 20,
                   .push_soft_seconds_ns = 10000000000, .push_hard = 32 << 20, .max_clients = (uint32_t)descriptors(),
                   .max_pending_cir = 1024, .max_cir_bytes = 4096, .max_payload = 16 << 20, .max_in_flight = 1024},
        .linger_ns = PS_LINGER_AUTO,
        .inside_max_ns = 6000000,
        .framing = PS_U32,
        .services = 1,
    };
}

int main(int argc, char **argv)
{
    const ps_hooks hooks = {
        .enter = do_nothing, .leave = do_nothing, .check = check, .request = echo, .batches = no_batches,
        .disconnect = gone, .tell = say, .object_new = object_new, .object_resize = object_resize,
        .object_ref = object_ref, .object_unref = object_unref,
    };
    const ps_options wanted = options();
    int error;
    work_us = read_option(argc, argv, "--work-us");
    engine = ps__engine_new(&wanted, &hooks, &error);
    if (engine)
        error = ps_engine_add_master(engine, listen_at(argv[1]), 0);
    if (error == 0)
        error = ps__engine_run(engine);
    fprintf(stderr, "engine_only: %s\n", strerror(-error));
    return 1;
}
