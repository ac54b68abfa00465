/* frames.c: the bytes that the load generator sends, prepared once, and compared with those that come back: a good reply
 * has, behind its header, byte for byte what was sent. */
#include <errno.h>
#include <string.h>

#include "load/load.h"

/* Upper case, so that a service that makes letters large echoes as well; no line ends; 37 of them, no power of two,
 * so that bytes that moved by 2, 4, 8, ... are noticed. */
static const char pattern[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

enum {
    PERIOD = sizeof pattern - 1,
    LINE = 64, /* bytes of the processor's cache that go together: the kernel copies faster to where one begins */
};

/* One request, or the beginning of it. */
static void write_request(const ps_load *load, uint8_t *to, size_t room)
{
    uint32_t size = load->options.size, head = load->framing->head;
    if (load->framing->write_head)
        load->framing->write_head(to, size);
    for (size_t i = head; i < room && i < head + size; i++)
        to[i] = (uint8_t)pattern[(i - head) % PERIOD];
    if (load->framing->tail && head + size < room)
        to[head + size] = '\n';
}

int ps__load_prepare(ps_load *load)
{
    load->frame = load->framing->head + load->options.size + load->framing->tail;
    load->large = load->frame > PS_LOAD_PIECE;
    load->out_frames = load->large ? 1 : PS_LOAD_ROOM / load->frame + 1;
    size_t size = load->large ? load->framing->head + PS_LOAD_PIECE : (size_t)load->out_frames * load->frame;
    load->memory = ps_sys.allocate(LINE + PS_LOAD_ROOM + size);
    if (!load->memory)
        return -ENOMEM;
    load->in = load->memory + (LINE - (uintptr_t)load->memory % LINE);
    load->in_room = PS_LOAD_ROOM;
    load->out = load->in + PS_LOAD_ROOM;
    for (uint32_t i = 0; i < load->out_frames; i++)
        write_request(load, load->out + (size_t)i * load->frame, size - (size_t)i * load->frame);
    return 0;
}

/* -- comparing ----------------------------------------------------------------------------------------------------- */

const uint8_t *ps__load_piece(const ps_load *load, size_t at, size_t *size)
{
    static const uint8_t line_end = '\n';
    size_t head = load->framing->head, payload = load->options.size, most = 2 * PS_LOAD_PIECE - at;
    const uint8_t *piece = load->out + at;
    if (load->large && at == head + payload) {
        most = 1;
        piece = &line_end;
    } else if (load->large) {
        size_t before = at < head ? 0 : (at - head) / PS_LOAD_PIECE * PS_LOAD_PIECE;
        size_t end = before + PS_LOAD_PIECE < payload ? before + PS_LOAD_PIECE : payload;
        most = head + end - at;
        piece -= before;
    }
    *size = *size < most ? *size : most;
    return piece;
}

/* Say which byte it was. A line that ends too early or too late has the wrong length, like one that is announced so. */
static void differs(ps_load *load, size_t at, const uint8_t *expected, const uint8_t *data)
{
    for (; *data == *expected; at++) {
        data++;
        expected++;
    }
    at %= load->frame;
    size_t head = load->framing->head;
    bool length = at < head || (load->framing->tail && (*data == '\n' || *expected == '\n'));
    load->result.position = at - head;
    ps__load_wrong(load, length ? PS_LOAD_WRONG_LENGTH : PS_LOAD_WRONG_BYTES, *expected, *data);
}

bool ps__load_compare(ps_load *load, size_t at, const uint8_t *data, size_t size)
{
    while (size) {
        size_t piece = size;
        const uint8_t *expected = ps__load_piece(load, at, &piece);
        if (memcmp(data, expected, piece) != 0) {
            differs(load, at, expected, data);
            return false;
        }
        data += piece;
        size -= piece;
        at = (at + piece) % load->frame;
    }
    return true;
}
