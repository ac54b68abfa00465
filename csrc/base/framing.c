/* framing.c: a row of facts for each framing. */
#include "base/framing.h"

const ps_framing_facts ps__framings[] = {
    [PS_PYSOCK] = {.name = PS_PYSOCK, .head_size = PS_HEADER_SIZE, .has_cir = true, .has_ids = true, .has_texts = true,
                   .tells_size = true},
    [PS_U32] = {.name = PS_U32, .head_size = 4, .tells_size = true},
    [PS_LINE] = {.name = PS_LINE, .ends_line = true},
    [PS_RAW] = {.name = PS_RAW},
};
