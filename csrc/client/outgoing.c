/* outgoing.c: from requests to bytes in the kernel: small frames are gathered in one buffer, a large payload is sent from
 * where it lies. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "base/wire.h"
#include "client/outgoing.h"

/* So much is sent at once of many small requests: the server begins with them while the next are gathered. */
enum { SEND = 16 * 1024 };

bool ps__link_is_half_sent(const ps_link *link)
{
    return link->out_at > 0 || (link->large.size && link->out_end == 0);
}

uint32_t ps__link_unsent(const ps_link *link)
{
    uint32_t unsent = 0;
    for (size_t at = 0; at < link->out_end;) {
        ps_frame frame;
        ps__read_header(link->out + at, &frame);
        at += PS_HEADER_SIZE + frame.size;
        unsent += at > link->out_at && frame.kind != PS_TRACE;
    }
    return link->out_end == 0 && link->large.size ? 1 : unsent;
}

void ps__link_drop_output(ps_link *link)
{
    link->out_at = link->out_end = 0;
    link->large = (ps_payload){NULL, 0};
}

/* How long the client still waits, in microseconds, in front of the payload: its size, 0 where that is too long to be
 * said. */
static uint32_t put_time(uint8_t *to, uint64_t deadline_ns)
{
    uint64_t now = ps__now_ns(), left = deadline_ns > now ? (deadline_ns - now) / 1000 : 0;
    if (left > UINT32_MAX)
        return 0;
    ps__put32(to, (uint32_t)left);
    return PS_DEADLINE_SIZE;
}

static void put_trace(ps_link *link, const uint8_t *trace, uint32_t request_id)
{
    uint8_t *to = link->out + link->out_end;
    ps__write_header(to, PS_TRACE_SIZE, PS_TRACE, 0, 0, request_id);
    memcpy(to + PS_HEADER_SIZE, trace, PS_TRACE_SIZE);
    link->out_end += PS_HEADER_SIZE + PS_TRACE_SIZE;
}

/* One frame into the buffer, behind what it is a part of; the payload too, unless it is large. False: there is no room now. */
static bool gather_frame(ps_link *link, const ps_frame *frame, uint64_t deadline_ns, const uint8_t *trace)
{
    bool large = frame->size > PS_LINK_LARGE;
    size_t before = trace ? PS_HEADER_SIZE + PS_TRACE_SIZE : 0;
    size_t needed = before + PS_HEADER_SIZE + PS_DEADLINE_SIZE + (large ? 0 : frame->size);
    if (link->large.size || needed > PS_LINK_ROOM - link->out_end)
        return false;
    if (trace)
        put_trace(link, trace, frame->request_id);
    uint8_t *to = link->out + link->out_end;
    uint32_t time = deadline_ns == UINT64_MAX ? 0 : put_time(to + PS_HEADER_SIZE, deadline_ns);
    uint8_t flags = time ? frame->flags | PS_DEADLINE : frame->flags;
    ps__write_header(to, time + frame->size, frame->kind, flags, frame->code, frame->request_id);
    link->out_end += PS_HEADER_SIZE + time + (large ? 0 : frame->size);
    if (large)
        link->large = (ps_payload){frame->payload, frame->size};
    else if (frame->size)
        memcpy(to + PS_HEADER_SIZE + time, frame->payload, frame->size);
    return true;
}

void ps__link_gather(ps_link *link, ps_sending *s, uint32_t answered)
{
    while (s->next < s->count && s->next - answered < s->window && link->out_end < SEND) {
        const ps_payload *payload = &s->payloads[s->next];
        ps_frame frame = {.payload = payload->data, .size = (uint32_t)payload->size, .kind = s->kind,
                          .flags = s->flags, .code = s->service, .request_id = s->first_id + s->next};
        if (!gather_frame(link, &frame, s->deadline_ns, s->trace))
            return;
        s->next++;
    }
}

static void sent(ps_link *link, size_t count)
{
    size_t gathered = link->out_end - link->out_at;
    if (count < gathered) {
        link->out_at += count;
        return;
    }
    link->out_at = link->out_end = 0;
    link->large.data += count - gathered;
    link->large.size -= count - gathered;
}

ssize_t ps__link_send_some(ps_link *link)
{
    struct iovec iov[2] = {{link->out + link->out_at, link->out_end - link->out_at},
                           {(void *)(uintptr_t)link->large.data, link->large.size}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = link->large.size ? 2 : 1};
    if (!ps__link_has_output(link))
        return 0;
    ssize_t count = link->large.size
                        ? ps_sys.sendmsg(link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : ps_sys.sendto(link->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0)
        sent(link, (size_t)count);
    return ps__link_judged(count);
}
