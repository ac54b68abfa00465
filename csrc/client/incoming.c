/* incoming.c: from bytes in the kernel to frames, each of which goes to the call that it belongs to. A large reply is received
 * into the object that the caller gets. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "base/wire.h"
#include "client/incoming.h"

enum { CONTROL_MAX = 16 * 1024 * 1024 };

void ps__link_drop_part(ps_link *link, ps_sink *sink)
{
    if (link->part.object)
        sink->object_unref(sink->context, link->part.object);
    link->part.object = NULL;
}

static int begin_part(ps_link *link, const ps_frame *head, const uint8_t *data, size_t size, ps_sink *sink)
{
    ps_part *part = &link->part;
    *part = (ps_part){.head = *head, .have = (uint32_t)size, .room = head->size};
    part->object = sink->object_new(sink->context, head->size, &part->data);
    if (!part->object)
        return -ENOMEM;
    memcpy(part->data, data, size);
    return 0;
}

/* A piece of a stream, behind which more follow, is no call's answer. */
static int deliver_piece(ps_link *link, ps_caller *call, const ps_frame *frame, void *object)
{
    ps_sink *sink = call->sink;
    sink->enter(sink->context);
    if (ps__share_is_awaited(link, frame)) {
        if (object)
            sink->object_unref(sink->context, object);
        return -EPROTO; /* that call had asked for no stream */
    }
    int done = sink->take(sink->context, frame, object);
    if (ps__share_is_shared(link))
        ps__share_tell(link, call);
    return done;
}

/* To whom it belongs: this call, another's, or all. */
static int deliver(ps_link *link, ps_caller *call, const ps_frame *frame, void *object)
{
    ps_sink *sink = call->sink;
    link->frames++;
    if (frame->flags && frame->kind == PS_REPLY)
        return deliver_piece(link, call, frame, object);
    if (!ps__share_is_shared(link)) {
        sink->enter(sink->context);
        return sink->take(sink->context, frame, object);
    }
    if (!object && frame->size <= PS_SHARE_ROOM && ps__share_keep(link, frame))
        return 0;
    sink->enter(sink->context);
    if (ps__share_is_answer(call, frame))
        return sink->take(sink->context, frame, object);
    int handed = ps__share_hand(link, call, frame, object);
    if (handed)
        return handed < 0 ? handed : 0;
    int done = sink->take(sink->context, frame, object);
    ps__share_tell(link, call);
    return done;
}

static int finish_part(ps_link *link, ps_caller *call)
{
    ps_frame frame = link->part.head;
    void *object = link->part.object;
    frame.payload = link->part.data;
    link->part.object = NULL;
    return deliver(link, call, &frame, object);
}

/* Those that have a meaning. */
static uint8_t server_flags(uint8_t kind, uint32_t features)
{
    bool tells = features & (PS_FEATURE_DEADLINE | PS_FEATURE_CANCEL);
    if (kind == PS_ERROR)
        return tells ? PS_NOT_STARTED : 0;
    if (kind == PS_PUSH)
        return features & PS_FEATURE_GAP ? PS_GAP : 0;
    return kind == PS_REPLY && features & PS_FEATURE_STREAM ? PS_MORE : 0;
}

/* Looked at before the payload is waited for. max_payload is about replies, pushes, and what is asked, without the name in
 * front of that: what the server says of itself, its services for example, has to come through a smaller one, too. */
int ps__judge_server(const ps_frame *frame, uint32_t max_payload, uint32_t features)
{
    bool carries = frame->kind == PS_REPLY || frame->kind == PS_PUSH || frame->kind == PS_ASK;
    uint8_t last = features & PS_FEATURE_ASK ? PS_ASK_CANCEL : PS_CHALLENGE;
    uint32_t most = carries || max_payload > CONTROL_MAX ? max_payload : CONTROL_MAX;
    uint8_t flags = frame->flags ? server_flags(frame->kind, features) : 0;
    if (frame->kind < PS_CIR_ACCEPTED || frame->kind > last || frame->flags & ~flags)
        return -EPROTO;
    if (frame->kind == PS_PUSH && frame->flags)
        return frame->size < PS_GAP_SIZE ? -EPROTO : frame->size - PS_GAP_SIZE > most ? -EMSGSIZE : 0;
    return frame->size > (uint64_t)most + (frame->kind == PS_ASK ? PS_ASKED_MAX : 0) ? -EMSGSIZE : 0;
}

static void keep_input(ps_link *link, size_t at)
{
    link->in_have -= at;
    if (at && link->in_have)
        memmove(link->in, link->in + at, link->in_have);
}

int ps__link_cut_frames(ps_link *link, ps_caller *call)
{
    size_t at = 0;
    int done = 0;
    while ((done == 0 || (done == 1 && call->sink->greedy)) && link->in_have - at >= PS_HEADER_SIZE) {
        ps_frame frame = {.payload = NULL};
        const uint8_t *data = link->in + at;
        size_t left = link->in_have - at - PS_HEADER_SIZE;
        ps__read_header(data, &frame);
        int error = ps__judge_server(&frame, link->max_payload, link->features);
        if (error)
            return error;
        if (frame.size > left && frame.size <= PS_LINK_LARGE)
            break;
        if (frame.size > left) {
            call->sink->enter(call->sink->context);
            error = begin_part(link, &frame, data + PS_HEADER_SIZE, left, call->sink);
            done = error ? error : done;
            at = link->in_have;
            break;
        }
        frame.payload = data + PS_HEADER_SIZE;
        int result = deliver(link, call, &frame, NULL);
        done = result ? result : done;
        at += PS_HEADER_SIZE + frame.size;
    }
    keep_input(link, at);
    return done;
}

static ssize_t receive_bytes(ps_link *link)
{
    ps_part *part = &link->part;
    struct iovec iov[2] = {{part->data + part->have, part->room - part->have}, {link->in, PS_LINK_ROOM}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t got = part->object
                      ? ps_sys.recvmsg(link->fd, &message, MSG_DONTWAIT)
                      : ps_sys.recvfrom(link->fd, link->in + link->in_have, PS_LINK_ROOM - link->in_have, MSG_DONTWAIT);
    if (got == 0)
        return -ECONNRESET;
    if (got < 0)
        return ps__link_judged(got);
    size_t inside = 0;
    if (part->object) {
        inside = (size_t)got < iov[0].iov_len ? (size_t)got : iov[0].iov_len;
        part->have += (uint32_t)inside;
    }
    link->in_have += (size_t)got - inside;
    return got;
}

int ps__link_receive_some(ps_link *link, ps_caller *call, ps_patience *p, bool *idle)
{
    ssize_t got = receive_bytes(link);
    *idle = got == 0;
    if (got <= 0)
        return (int)got;
    ps__link_waited(link, p);
    if (link->part.object && link->part.have == link->part.room) {
        int done = finish_part(link, call);
        if (done)
            return done;
    }
    return link->part.object ? 0 : ps__link_cut_frames(link, call);
}
