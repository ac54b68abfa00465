/* fuzz_protocol.c: the whole connection protocol. The input is a script: four bytes of options, then what happens.
 *
 * An operation's byte: 4 bits what, 3 bits which client, 1 bit that the next follows before the engine looks. */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum operation {
    OP_CONNECT, OP_CIR, OP_FRAME, OP_BYTES, OP_FILL, OP_READ, OP_MANNERS, OP_HALF_CLOSE, OP_CLOSE, OP_RESET, OP_WAIT,
    OP_PUSH, OP_BROADCAST, OP_DISCONNECT, OP_STOP, OP_FAULT
};

enum { PLACES = 8 };

typedef struct script {
    const uint8_t *at, *end;
    int places[PLACES]; /* the connection that a client has now; -1: none */
} script;

static uint8_t next_byte(script *from)
{
    return from->at < from->end ? *from->at++ : 0;
}

/* -- what happens -------------------------------------------------------------------------------------------------- */

static void send_frame(link *to, ps_frame frame, size_t cut)
{
    uint8_t whole[PS_HEADER_SIZE + 512];
    size_t size = frame.size < 512 ? frame.size : 512;
    ps__write_header(whole, frame.size, frame.kind, frame.flags, frame.code, frame.request_id);
    memcpy(whole + PS_HEADER_SIZE, frame.payload, size);
    size += PS_HEADER_SIZE;
    kernel_send(to, whole, cut && cut < size ? cut : size);
}

/* The proof of the toy key, or of another one. */
static void send_proof(link *to, const uint8_t *nonce, uint8_t key)
{
    uint8_t mac[PS_MAC_SIZE], payload[3 + PS_MAC_SIZE];
    for (size_t i = 0; i < sizeof mac; i++)
        mac[i] = nonce[i] ^ key;
    size_t size = ps__put_field(payload, PS_TAG_MAC, mac, sizeof mac);
    send_frame(to, (ps_frame){.kind = PS_PROOF, .payload = payload, .size = (uint32_t)size}, 0);
}

static void send_cir(script *from, link *to)
{
    uint8_t payload[128] = "PSK1", nonce[PS_NONCE_SIZE] = "nonce", what = next_byte(from);
    size_t size = 4;
    bool tries_key = sim.options.has_key && (what & 7) != 7;
    if (tries_key)
        size += ps__put_field(payload + size, PS_TAG_NONCE, nonce, sizeof nonce);
    const char name[2] = {"a!+-*\377\0z"[what & 7], 'x'};
    if (what & 8)
        size += ps__put_field(payload + size, PS_TAG_NAME, name, what & 16 ? 2 : 1);
    if (what & 32)
        size += ps__put_field(payload + size, PS_TAG_MAX_PAYLOAD, "\0\0\1\0", 4);
    if (what & 64)
        size += ps__put_field(payload + size, PS_TAG_FEATURES, what & 16 ? "\0\0\0\33" : "\0\0\0\27", 4); /* gap, too */
    if (what & 128)
        size += ps__put_field(payload + size, next_byte(from), name, 2);
    send_frame(to, (ps_frame){.kind = PS_CIR, .code = 1, .payload = payload, .size = (uint32_t)size}, 0);
    if (tries_key && (what & 7) != 6)
        send_proof(to, nonce, (what & 7) == 5 ? 0 : TOY_KEY);
}

/* An answer, which only those may send that speak of it. */
static void make_answer(ps_frame *frame)
{
    frame->kind = frame->code ? PS_ANSWER_ERROR : PS_ANSWER;
    frame->flags = 0;
}

/* The same of a CANCEL, a CREDIT, or a request with a deadline, or for a stream. */
static void make_featured(ps_frame *frame, uint8_t *payload, uint8_t left)
{
    if (frame->kind != PS_SRM) {
        *frame = (ps_frame){.kind = left & 1 ? PS_CREDIT : PS_CANCEL, .request_id = frame->request_id, .payload = payload,
                            .size = left & 1 ? PS_CREDIT_SIZE : 0};
        memcpy(payload, (uint8_t[]){left == 255 ? 255 : 0, 0, left, left}, PS_CREDIT_SIZE);
        return;
    }
    if (left & 1)
        frame->flags |= PS_TAKES_STREAM;
    if (left & 2)
        return;
    frame->flags |= PS_DEADLINE;
    memmove(payload + PS_DEADLINE_SIZE, payload, 1);
    memcpy(payload, (uint8_t[]){0, left, left, 0}, PS_DEADLINE_SIZE);
    frame->size = (frame->size & 0xFF) + PS_DEADLINE_SIZE;
}

