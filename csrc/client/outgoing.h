/* outgoing.h: what a call sends. */
#ifndef PYSOCK_CLIENT_OUTGOING_H
#define PYSOCK_CLIENT_OUTGOING_H

#include <errno.h>

#include "client/link.h"

/* What is being sent: the requests of one exchange. */
typedef struct ps_sending {
    const ps_payload *payloads;
    uint32_t count, next; /* next: the first that is not gathered yet */
    uint32_t first_id, window;
    uint16_t service;
    uint8_t kind, flags;
    uint64_t deadline_ns; /* that is said to the server; UINT64_MAX: none is */
    const uint8_t *trace; /* that each is a part of, or NULL */
    bool alone; /* nothing is awaited: it ends when all is sent */
    bool cut;   /* the other end took no more, and what was gathered is dropped */
} ps_sending;

/* Of what was gathered, some has gone and some hasn't: nobody looks where in it a frame ends. */
bool ps__link_is_half_sent(const ps_link *link);
void ps__link_drop_output(ps_link *link);
/* How many of the gathered frames the kernel hasn't taken whole. */
uint32_t ps__link_unsent(const ps_link *link);
/* The next requests into the buffer, as far as there is room and the window reaches. */
void ps__link_gather(ps_link *link, ps_sending *s, uint32_t answered);
/* Send what the kernel takes now. Bytes sent, or -errno. */
ssize_t ps__link_send_some(ps_link *link);

/* What the kernel says: 0 if it may work later. ETIMEDOUT is not about our deadline: the other end is gone (tcp(7)). */
static inline ssize_t ps__link_judged(ssize_t result)
{
    if (result == -EAGAIN || result == -EINTR)
        return 0;
    return result == -ETIMEDOUT ? -ECONNRESET : result;
}

/* The other end takes nothing more; what it said before, or the reason, may still be read. */
static inline bool ps__link_hung_up(ssize_t result)
{
    return result == -EPIPE || result == -ECONNRESET;
}

#endif
