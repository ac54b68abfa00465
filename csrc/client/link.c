/* link.c: the blocking client's calls: requests, one by one and pipelined, and what is only sent or awaited.
 *
 * Sending and receiving go on at the same time: a client that only sent until all was sent, and a server whose replies
 * nobody takes, would wait for each other for ever. outgoing.c and incoming.c have the bytes of each way. Before it sleeps
 * the client lingers, as the engine does. */
#include <errno.h>

#include "base/linger.h"
#include "base/sys.h"
#include "client/incoming.h"
#include "client/link.h"
#include "client/outgoing.h"
#include "client/patience.h"
#include "client/share.h"
#include "core/conn.h"

ps_link *ps__link_new(int fd, uint64_t linger_ns, uint32_t max_payload, int *error)
{
    ps_link *link = ps_sys.allocate(sizeof *link);
    *error = -ENOMEM;
    if (!link)
        return NULL;
    *link = (ps_link){.fd = fd, .file = ps__file_of(fd), .max_payload = max_payload, .lock = PTHREAD_MUTEX_INITIALIZER};
    ps__linger_init(&link->linger, linger_ns);
    link->in = ps_sys.allocate(2 * PS_LINK_ROOM);
    link->out = link->in ? link->in + PS_LINK_ROOM : NULL;
    if (link->in)
        return link;
    ps__free(link);
    return NULL;
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
    ps__link_drop_part(link, sink);
    ps__link_close_fd(link);
    ps__free(link->in);
    ps__free(link);
}

/* Frames of the call that the kernel has taken whole. */
static uint32_t handed(const ps_link *link, const ps_caller *call, const ps_sending *s)
{
    return s->next - (call->writes ? ps__link_unsent(link) : 0);
}

/* However a call ended: a frame that is half sent, or input that made no sense, leaves the stream useless. */
static int finish(ps_link *link, ps_caller *call, const ps_sending *s, int result)
{
    ps_sink *sink = call->sink;
    if (result < 0 && !s->cut)
        sink->handed = handed(link, call, s);
    if (link->broken && result == -ECONNRESET)
        result = link->lost; /* another's call broke it, or it was closed */
    bool harmless = result >= 0 || result == -ETIMEDOUT || result == -ECANCELED;
    bool breaks = !harmless || (call->writes && ps__link_is_half_sent(link));
    if (call->writes)
        ps__link_drop_output(link); /* what lies elsewhere is the caller's again */
    if (call->reads && (breaks || link->broken) && link->part.object) {
        sink->enter(sink->context); /* the call may have ended outside: after a sleep, or in a system call's error */
        ps__link_drop_part(link, sink);
    }
    ps__share_leave(link, call, breaks ? result < 0 ? result : -ECONNABORTED : 0);
    if (result >= 0 && call->has_frame) {
        sink->enter(sink->context);
        result = sink->take(sink->context, &call->frame, NULL);
    }
    ps__share_entered(link, call);
    return result < 0 ? result : 0;
}

static uint32_t answered(const ps_caller *call)
{
    return __atomic_load_n(&call->sink->answered, __ATOMIC_RELAXED);
}

static bool wants_to_write(const ps_caller *call, const ps_sending *s)
{
    return call->writes || (s->next < s->count && s->next - answered(call) < s->window);
}

/* Send what may be sent and the kernel takes. Bytes sent, or -errno. */
static ssize_t push_out(ps_link *link, ps_caller *call, ps_sending *s)
{
    if (!wants_to_write(call, s) || !ps__share_write(link, call))
        return 0;
    ps__link_gather(link, s, answered(call));
    ssize_t count = ps__link_send_some(link);
    if (!ps__link_has_output(link))
        ps__share_written(link, call);
    return count;
}

static bool is_sent(const ps_caller *call, const ps_sending *s)
{
    return s->alone && s->next == s->count && !call->writes;
}

static int lead(ps_link *link, ps_caller *call, ps_sending *s, ps_patience *p)
{
    bool idle, shared = ps__share_is_shared(link);
    if (shared)
        call->sink->leave(call->sink->context);
    ssize_t count = push_out(link, call, s);
    if (count < 0 && !ps__link_hung_up(count))
        return (int)count;
    if (is_sent(call, s))
        return 1;
    int done = shared ? ps__share_pass(link, call) : 0;
    if (done)
        return done == 2 ? 0 : done;
    done = ps__link_receive_some(link, call, p, &idle);
    if (done == 0 && (shared || call->has_frame))
        done = ps__share_pass(link, call);
    if (done)
        return done == 2 ? 0 : done;
    if (count < 0 && idle)
        return -ECONNRESET;
    if (!idle)
        return 0;
    if (count > 0) {
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
    return ps__link_cut_frames(link, call);
}

/* Another reads. Who has hung up may have said why: whoever reads hears it, and ends the link. */
static int follow(ps_link *link, ps_caller *call, ps_sending *s)
{
    ssize_t count = push_out(link, call, s);
    if (count < 0 && !ps__link_hung_up(count))
        return (int)count;
    if (count < 0) {
        call->sink->handed = handed(link, call, s);
        s->cut = true;
        ps__link_drop_output(link);
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

static int run(ps_link *link, ps_caller *call, ps_sending *s)
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
    return finish(link, call, s, done);
}

int ps__link_exchange(ps_link *link, uint16_t service, const ps_payload *payloads, uint32_t count,
                        uint32_t first_id, uint32_t window, uint64_t deadline_ns, ps_sink *sink)
{
    uint8_t room[PS_SHARE_ROOM];
    ps_sending s = {.payloads = payloads, .count = count, .first_id = first_id, .window = window, .service = service,
                 .kind = PS_SRM, .deadline_ns = link->timed ? deadline_ns : UINT64_MAX, .trace = sink->trace};
    ps_caller call = {.sink = sink, .deadline_ns = deadline_ns, .first_id = first_id, .count = count,
                      .answer = PS_REPLY, .room = count == 1 ? room : NULL};
    return run(link, &call, &s);
}

int ps__link_ping(ps_link *link, const ps_payload *payload, uint32_t id, uint64_t deadline_ns, ps_sink *sink)
{
    ps_sending s = {.payloads = payload, .count = 1, .first_id = id, .window = 1, .kind = PS_PING,
                 .deadline_ns = UINT64_MAX};
    ps_caller call = {.sink = sink, .deadline_ns = deadline_ns, .first_id = id, .count = 1, .answer = PS_PONG};
    return run(link, &call, &s);
}

int ps__link_send(ps_link *link, const ps_frame *frame, uint64_t deadline_ns, ps_sink *sink)
{
    sink->answered = 0; /* it is one frame, whatever the sink was used for before */
    ps_payload payload = {frame->payload, frame->size};
    ps_sending s = {.payloads = &payload, .count = 1, .first_id = frame->request_id, .window = 1, .service = frame->code,
                 .kind = frame->kind, .flags = frame->flags, .deadline_ns = UINT64_MAX, .alone = true};
    ps_caller call = {.sink = sink, .deadline_ns = deadline_ns};
    if (frame->kind == PS_BYE && !ps__is_still(link->fd, &link->file)) /* before a request it would cost too much */
        return -EPIPE;
    return run(link, &call, &s);
}

int ps__link_receive(ps_link *link, uint64_t deadline_ns, ps_sink *sink)
{
    ps_sending none = {.count = 0};
    ps_caller call = {.sink = sink, .deadline_ns = deadline_ns, .listens = true};
    return run(link, &call, &none);
}
