/* match.c: names held against patterns: * is any text, ? any character, [a-z_] one of these, [!a-z_] none of these. As Python's
 * fnmatch.fnmatchcase(), also of what looks odd: a [ that no ] follows stands for itself; a ] stands for itself where it is the
 * first of a set, a hyphen where it is the first or the last. A character is a code point. */
#include <stdint.h>
#include <string.h>

#include "base/match.h"

typedef struct span {
    const uint8_t *at, *end;
} span;

/* The next character; both texts are valid UTF-8, or as Python has it: surrogates may be in it. */
static uint32_t next_character(span *text)
{
    const uint8_t *at = text->at;
    int more = at[0] < 0x80 ? 0 : at[0] < 0xE0 ? 1 : at[0] < 0xF0 ? 2 : 3;
    uint32_t character = more ? at[0] & (0x3Fu >> more) : at[0];
    for (text->at = ++at; more-- > 0 && at < text->end; text->at = ++at)
        character = character << 6 | (*at & 0x3F);
    return character;
}

/* The ] that ends the set that begins here, behind its [; NULL: there is none. */
static const uint8_t *end_of_set(span set)
{
    if (set.at < set.end && *set.at == '!')
        set.at++;
    if (set.at < set.end && *set.at == ']')
        set.at++;
    return set.at < set.end ? memchr(set.at, ']', (size_t)(set.end - set.at)) : NULL;
}

static bool is_in_set(span set, uint32_t character)
{
    bool negated = set.at < set.end && *set.at == '!', found = false;
    set.at += negated;
    while (set.at < set.end) {
        uint32_t first = next_character(&set), last = first;
        if (set.end - set.at >= 2 && *set.at == '-') {
            set.at++;
            last = next_character(&set);
        }
        found |= first <= character && character <= last;
    }
    return found != negated;
}

/* One character of the pattern that isn't a *, and one of the text. */
static bool take_one(span *pattern, span *text)
{
    uint32_t character = next_character(text), wanted = next_character(pattern);
    if (wanted == '?')
        return true;
    const uint8_t *end = wanted == '[' ? end_of_set(*pattern) : NULL;
    if (!end)
        return wanted == character;
    span set = {pattern->at, end};
    pattern->at = end + 1;
    return is_in_set(set, character);
}

bool ps__matches(const char *pattern, size_t size, const char *text)
{
    const uint8_t *from = (const uint8_t *)pattern, *name = (const uint8_t *)text;
    span wanted = {from, from + size}, left = {name, name + strlen(text)};
    span behind_star = {NULL, NULL}, tried = left; /* tried: from where what is behind the last star was held against it */
    while (left.at < left.end) {
        if (wanted.at < wanted.end && *wanted.at == '*') {
            wanted.at++;
            behind_star = wanted;
            tried = left;
        } else if (wanted.at == wanted.end || !take_one(&wanted, &left)) {
            if (!behind_star.at)
                return false;
            next_character(&tried); /* the star takes one more */
            wanted = behind_star;
            left = tried;
        }
    }
    while (wanted.at < wanted.end && *wanted.at == '*')
        wanted.at++;
    return wanted.at == wanted.end;
}
