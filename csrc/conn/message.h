/* message.h: a message as its framing has it: what goes in front of a payload, and messages that many clients get. */
#ifndef PYSOCK_CONN_MESSAGE_H
#define PYSOCK_CONN_MESSAGE_H

#include "core/engine.h"

/* A message without its bytes. */
typedef struct ps_message_head {
    uint8_t kind, flags;
    uint16_t code;
    uint32_t request_id;
} ps_message_head;

/* At most PS_HEADER_SIZE bytes; how many. */
size_t ps__write_head(const ps_framing_facts *framing, uint8_t *to, size_t size, const ps_message_head *head);

/* A push with one user, who drops it; NULL: there is no memory. */
ps_shared *ps__shared_new(const ps_framing_facts *framing, const void *data, size_t size);
void ps__shared_drop(ps_shared *shared); /* also of NULL */

/* The same push, in each framing that the engine has. */
typedef struct ps_many {
    ps_shared *as[PS_RAW + 1]; /* by enum ps_framing */
} ps_many;

int ps__many_make(const ps_engine *engine, const void *data, size_t size, ps_many *many); /* or -ENOMEM, and none is made */
void ps__many_drop(ps_many *many);

#endif