/* A message of the framing that is mostly right. */
static void send_message(script *from, link *to)
{
    static const uint8_t kinds[8] = {PS_SRM, PS_SRM, PS_SRM, PS_SRM, PS_SRM, PS_PING, PS_BYE, PS_PROOF};
    uint8_t what = next_byte(from), payload[512];
    ps_frame frame = {.kind = kinds[what & 7], .flags = what >> 3 & 1, .code = what >> 4 & 3, .payload = payload,
                      .request_id = next_byte(from), .size = next_byte(from)};
    uint8_t first = next_byte(from), second = next_byte(from);
    memset(payload, frame.size ? second : 0, sizeof payload);
    payload[0] = first;
    if (frame.kind == PS_BYE)
        frame.size = 0;
    if (what & 64 && frame.kind == PS_PING)
        make_answer(&frame);
    else if (what & 64 && sim.options.framing == PS_PYSOCK)
        make_featured(&frame, payload, second);
    if (sim.options.framing == PS_PYSOCK) {
        send_frame(to, frame, what & 128 ? next_byte(from) : 0);
        return;
    }
    uint8_t head[4];
    ps__put32(head, frame.size);
    if (sim.options.framing == PS_U32)
        kernel_send(to, head, 4);
    kernel_send(to, payload, frame.size);
    if (sim.options.framing == PS_LINE && !(what & 128))
        kernel_send(to, "\n", 1);
}

static void send_bytes(script *from, link *to)
{
    size_t size = next_byte(from), left = (size_t)(from->end - from->at);
    size = size < left ? size : left;
    kernel_send(to, from->at, size);
    from->at += size;
}

/* A large frame, or a part of one. */
static void send_much(script *from, link *to)
{
    uint8_t block[4096], what = next_byte(from), first = next_byte(from), head[PS_HEADER_SIZE];
    uint32_t size = (what & 63u) * 2048u + 1;
    memset(block, 'm', sizeof block);
    if (what & 64) {
        ps__write_header(head, size, PS_SRM, 0, 0, first);
        kernel_send(to, head, sim.options.framing == PS_PYSOCK ? PS_HEADER_SIZE : sim.options.framing == PS_U32 ? 4 : 0);
    }
    block[0] = first;
    for (uint32_t sent = 0; sent < size; sent += sizeof block, block[0] = 'm')
        kernel_send(to, block, size - sent < sizeof block ? size - sent : sizeof block);
    if (what & 128)
        kernel_send(to, "\n", 1);
}

static void read_some(script *from, link *to)
{
    size_t most = next_byte(from) * (size_t)64 + 1, here = to->down.size - to->seen;
    to->seen += most < here ? most : here;
}

static void change_manners(script *from, link *to)
{
    static const uint32_t pieces[8] = {0, 1, 3, 11, 12, 13, 1000, 65536};
    uint8_t what = next_byte(from);
    to->slow = what & 8;
    to->piece = pieces[what & 7];
}

/* As other threads do: by a command. */
static void from_elsewhere(script *from, enum operation what, const link *to)
{
    uint8_t data[256];
    memset(data, 'p', sizeof data);
    bool running = sim.engine->running;
    sim.engine->running = false;
    if (what == OP_PUSH)
        ps_engine_push(sim.engine, to ? to->id : 0, data, next_byte(from));
    else if (what == OP_BROADCAST)
        ps_engine_broadcast(sim.engine, data, next_byte(from));
    else
        ps_engine_disconnect(sim.engine, to ? to->id : 0);
    sim.engine->running = running;
}

static void make_fault(script *from)
{
    static const int errors[FAULTS][4] = {
        [FAULT_RECV] = {-EINTR, -EAGAIN, -ECONNRESET, -ENOMEM},
        [FAULT_SEND] = {-EINTR, -ENOBUFS, -EPIPE, 1}, /* the last: a short write */
        [FAULT_ACCEPT] = {-EMFILE, -ECONNABORTED, -ENOMEM, -EINTR},
        [FAULT_WATCH] = {-ENOMEM, -ENOSPC, -ENOMEM, -ENOSPC},
        [FAULT_OPTION] = {-EINVAL, -ENOBUFS, -EINVAL, -ENOBUFS},
        [FAULT_WAIT] = {-EINTR, -EINTR, -EINTR, -EINTR},
    };
    uint8_t what = next_byte(from);
    if ((what & 7) < FAULTS)
        sim.faults[what & 7] = errors[what & 7][what >> 3 & 3];
    else
        sim.fail_allocation = 1u + (what >> 3);
}

static link *link_at(script *from, unsigned place)
{
    return from->places[place] < 0 ? NULL : &sim.links[from->places[place]];
}

