/* proxy.c: the header of the PROXY protocol, versions 1 and 2, read from bytes that came; it knows no socket. The document
 * is proxy-protocol.txt of HAProxy. pysock/wire/proxy/reading.py reads by the same rules; tests hold the two against each
 * other, and against a parser that others wrote.
 *
 * Nothing of a header is believed before all of it is there and found good. One that breaks a rule is refused, never
 * guessed at. What it says of a connection of the proxy's own (LOCAL), and of addresses of unknown kinds (UNSPEC), counts for
 * nothing: anybody can write that. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/proxy.h"
#include "base/texts.h"

enum {
    SIGNATURE = 12,
    LONGEST_UNIQUE_ID = 128,
    TYPE_CRC32C = 0x03,
    TYPE_UNIQUE_ID = 0x05,
    TYPE_SSL = 0x20,
    SSL_HEAD = 5, /* what is in front of the TLVs of an SSL */
};

static const uint8_t proxy_signature[SIGNATURE] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};
static const char begin_v1[] = "PROXY ";

static int broken_header(ps_proxy_header *header, const char *why)
{
    header->wrong = why;
    return -EBADMSG;
}

static uint32_t number16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

/* -- the checksum ---------------------------------------------------------------------------------------------------- */

/* CRC-32C (RFC 3720, B.4), four bits at a time: headers are short, and rare. */
static uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t size)
{
    static const uint32_t table[16] = {0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3,
                                       0x61C69362, 0x7198540D, 0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9,
                                       0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75};
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}

/* Of all of the header, with zeros for the checksum itself. */
static bool has_sum(const uint8_t *data, size_t size, const uint8_t *sum)
{
    static const uint8_t zeros[4];
    uint32_t crc = crc32c(UINT32_MAX, data, (size_t)(sum - data));
    crc = crc32c(crc, zeros, sizeof zeros);
    crc = ~crc32c(crc, sum + sizeof zeros, size - (size_t)(sum - data) - sizeof zeros);
    return crc == (number16(sum) << 16 | number16(sum + 2));
}

/* -- TLVs -------------------------------------------------------------------------------------------------------------- */

typedef struct proxy_tlvs {
    const uint8_t *sum; /* the value of a checksum; NULL: there is none */
    bool has_ssl;
    size_t kept;        /* bytes of those that are kept: whole ones, PS_PROXY_TLVS at most */
} proxy_tlvs;

static bool are_whole(const uint8_t *at, const uint8_t *end)
{
    while (end - at >= 3 && end - at - 3 >= (ptrdiff_t)number16(at + 1))
        at += 3 + number16(at + 1);
    return at == end;
}

static bool read_tlv(const uint8_t *value, uint8_t type, size_t size, proxy_tlvs *found)
{
    switch (type) {
    case TYPE_CRC32C: {
        bool good = !found->sum && size == 4;
        found->sum = value;
        return good;
    }
    case TYPE_UNIQUE_ID:
        return size <= LONGEST_UNIQUE_ID;
    case TYPE_SSL: {
        bool good = !found->has_ssl && size >= SSL_HEAD && are_whole(value + SSL_HEAD, value + size);
        found->has_ssl = true;
        return good;
    }
    default:
        return true;
    }
}

static bool read_tlvs(const uint8_t *at, const uint8_t *end, proxy_tlvs *found)
{
    const uint8_t *begin = at;
    bool fits = true;
    if (!are_whole(at, end))
        return false;
    for (; at < end; at += 3 + number16(at + 1)) {
        size_t size = number16(at + 1);
        if (!read_tlv(at + 3, at[0], size, found))
            return false;
        fits = fits && (size_t)(at - begin) + 3 + size <= PS_PROXY_TLVS;
        if (fits)
            found->kept = (size_t)(at - begin) + 3 + size;
    }
    return true;
}

/* -- version 2 ------------------------------------------------------------------------------------------------------- */

/* Bytes of the addresses of a family and its protocol; -1: there is no such thing. */
static int addresses_of(uint8_t kind)
{
    switch (kind) {
    case 0x00:
        return 0;
    case 0x11:
    case 0x12:
        return 12;
    case 0x21:
    case 0x22:
        return 36;
    case 0x31:
    case 0x32:
        return 2 * PS_PROXY_PATH;
    default:
        return -1;
    }
}

static void read_source(const uint8_t *at, uint8_t kind, ps_proxy_header *header)
{
    size_t size = kind >> 4 == 1 ? 4 : 16;
    header->family = kind >> 4 == 1 ? AF_INET : kind >> 4 == 2 ? AF_INET6 : AF_UNIX;
    if (header->family == AF_UNIX)
        return;
    memcpy(header->source, at, size);
    header->port = (uint16_t)number16(at + 2 * size);
}

