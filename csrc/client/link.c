/* link.c: the blocking client's requests, one by one and pipelined.
 *
 * Sending and receiving go on at the same time: a client that only sent until all was sent, and a server whose replies
 * nobody takes, would wait for each other for ever. Small frames are gathered in one buffer, a large payload is sent from
 * where it lies; a large reply is received into the object the caller gets. Before it sleeps the client lingers, as the
 * engine does. */
#include <errno.h>
#include <string.h>

#include "base/linger.h"
#include "base/sys.h"
#include "base/wire.h"
#include "client/link.h"
#include "client/patience.h"
#include "client/share.h"
#include "core/conn.h"

/* So much is sent at once of many small requests: the server begins with them while the next are gathered. */
enum { ROOM = 64 * 1024, LARGE = 16 * 1024, SEND = 16 * 1024 };

enum { CONTROL_MAX = 16 * 1024 * 1024 };

/* What is being sent: the requests of one exchange. */
typedef struct sending {
    const ps_payload *payloads;
    uint32_t count, next; /* next: the first that is not gathered yet */
    uint32_t first_id, window;
    uint16_t service;
    uint8_t kind, flags;
    uint64_t deadline_ns; /* that is said to the server; UINT64_MAX: none is */
    bool alone; /* nothing is awaited: it ends when all is sent */
} sending;

ps_link *ps__link_new(int fd, uint64_t linger_ns, uint32_t max_payload, int *error)
{
    ps_link *link = ps_sys.allocate(sizeof *link);
    *error = -ENOMEM;
    if (!link)
        return NULL;
    *link = (ps_link){.fd = fd, .file = ps__file_of(fd), .max_payload = max_payload, .lock = PTHREAD_MUTEX_INITIALIZER};
    ps__linger_init(&link->linger, linger_ns);
    link->in = ps_sys.allocate(2 * ROOM);
    link->out = link->in ? link->in + ROOM : NULL;
    if (link->in)
        return link;
    ps__free(link);
    return NULL;
}

static void drop_part(ps_link *link, ps_sink *sink)
{
    if (link->part.object)
        sink->object_unref(sink->context, link->part.object);
    link->part.object = NULL;
}

void ps__link_abandon(ps_link *link)
{
    ps__share_abandon(link);
    ps__link_close_fd(link);
}

void ps__link_free(ps_link *link, ps_sink *sink)
{
    if (!link)
        return;
    drop_part(link, sink);
    ps__link_close_fd(link);
    ps__free(link->in);
    ps__free(link);
}

/* -- sending ------------------------------------------------------------------------------------------------------- */

/* Of what was gathered, some has gone and some hasn't: nobody looks where in it a frame ends. */
static bool is_half_sent(const ps_link *link)
{
    return link->out_at > 0 || (link->large.size && link->out_end == 0);
}

static void drop_output(ps_link *link)
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