static void act_on(script *from, enum operation what, link *to)
{
    switch (what) {
    case OP_CIR:
        send_cir(from, to);
        break;
    case OP_FRAME:
        send_message(from, to);
        break;
    case OP_BYTES:
        send_bytes(from, to);
        break;
    case OP_FILL:
        send_much(from, to);
        break;
    case OP_READ:
        read_some(from, to);
        break;
    case OP_MANNERS:
        change_manners(from, to);
        break;
    case OP_HALF_CLOSE:
        to->half_closed = true;
        break;
    case OP_CLOSE:
        to->gone = true;
        break;
    default:
        to->was_reset = true;
        break;
    }
}

static bool step(void *driver)
{
    script *from = driver;
    if (from->at == from->end)
        return false;
    uint8_t byte = next_byte(from);
    unsigned place = byte >> 4 & 7;
    enum operation what = (enum operation)(byte & 15);
    link *to = link_at(from, place);
    sim.pause = !(byte & 128);
    if (what == OP_CONNECT)
        from->places[place] = kernel_connect();
    else if (what < OP_WAIT && to)
        act_on(from, what, to);
    else if (what == OP_WAIT)
        sim.now_ns += (uint64_t)1000000 << (next_byte(from) & 15);
    else if (what >= OP_PUSH && what <= OP_DISCONNECT)
        from_elsewhere(from, what, to);
    else if (what == OP_STOP)
        world_stop(next_byte(from) * (uint64_t)10000000);
    else if (what == OP_FAULT)
        make_fault(from);
    return true;
}

/* -- options ------------------------------------------------------------------------------------------------------- */

static ps_limits limits_of(uint8_t sizes, uint8_t times)
{
    static const uint32_t payloads[4] = {16, 300, 20000, 200000}, flights[4] = {1, 2, 5, 1000};
    static const uint64_t pauses[4] = {1, 100, 5000, 100000};
    const uint64_t ms = 1000000;
    bool timed = times & 1;
    return (ps_limits){
        .cir_timeout_ns = timed ? 50 * ms : 0,
        .frame_timeout_ns = timed ? 200 * ms : 0,
        .output_timeout_ns = times & 2 ? 100 * ms : 3600000 * ms,
        .idle_timeout_ns = times & 4 ? 1000 * ms : 0,
        .output_pause = pauses[sizes >> 4 & 3],
        .output_drop = sizes & 64 ? 64 << 20 : 2 * pauses[sizes >> 4 & 3],
        .push_soft = pauses[sizes >> 4 & 3],
        .push_soft_seconds_ns = (times & 2 ? 50 : 3600000) * ms,
        .push_hard = sizes & 64 ? 64 << 20 : 2 * pauses[sizes >> 4 & 3],
        .max_clients = sizes & 128 ? 3 : 100,
        .max_pending_cir = times & 8 ? 2 : 100,
        .max_cir_bytes = times & 16 ? 20 : 4096,
        .max_payload = payloads[sizes & 3],
        .max_in_flight = flights[sizes >> 2 & 3],
        .stream_window = sizes & 16 ? 300 : 5000,
    };
}

static void set_up(script *from)
{
    uint8_t what = next_byte(from), sizes = next_byte(from), times = next_byte(from), more = next_byte(from);
    sim.options = (ps_options){
        .limits = limits_of(sizes, times),
        .framing = what & 3,
        .ask_connects = what >> 3 & 1,
        .has_key = more >> 2 & 1 && (what & 3) == PS_PYSOCK,
        .watch_disconnects = what >> 4 & 1,
        .slow = (times >> 3 & 1u) + (sizes >> 6 & 1u),
        .linger_ns = what & 32 ? PS_LINGER_AUTO : 0,
        .inside_max_ns = what & 64 ? 6000000 : 0,
        .services = WORLD_SERVICES,
        .welcome = (const uint8_t *)"welcome",
        .welcome_size = what & 128 ? 7 : 0,
    };
    sim.tcp = what & 4;
    sim.room = times & 32 ? 10 : times & 64 ? 5000 : 1 << 20;
    sim.batch_wait_ns = times & 128 ? 5000000 : 0;
    sim.order = more & 3;
    sim.fail_allocation = more & 8 ? 1u + (more >> 4) : 0;
    sim.now_ns += more & 128 ? (((uint64_t)1 << 32) - 100) * 1000000 : 0; /* the timers' clock wraps soon */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script from = {.at = data, .end = data + size};
    for (int i = 0; i < PLACES; i++)
        from.places[i] = -1;
    world_reset();
    set_up(&from);
    sim.step = step;
    sim.driver = &from;
    world_run();
    return 0;
}
