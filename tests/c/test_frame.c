/* Headers, fields and UTF-8: bytes in and out, against tables written by hand from the wire protocol. */
#include <errno.h>

#include "check.h"
#include "pysock.h"
#include "base/wire.h"

/* -- headers ------------------------------------------------------------------------------------------------------- */

static const struct {
    uint32_t size;
    uint8_t kind, flags;
    uint16_t code;
    uint32_t request_id;
    uint8_t bytes[PS_HEADER_SIZE];
} headers[] = {
    {0, 0, 0, 0, 0, {0}},
    {5, PS_CIR, 0, 1, 0, {0, 0, 0, 5, 1, 0, 0, 1, 0, 0, 0, 0}},
    {0x01020304, PS_SRM, 1, 0x0506, 0x0708090A, {1, 2, 3, 4, 2, 1, 5, 6, 7, 8, 9, 10}},
    {UINT32_MAX, 0xFF, 0xFF, UINT16_MAX, UINT32_MAX, {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}},
    {0x80000000, PS_CHALLENGE, 0x80, 0x8000, 0x80000000, {128, 0, 0, 0, 0x88, 128, 128, 0, 128, 0, 0, 0}},
};

static void headers_are_read_and_written(void)
{
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        uint8_t bytes[PS_HEADER_SIZE];
        ps_frame frame = {0};
        ps__write_header(bytes, headers[i].size, headers[i].kind, headers[i].flags, headers[i].code,
                         headers[i].request_id);
        CHECK(memcmp(bytes, headers[i].bytes, sizeof bytes) == 0);
        ps__read_header(bytes, &frame);
        CHECK_EQ(frame.size, headers[i].size);
        CHECK_EQ(frame.kind, headers[i].kind);
        CHECK_EQ(frame.flags, headers[i].flags);
        CHECK_EQ(frame.code, headers[i].code);
        CHECK_EQ(frame.request_id, headers[i].request_id);
        CHECK(frame.payload == NULL);
    }
}

/* -- fields -------------------------------------------------------------------------------------------------------- */

static void fields_come_back(void)
{
    static const uint16_t sizes[] = {0, 1, 8, 255, 256, 4096, UINT16_MAX};
    static uint8_t value[UINT16_MAX], bytes[sizeof sizes * (3 + UINT16_MAX)];
    size_t size = 0;
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        size += ps__put_field(bytes + size, (uint8_t)(i + 1), value, sizes[i]);
    const uint8_t *at = bytes, *end = bytes + size;
    ps_field field;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK_EQ(ps__next_field(&at, end, &field), 1);
        CHECK_EQ(field.tag, i + 1);
        CHECK_EQ(field.size, sizes[i]);
        CHECK(memcmp(field.value, value, field.size) == 0);
    }
    CHECK_EQ(ps__next_field(&at, end, &field), 0);
    CHECK(at == end);
}

static void a_field_that_is_cut_off_is_broken(void)
{
    static const uint8_t whole[] = {PS_TAG_NAME, 0, 3, 'a', 'b', 'c'};
    for (size_t size = 0; size <= sizeof whole; size++) {
        uint8_t *bytes = malloc(size ? size : 1); /* exactly that long: ASan sees a byte too far */
        CHECK(bytes);
        memcpy(bytes, whole, size);
        const uint8_t *at = bytes;
        ps_field field;
        CHECK_EQ(ps__next_field(&at, bytes + size, &field), size == 0 ? 0 : size == sizeof whole ? 1 : -EBADMSG);
        CHECK(at == bytes + (size == sizeof whole ? size : 0));
        free(bytes);
    }
}

/* -- UTF-8 --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *bytes;
    bool valid;
} sequences[] = {
    {"", true},
    {"plain", true},
    {"\x7F", true},             /* the last of one byte */
    {"\xC2\x80", true},         /* the first and last of two */
    {"\xDF\xBF", true},
    {"\xE0\xA0\x80", true},     /* of three */
    {"\xEF\xBF\xBF", true},
    {"\xED\x9F\xBF", true},     /* around the surrogates */
    {"\xEE\x80\x80", true},
    {"\xF0\x90\x80\x80", true}, /* of four */
    {"\xF4\x8F\xBF\xBF", true},
    {"\xC3\xBC\xE2\x82\xAC\xF0\x9F\x90\x8D", true},
    {"\x80", false}, /* not a first byte */
    {"\xBF", false},
    {"\xFE", false},
    {"\xFF", false},
    {"\xF8\x88\x80\x80\x80", false}, /* five bytes */
    {"\xC0\x80", false},             /* longer than needed */
    {"\xC1\xBF", false},
    {"\xE0\x9F\xBF", false},
    {"\xF0\x8F\xBF\xBF", false},
    {"\xED\xA0\x80", false}, /* surrogates */
    {"\xED\xBF\xBF", false},
    {"\xF4\x90\x80\x80", false}, /* above U+10FFFF */
    {"\xF5\x80\x80\x80", false},
    {"\xC2", false}, /* cut off */
    {"\xE2\x82", false},
    {"\xF0\x9F\x90", false},
    {"\xC2" "a", false}, /* not continued */
    {"\xE2\x82" "a", false},
    {"\xE2" "a\xAC", false},
    {"a\xFF" "b", false},
};

static bool is_utf8(const void *bytes, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1); /* exactly that long: ASan sees a byte too far */
    CHECK(copy);
    memcpy(copy, bytes, size);
    bool valid = ps__is_utf8(copy, size);
    free(copy);
    return valid;
}

static void sequences_of_the_table(void)
{
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++)
        if (is_utf8(sequences[i].bytes, strlen(sequences[i].bytes)) != sequences[i].valid)
            check_failed(__FILE__, __LINE__, __func__, sequences[i].bytes);
    CHECK(is_utf8("\0", 1)); /* valid UTF-8; that a name may not have it is the protocol's business */
}

static size_t encode(uint32_t point, uint8_t *to)
{
    size_t more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t first[] = {0, 0xC0, 0xE0, 0xF0};
    for (size_t i = more; i > 0; i--, point >>= 6)
        to[i] = (uint8_t)(0x80 | (point & 0x3F));
    to[0] = (uint8_t)(first[more] | point);
    return more + 1;
}

static void every_code_point(void)
{
    for (uint32_t point = 0; point < 0x200000; point++) {
        uint8_t bytes[4];
        size_t size = encode(point, bytes);
        bool valid = point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF);
        CHECK_EQ(ps__is_utf8(bytes, size), valid);
        for (size_t cut = 1; cut < size; cut++)
            CHECK(!ps__is_utf8(bytes, cut));
    }
}

static void every_pair_of_bytes(void)
{
    for (unsigned pair = 0; pair < 0x10000; pair++) {
        uint8_t bytes[2] = {(uint8_t)(pair >> 8), (uint8_t)pair};
        bool plain = bytes[0] < 0x80 && bytes[1] < 0x80;
        bool two = bytes[0] >= 0xC2 && bytes[0] <= 0xDF && bytes[1] >= 0x80 && bytes[1] <= 0xBF;
        CHECK_EQ(ps__is_utf8(bytes, 2), plain || two);
    }
}

int main(void)
{
    RUN(headers_are_read_and_written);
    RUN(fields_come_back);
    RUN(a_field_that_is_cut_off_is_broken);
    RUN(sequences_of_the_table);
    RUN(every_code_point);
    RUN(every_pair_of_bytes);
    return 0;
}
