/* framing.h: how one framing differs from another, as facts. Whoever wants to know asks for a fact, never for the name of a
 * framing: that is a matter of cut.c and output.c alone, where each framing is code. */
#ifndef PYSOCK_BASE_FRAMING_H
#define PYSOCK_BASE_FRAMING_H

#include <stdbool.h>

#include "pysock.h"

typedef struct ps_framing_facts {
    uint8_t name;      /* enum ps_framing */
    uint8_t head_size; /* bytes in front of a payload */
    bool has_cir;      /* a client is let in by a CIR, and frames have kinds; else it is in at once, and all are SRMs */
    bool has_ids;      /* a reply says which request it answers, so each request has one, or says that it wants none */
    bool has_texts;    /* there are frames that tell a client why: refusals, errors, GOAWAY */
    bool tells_size;   /* in the head: the end of a payload is known before it comes */
    bool ends_line;    /* there is a newline behind each payload */
} ps_framing_facts;

extern const ps_framing_facts ps__framings[];

#endif