/* One frame into the buffer; the payload too, unless it is large. False: there is no room now. */
static bool gather_frame(ps_link *link, const ps_frame *frame, uint64_t deadline_ns)
{
    bool large = frame->size > LARGE;
    size_t needed = PS_HEADER_SIZE + PS_DEADLINE_SIZE + (large ? 0 : frame->size);
    if (link->large.size || needed > ROOM - link->out_end)
        return false;
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

static void gather_requests(ps_link *link, sending *s, uint32_t answered)
{
    while (s->next < s->count && s->next - answered < s->window && link->out_end < SEND) {
        const ps_payload *payload = &s->payloads[s->next];
        ps_frame frame = {.payload = payload->data, .size = (uint32_t)payload->size, .kind = s->kind,
                          .flags = s->flags, .code = s->service, .request_id = s->first_id + s->next};
        if (!gather_frame(link, &frame, s->deadline_ns))
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

/* What the kernel says: 0 if it may work later. ETIMEDOUT is not about our deadline: the other end is gone (tcp(7)). */
static ssize_t judged(ssize_t result)
{
    if (result == -EAGAIN || result == -EINTR)
        return 0;
    return result == -ETIMEDOUT ? -ECONNRESET : result;
}

/* The other end takes nothing more; what it said before, or the reason, may still be read. */
static bool hung_up(ssize_t result)
{
    return result == -EPIPE || result == -ECONNRESET;
}

/* Send what the kernel takes now. Bytes sent, or -errno. */
static ssize_t send_some(ps_link *link)
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
    return judged(count);
}

/* -- receiving ----------------------------------------------------------------------------------------------------- */

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

/* To whom it belongs: this call, another's, or all. */
static int deliver(ps_link *link, ps_caller *call, const ps_frame *frame, void *object)
{
    ps_sink *sink = call->sink;
    link->frames++;
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

/* Looked at before the payload is waited for. max_payload is about replies and pushes: what the server says of itself, its
 * services for example, has to come through a smaller one, too. */
int ps__judge_server(const ps_frame *frame, uint32_t max_payload, uint8_t error_flags)
{
    bool carries = frame->kind == PS_REPLY || frame->kind == PS_PUSH;
    uint32_t most = carries || max_payload > CONTROL_MAX ? max_payload : CONTROL_MAX;
    uint8_t flags = frame->kind == PS_ERROR ? error_flags : 0;
    if (frame->kind < PS_CIR_ACCEPTED || frame->kind > PS_CHALLENGE || frame->flags & ~flags)
        return -EPROTO;
    return frame->size > most ? -EMSGSIZE : 0;
}

static void keep_input(ps_link *link, size_t at)
{
    link->in_have -= at;
    if (at && link->in_have)
        memmove(link->in, link->in + at, link->in_have);
}

/* Hand on the whole frames of the buffer, until the call has what it wants; keep the rest. */
static int cut_frames(ps_link *link, ps_caller *call)
{
    size_t at = 0;
    int done = 0;
    while (done == 0 && link->in_have - at >= PS_HEADER_SIZE) {
        ps_frame frame = {.payload = NULL};
        const uint8_t *data = link->in + at;
        size_t left = link->in_have - at - PS_HEADER_SIZE;
        ps__read_header(data, &frame);
        int error = ps__judge_server(&frame, link->max_payload, link->tells ? PS_NOT_STARTED : 0);
        if (error)
            return error;
        if (frame.size > left && frame.size <= LARGE)
            break;
        if (frame.size > left) {
            call->sink->enter(call->sink->context);
            done = begin_part(link, &frame, data + PS_HEADER_SIZE, left, call->sink);
            at = link->in_have;
            break;
        }
        frame.payload = data + PS_HEADER_SIZE;
        done = deliver(link, call, &frame, NULL);
        at += PS_HEADER_SIZE + frame.size;
    }
    keep_input(link, at);
    return done;
}

static ssize_t receive_bytes(ps_link *link)
{
    ps_part *part = &link->part;
    struct iovec iov[2] = {{part->data + part->have, part->room - part->have}, {link->in, ROOM}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t got = part->object
                      ? ps_sys.recvmsg(link->fd, &message, MSG_DONTWAIT)
                      : ps_sys.recvfrom(link->fd, link->in + link->in_have, ROOM - link->in_have, MSG_DONTWAIT);
    if (got == 0)
        return -ECONNRESET;
    if (got < 0)
        return judged(got);
    size_t inside = 0;
    if (part->object) {
        inside = (size_t)got < iov[0].iov_len ? (size_t)got : iov[0].iov_len;
        part->have += (uint32_t)inside;
    }
    link->in_have += (size_t)got - inside;
    return got;
}

/* Frames that are here, or what the kernel has. 1: the call has what it wants; 0: go on; *idle: nothing came. */
static int receive_some(ps_link *link, ps_caller *call, bool *idle)
{
    ssize_t got = receive_bytes(link);
    *idle = got == 0;
    if (got <= 0)
        return (int)got;
    if (link->part.object && link->part.have == link->part.room) {
        int done = finish_part(link, call);
        if (done)
            return done;
    }
    return link->part.object ? 0 : cut_frames(link, call);
}

/* -- the calls ----------------------------------------------------------------------------------------------------- */

/* However a call ended: a frame that is half sent, or input that made no sense, leaves the stream useless. */
static int finish(ps_link *link, ps_caller *call, int result)
{
    ps_sink *sink = call->sink;
    if (link->broken && result == -ECONNRESET)
        result = link->lost; /* another's call broke it, or it was closed */
    bool harmless = result >= 0 || result == -ETIMEDOUT || result == -ECANCELED;
    bool breaks = !harmless || (call->writes && is_half_sent(link));
    if (call->writes)
        drop_output(link); /* what lies elsewhere is the caller's again */
    if (call->reads && (breaks || link->broken) && link->part.object) {
        sink->enter(sink->context); /* the call may have ended outside: after a sleep, or in a system call's error */
        drop_part(link, sink);
    }
    ps__share_leave(link, call, breaks ? result < 0 ? result : -ECONNABORTED : 0);
    if (result >= 0 && call->has_frame) {
        sink->enter(sink->context);
        result = sink->take(sink->context, &call->frame, NULL);
    }
    return result < 0 ? result : 0;
}

static uint32_t answered(const ps_caller *call)
{
    return __atomic_load_n(&call->sink->answered, __ATOMIC_RELAXED);
}

static bool wants_to_write(const ps_caller *call, const sending *s)
{
    return call->writes || (s->next < s->count && s->next - answered(call) < s->window);
}

/* Send what may be sent and the kernel takes. Bytes sent, or -errno. */
static ssize_t push_out(ps_link *link, ps_caller *call, sending *s)
{
    if (!wants_to_write(call, s) || !ps__share_write(link, call))
        return 0;
    gather_requests(link, s, answered(call));
    ssize_t count = send_some(link);
    if (!ps__link_has_output(link))
        ps__share_written(link, call);
    return count;
}

static bool is_sent(const ps_caller *call, const sending *s)
{
    return s->alone && s->next == s->count && !call->writes;
}

static int lead(ps_link *link, ps_caller *call, sending *s, ps_patience *p)
{
    bool idle, shared = ps__share_is_shared(link);
    if (shared)
        call->sink->leave(call->sink->context);
    ssize_t count = push_out(link, call, s);
    if (count < 0 && !hung_up(count))
        return (int)count;
    if (is_sent(call, s))
        return 1;
    int done = shared ? ps__share_pass(link, call) : 0;
    if (done)
        return done == 2 ? 0 : done;
    done = receive_some(link, call, &idle);
    if (done == 0 && (shared || call->has_frame))
        done = ps__share_pass(link, call);
    if (done)
        return done == 2 ? 0 : done;
    if (count < 0 && idle)
        return -ECONNRESET;
    if (!idle || count > 0) {
        ps__link_waited(link, p);
        return 0;
    }
    return ps__link_wait(link, call, p, wants_to_write(call, s));
}

/* Frames may be here from before, so many that there is no room for more. */
static int look_at_input(ps_link *link, ps_caller *call)
{
    if (link->part.object || link->in_have < PS_HEADER_SIZE)
        return 0;
    return cut_frames(link, call);
}

/* Another reads. Who has hung up may have said why: whoever reads hears it, and ends the link. */
static int follow(ps_link *link, ps_caller *call, sending *s)
{
    ssize_t count = push_out(link, call, s);
    if (count < 0 && !hung_up(count))
        return (int)count;
    if (count < 0) {
        drop_output(link);
        s->next = s->count;
        ps__share_written(link, call);
    }
    if (is_sent(call, s))
        return 1;
    int done = ps__share_follow(link, call, wants_to_write(call, s));
    return done == 0 && call->reads ? look_at_input(link, call) : done;
}

/* Looked at when the others know of the call: what comes from now on is told to it. */
static bool has_something(const ps_caller *call)
{
    if (!call->sink->has)
        return false;
    call->sink->enter(call->sink->context);
    return call->sink->has(call->sink->context);
}

static int run(ps_link *link, ps_caller *call, sending *s)
{
    ps_patience p = {.deadline_ns = call->deadline_ns};
    int done = ps__share_join(link, call);
    if (done)
        return done;
    if (call->listens && has_something(call))
        done = 1;
    else if (call->reads)
        done = look_at_input(link, call);
    while (done == 0)
        done = call->reads ? lead(link, call, s, &p) : follow(link, call, s);
    return finish(link, call, done);
}

int ps__link_exchange(ps_link *link, uint16_t service, const ps_payload *payloads, uint32_t count,
                        uint32_t first_id, uint32_t window, uint64_t deadline_ns, ps_sink *sink)
{
    uint8_t room[PS_SHARE_ROOM];
    sending s = {.payloads = payloads, .count = count, .first_id = first_id, .window = window, .service = service,
                 .kind = PS_SRM, .deadline_ns = link->timed ? deadline_ns : UINT64_MAX};
    ps_caller call = {.sink = sink, .deadline_ns = deadline_ns, .first_id = first_id, .count = count,
                      .answer = PS_REPLY, .room = count == 1 ? room : NULL};
    return run(link, &call, &s);
}

int ps__link_ping(ps_link *link, const ps_payload *payload, uint32_t id, uint64_t deadline_ns, ps_sink *sink)
{
    sending s = {.payloads = payload, .count = 1, .first_id = id, .window = 1, .kind = PS_PING,
                 .deadline_ns = UINT64_MAX};
    ps_caller call = {.sink = sink, .deadline_ns = deadline_ns, .first_id = id, .count = 1, .answer = PS_PONG};
    return run(link, &call, &s);
}

int ps__link_send(ps_link *link, const ps_frame *frame, uint64_t deadline_ns, ps_sink *sink)
{
    sink->answered = 0; /* it is one frame, whatever the sink was used for before */
    ps_payload payload = {frame->payload, frame->size};
    sending s = {.payloads = &payload, .count = 1, .first_id = frame->request_id, .window = 1, .service = frame->code,
                 .kind = frame->kind, .flags = frame->flags, .deadline_ns = UINT64_MAX, .alone = true};
    ps_caller call = {.sink = sink, .deadline_ns = deadline_ns};
    if (frame->kind == PS_BYE && !ps__is_still(link->fd, &link->file)) /* before a request it would cost too much */
        return -EPIPE;
    return run(link, &call, &s);
}

int ps__link_receive(ps_link *link, uint64_t deadline_ns, ps_sink *sink)
{
    sending none = {.count = 0};
    ps_caller call = {.sink = sink, .deadline_ns = deadline_ns, .listens = true};
    return run(link, &call, &none);
}
