/* fuzz_cut.c: cutting bytes into frames, and fields out of frames. Input: four bytes of options, then what a client sends.
 *
 * However a stream arrives, whole or in any pieces, the client must get the same bytes back and the handlers must be given
 * the same requests. Of fields and texts the same is asked from readers that are as plain as can be. */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* -- fields and texts ---------------------------------------------------------------------------------------------- */

/* RFC 3629, section 4, as its grammar has it. */
static size_t utf8_char(const uint8_t *s, size_t size)
{
    static const struct {
        uint8_t first, last, second_from, second_to, length;
    } rows[] = {{0x00, 0x7F, 0, 0, 1},       {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
                {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
                {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (s[0] < rows[i].first || s[0] > rows[i].last)
            continue;
        if (size < rows[i].length || (rows[i].length > 1 && (s[1] < rows[i].second_from || s[1] > rows[i].second_to)))
            return 0;
        for (size_t k = 2; k < rows[i].length; k++)
            if (s[k] < 0x80 || s[k] > 0xBF)
                return 0;
        return rows[i].length;
    }
    return 0;
}

static void check_text(const uint8_t *data, size_t size)
{
    size_t at = 0, length = 1;
    while (at < size && length) {
        length = utf8_char(data + at, size - at);
        at += length;
    }
    REQUIRE(ps__is_utf8(data, size) == (at == size));
}

static void check_fields(const uint8_t *data, size_t size)
{
    static uint8_t again[3 + UINT16_MAX];
    const uint8_t *at = data, *end = data + size;
    ps_field field;
    int more;
    while ((more = ps__next_field(&at, end, &field)) > 0) {
        REQUIRE(field.value >= data && field.value + field.size == at && at <= end);
        size_t length = ps__put_field(again, field.tag, field.value, field.size);
        REQUIRE(length == 3u + field.size && memcmp(again, at - length, length) == 0);
        check_text(field.value, field.size);
    }
    REQUIRE(more == 0 ? at == end : more == -EBADMSG);
}

static void check_header(const uint8_t *data)
{
    uint8_t again[PS_HEADER_SIZE];
    ps_frame frame;
    ps__read_header(data, &frame);
    ps__write_header(again, frame.size, frame.kind, frame.flags, frame.code, frame.request_id);
    REQUIRE(memcmp(again, data, sizeof again) == 0);
}

/* -- streams ------------------------------------------------------------------------------------------------------- */

typedef struct stream {
    buffer bytes;
    size_t at;
    uint64_t chance;
    uint32_t most; /* of one piece; 0: all at once */
    bool ended;
} stream;

static bool step(void *driver)
{
    stream *it = driver;
    sim.pause = true;
    if (!sim.link_count) {
        kernel_connect();
    } else if (it->at < it->bytes.size) {
        size_t left = it->bytes.size - it->at, size = left;
        it->chance = it->chance * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
        if (it->most)
            size = 1 + (it->chance >> 33) % it->most;
        size = size < left ? size : left;
        kernel_send(&sim.links[0], it->bytes.data + it->at, size);
        it->at += size;
    } else if (!it->ended) {
        it->ended = sim.links[0].half_closed = true;
    } else {
        return false;
    }
    return true;
}

static ps_limits limits_of(uint8_t options)
{
    static const uint32_t payloads[4] = {1, 5, 1000, 150000};
    return (ps_limits){.output_pause = 1 << 20, .output_drop = 64 << 20, .push_soft = 8 << 20,
                   .push_soft_seconds_ns = 10000000000, .push_hard = 32 << 20, .max_clients = 1, .max_pending_cir = 1,
                       .max_cir_bytes = options & 4 ? 300 : 4, .max_payload = payloads[options & 3],
                       .max_in_flight = 1000};
}

static void play(stream *it, const uint8_t options[4], uint32_t most)
{
    world_reset();
    sim.options = (ps_options){.limits = limits_of(options[1]), .framing = options[0] & 3, .services = WORLD_SERVICES,
                               .welcome = (const uint8_t *)"", .watch_disconnects = 1};
    sim.room = 1 << 20;
    sim.only_echoes = true;
    sim.step = step;
    sim.driver = it;
    it->at = 0;
    it->ended = false;
    it->most = most;
    world_run();
}

/* A frame large enough to be received into an object of its own; so may be the one after it. */
static void add_large(buffer *to, uint32_t framing, uint32_t size)
{
    uint8_t head[PS_HEADER_SIZE] = {0};
    if (framing == PS_PYSOCK)
        ps__write_header(head, size, PS_SRM, 0, 0, size);
    else
        ps__put32(head, size);
    buffer_add(to, head, framing == PS_PYSOCK ? PS_HEADER_SIZE : framing == PS_U32 ? 4 : 0);
    uint8_t block[251]; /* a prime: a shift is seen */
    for (uint32_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)(i * 7 + 1);
    for (uint32_t done = 0; done < size; done += sizeof block)
        buffer_add(to, block, size - done < sizeof block ? size - done : sizeof block);
}

static void fill(stream *it, const uint8_t options[4], const uint8_t *data, size_t size)
{
    static const uint8_t cir[] = "\0\0\0\4\1\0\0\1\0\0\0\0PSK1";
    uint32_t framing = options[0] & 3, large = options[0] >> 4 == 15 ? 15000u + (options[2] >> 3) * 2000u : 0;
    it->bytes.size = 0;
    it->chance = options[3];
    if (options[0] & 4)
        buffer_add(&it->bytes, cir, sizeof cir - 1);
    buffer_add(&it->bytes, data, size);
    for (int i = 0; large && i < 3; i++) {
        add_large(&it->bytes, framing, large + (i == 2 && options[0] & 8));
        buffer_add(&it->bytes, data, size);
    }
}

static void check_cuts(const uint8_t options[4], const uint8_t *data, size_t size)
{
    static stream it;
    static buffer down, given;
    static const uint32_t cuts[8] = {1, 3, 12, 13, 100, 1000, 20000, 70000};
    fill(&it, options, data, size);
    play(&it, options, 0);
    uint8_t reason = sim.links[0].reason;
    down.size = given.size = 0;
    buffer_add(&down, sim.links[0].down.data, sim.links[0].down.size);
    buffer_add(&given, sim.links[0].given.data, sim.links[0].given.size);
    uint32_t most = cuts[options[2] & 7];
    play(&it, options, it.bytes.size > 4000 && most < 100 ? 3000 : most);
    const link *again = &sim.links[0];
    REQUIRE(again->reason == reason);
    REQUIRE(again->down.size == down.size && (!down.size || !memcmp(again->down.data, down.data, down.size)));
    REQUIRE(again->given.size == given.size && (!given.size || !memcmp(again->given.data, given.data, given.size)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    check_fields(data + 4, size - 4);
    check_text(data + 4, size - 4);
    if (size >= 4 + PS_HEADER_SIZE)
        check_header(data + 4);
    if ((data[0] & 3) != PS_RAW) /* there the pieces are the messages */
        check_cuts(data, data + 4, size - 4);
    return 0;
}