static int read_v2(const uint8_t *data, ps_proxy_header *header)
{
    const uint8_t *end = data + header->size, *at = data + PS_PROXY_HEAD;
    proxy_tlvs found = {.sum = NULL};
    header->is_local = data[SIGNATURE] == 0x20;
    header->kept = PS_PROXY_HEAD;
    if (header->is_local)
        return 1;
    int addresses = addresses_of(data[SIGNATURE + 1]);
    if (data[SIGNATURE] != 0x21 || addresses < 0 || end - at < addresses)
        return broken_header(header, PS_TEXT_BROKEN_PROXY_HEADER);
    bool good = read_tlvs(at + addresses, end, &found);
    if (!good && !addresses)
        return 1; /* an address of an unknown kind */
    if (!good)
        return broken_header(header, PS_TEXT_BROKEN_PROXY_HEADER);
    if (found.sum && !has_sum(data, header->size, found.sum))
        return broken_header(header, PS_TEXT_PROXY_CHECKSUM);
    header->kept = PS_PROXY_HEAD + (uint32_t)addresses + (uint32_t)found.kept;
    if (addresses)
        read_source(at, data[SIGNATURE + 1], header);
    return 1;
}

/* -- version 1 ------------------------------------------------------------------------------------------------------- */

/* The next word of the line, as a text; behind it there is a blank, or the end of the line. */
static bool next_word(const uint8_t **at, const uint8_t *end, bool is_last, char *word, size_t room)
{
    const uint8_t *blank = memchr(*at, ' ', (size_t)(end - *at)), *stop = blank ? blank : end;
    size_t size = (size_t)(stop - *at);
    if (!blank != is_last || !size || size >= room || memchr(*at, 0, size))
        return false;
    memcpy(word, *at, size);
    word[size] = 0;
    *at = stop + !is_last;
    return true;
}

static bool read_port(const char *word, uint16_t *port)
{
    uint32_t number = 0;
    if (word[0] == '0' && word[1])
        return false;
    for (; *word; word++) {
        if (*word < '0' || *word > '9' || number > UINT16_MAX)
            return false;
        number = number * 10 + (uint32_t)(*word - '0');
    }
    *port = (uint16_t)number;
    return number <= UINT16_MAX;
}

static bool read_line(const uint8_t *at, const uint8_t *end, int family, ps_proxy_header *header)
{
    char source[48], destination[48], source_port[8], destination_port[8];
    uint8_t unused[16];
    uint16_t port;
    if (!next_word(&at, end, false, source, sizeof source) ||
        !next_word(&at, end, false, destination, sizeof destination) ||
        !next_word(&at, end, false, source_port, sizeof source_port) ||
        !next_word(&at, end, true, destination_port, sizeof destination_port))
        return false;
    header->family = (uint8_t)family;
    return inet_pton(family, source, header->source) == 1 && inet_pton(family, destination, unused) == 1 &&
           read_port(source_port, &header->port) && read_port(destination_port, &port);
}

static bool is_word(const uint8_t *at, const uint8_t *end, const char *word)
{
    size_t size = strlen(word);
    return (size_t)(end - at) >= size && memcmp(at, word, size) == 0;
}

static int read_v1(const uint8_t *data, ps_proxy_header *header)
{
    const uint8_t *at = data + strlen(begin_v1), *end = data + header->size - 2;
    header->kept = header->size;
    if (end[0] != '\r' || end < at)
        return broken_header(header, PS_TEXT_BROKEN_PROXY_HEADER);
    if (is_word(at, end, "UNKNOWN") && (end - at == 7 || at[7] == ' '))
        return 1; /* whatever follows */
    bool is_v4 = is_word(at, end, "TCP4 "), is_v6 = is_word(at, end, "TCP6 ");
    if ((is_v4 || is_v6) && read_line(at + 5, end, is_v4 ? AF_INET : AF_INET6, header))
        return 1;
    return broken_header(header, PS_TEXT_BROKEN_PROXY_HEADER);
}

/* -- either ------------------------------------------------------------------------------------------------------------ */

static bool begins_as(const uint8_t *data, size_t size, const void *with, size_t most)
{
    return memcmp(data, with, size < most ? size : most) == 0;
}

/* -EBADMSG; else 0, and the size, as far as it is known. */
static int find_size(const uint8_t *data, size_t size, int versions, ps_proxy_header *header)
{
    if (versions & PS_PROXY_2 && begins_as(data, size, proxy_signature, SIGNATURE)) {
        header->version = 2;
        header->size = size < PS_PROXY_HEAD ? 0 : PS_PROXY_HEAD + number16(data + PS_PROXY_HEAD - 2);
        return 0;
    }
    if (!(versions & PS_PROXY_1) || !begins_as(data, size, begin_v1, strlen(begin_v1)))
        return broken_header(header, PS_TEXT_NO_PROXY_HEADER);
    const uint8_t *newline = memchr(data, '\n', size < PS_PROXY_LINE ? size : PS_PROXY_LINE);
    header->version = 1;
    header->size = newline ? (uint32_t)(newline - data) + 1 : 0;
    return newline || size < PS_PROXY_LINE ? 0 : broken_header(header, PS_TEXT_BROKEN_PROXY_HEADER);
}

int ps_proxy_read(const uint8_t *data, size_t size, int versions, ps_proxy_header *header)
{
    *header = (ps_proxy_header){.wrong = NULL};
    int error = find_size(data, size, versions, header);
    if (error < 0 || !header->size || size < header->size)
        return error;
    return header->version == 1 ? read_v1(data, header) : read_v2(data, header);
}
