/* match.h: names held against patterns. */
#ifndef PYSOCK_BASE_MATCH_H
#define PYSOCK_BASE_MATCH_H

#include <stdbool.h>
#include <stddef.h>

/* Does the whole text match the pattern, as fnmatch.fnmatchcase() of Python would say? Both are UTF-8; the text ends with NUL. */
bool ps__matches(const char *pattern, size_t size, const char *text);

#endif
