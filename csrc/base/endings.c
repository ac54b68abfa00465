/* endings.c: the table of endings.h, in memory. */
#include <stddef.h>

#include "base/endings.h"

#define NOTHING {NULL, 0, 0}
#define REFUSED(code, text) {text, code, PS_CIR_REFUSED}
#define BY_STATE (-1)
#define ROW(name, ...) [PS_END_##name] = {#name, __VA_ARGS__},

const ps_ending ps__endings[PS_ENDS] = {PS_ENDINGS(ROW)};
#undef NOTHING
#undef REFUSED
#undef BY_STATE
#undef ROW

const ps_ending *ps_ending_of(int end)
{
    return end >= 0 && end < PS_ENDS ? &ps__endings[end] : NULL;
}
