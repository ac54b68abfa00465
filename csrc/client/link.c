/* link.c: the blocking client's requests, one by one and pipelined.
 *
 * Sending and receiving go on at the same time: a client that only sent until all was sent, and a server whose replies
 * nobody takes, would wait for each other for ever. Small frames are gathered in one buffer, a large payload is sent from
 * where it lies; a large reply is received into the object the caller gets. Before it sleeps the client lingers, as the
 * engine does. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/linger.h"
#include "base/sys.h"
#include "base/trial.h"
#include "base/wire.h"
#include "client/link.h"
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
} sending;

ps_client *ps__client_new(int fd, uint64_t linger_ns, uint32_t max_payload, int *error)
{
    ps_client *client = ps_sys.allocate(sizeof *client);
    *error = -ENOMEM;
    if (!client)
        return NULL;
    *client = (ps_client){.fd = fd, .file = ps__file_of(fd), .max_payload = max_payload};
    ps__linger_init(&client->linger, linger_ns);
    client->in = ps_sys.allocate(2 * ROOM);
    client->out = client->in ? client->in + ROOM : NULL;
    if (client->in)
        return client;
    ps__free(client);
    return NULL;
}

static void drop_part(ps_client *client, ps_sink *sink)
{
    if (client->part.object)
        sink->object_release(sink->context, client->part.object);
    client->part.object = NULL;
}

static void close_fd(ps_client *client)
{
    if (client->fd >= 0 && ps__is_still(client->fd, &client->file))
        ps_sys.close(client->fd);
    client->fd = -1;
    client->broken = true;
}

void ps__client_close(ps_client *client, ps_sink *sink)
{
    drop_part(client, sink);
    close_fd(client);
}

void ps__client_abandon(ps_client *client)
{
    close_fd(client);
}

void ps__client_free(ps_client *client, ps_sink *sink)
{
    if (!client)
        return;
    ps__client_close(client, sink);
    ps__free(client->in);
    ps__free(client);
}

/* -- sending ------------------------------------------------------------------------------------------------------- */

static bool has_output(const ps_client *client)
{
    return client->out_at < client->out_end || client->large.size;
}

/* Of what was gathered, some has gone and some hasn't: nobody looks where in it a frame ends. */
static bool is_half_sent(const ps_client *client)
{
    return client->out_at > 0 || (client->large.size && client->out_end == 0);
}

static void drop_output(ps_client *client)
{
    client->out_at = client->out_end = 0;
    client->large = (ps_payload){NULL, 0};
}

/* One frame into the buffer; the payload too, unless it is large. False: there is no room now. */
static bool gather_frame(ps_client *client, const ps_frame *frame)
{
    bool large = frame->size > LARGE;
    size_t needed = PS_HEADER_SIZE + (large ? 0 : frame->size);
    if (client->large.size || needed > ROOM - client->out_end)
        return false;
    uint8_t *to = client->out + client->out_end;
    ps__write_header(to, frame->size, frame->kind, frame->flags, frame->code, frame->request_id);
    client->out_end += needed;
    if (large)
        client->large = (ps_payload){frame->payload, frame->size};
    else if (frame->size)
        memcpy(to + PS_HEADER_SIZE, frame->payload, frame->size);
    return true;
}

static void gather_requests(ps_client *client, sending *s, uint32_t answered)
{
    while (s->next < s->count && s->next - answered < s->window && client->out_end < SEND) {
        const ps_payload *payload = &s->payloads[s->next];
        ps_frame frame = {.payload = payload->data, .size = (uint32_t)payload->size, .kind = PS_SRM,
                          .code = s->service, .request_id = s->first_id + s->next};
        if (!gather_frame(client, &frame))
            return;
        s->next++;
    }
}

static void sent(ps_client *client, size_t count)
{
    size_t gathered = client->out_end - client->out_at;
    if (count < gathered) {
        client->out_at += count;
        return;
    }
    client->out_at = client->out_end = 0;
    client->large.data += count - gathered;
    client->large.size -= count - gathered;
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
static ssize_t send_some(ps_client *client)
{
    struct iovec iov[2] = {{client->out + client->out_at, client->out_end - client->out_at},
                           {(void *)(uintptr_t)client->large.data, client->large.size}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = client->large.size ? 2 : 1};
    if (!has_output(client))
        return 0;
    ssize_t count = client->large.size
                        ? ps_sys.sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : ps_sys.sendto(client->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0)
        sent(client, (size_t)count);
    return judged(count);
}

/* -- receiving ----------------------------------------------------------------------------------------------------- */

static int begin_part(ps_client *client, const ps_frame *head, const uint8_t *data, size_t size, ps_sink *sink)
{
    ps_part *part = &client->part;
    *part = (ps_part){.head = *head, .have = (uint32_t)size, .room = head->size};
    part->object = sink->object_new(sink->context, head->size, &part->data);
    if (!part->object)
        return -ENOMEM;
    memcpy(part->data, data, size);
    return 0;
}

static int finish_part(ps_client *client, ps_sink *sink)
{
    ps_frame frame = client->part.head;
    void *object = client->part.object;
    frame.payload = client->part.data;
    client->part.object = NULL;
    client->frames++;
    return sink->take(sink->context, &frame, object);
}

/* Looked at before the payload is waited for. max_payload is about replies and pushes: what the server says of itself, its
 * services for example, has to come through a smaller one, too. */
static int judge(const ps_client *client, const ps_frame *frame)
{
    bool carries = frame->kind == PS_REPLY || frame->kind == PS_PUSH;
    uint32_t most = carries || client->max_payload > CONTROL_MAX ? client->max_payload : CONTROL_MAX;
    if (frame->kind < PS_CIR_ACCEPTED || frame->kind > PS_CHALLENGE || frame->flags)
        return -EPROTO;
    return frame->size > most ? -EMSGSIZE : 0;
}

/* Hand on the whole frames of the buffer, until the sink has what it wants; keep the rest. */
static int cut_frames(ps_client *client, ps_sink *sink)
{
    size_t at = 0;
    int done = 0;
    while (done == 0 && client->in_have - at >= PS_HEADER_SIZE) {
        ps_frame frame = {.payload = NULL};
        const uint8_t *data = client->in + at;
        size_t left = client->in_have - at - PS_HEADER_SIZE;
        ps__read_header(data, &frame);
        int error = judge(client, &frame);
        if (error)
            return error;
        if (frame.size > left && frame.size <= LARGE)
            break;
        if (frame.size > left) {
            done = begin_part(client, &frame, data + PS_HEADER_SIZE, left, sink);
            at = client->in_have;
            break;
        }
        frame.payload = data + PS_HEADER_SIZE;
        client->frames++;
        done = sink->take(sink->context, &frame, NULL);
        at += PS_HEADER_SIZE + frame.size;
    }
    client->in_have -= at;
    if (at && client->in_have)
        memmove(client->in, client->in + at, client->in_have);
    return done;
}

static ssize_t receive_bytes(ps_client *client)
{
    ps_part *part = &client->part;
    struct iovec iov[2] = {{part->data + part->have, part->room - part->have}, {client->in, ROOM}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t got = part->object
                      ? ps_sys.recvmsg(client->fd, &message, MSG_DONTWAIT)
                      : ps_sys.recvfrom(client->fd, client->in + client->in_have, ROOM - client->in_have, MSG_DONTWAIT);
    if (got == 0)
        return -ECONNRESET;
    if (got < 0)
        return judged(got);
    size_t inside = 0;
    if (part->object) {
        inside = (size_t)got < iov[0].iov_len ? (size_t)got : iov[0].iov_len;
        part->have += (uint32_t)inside;
    }
    client->in_have += (size_t)got - inside;
    return got;
}

/* Frames that are here already, or what the kernel has. 1: the sink has what it wants; 0: go on; *idle: nothing came. */
static int receive_some(ps_client *client, ps_sink *sink, bool *idle)
{
    ssize_t got = receive_bytes(client);
    *idle = got == 0;
    if (got <= 0)
        return (int)got;
    sink->enter(sink->context);
    if (client->part.object && client->part.have == client->part.room) {
        int done = finish_part(client, sink);
        if (done)
            return done;
    }
    return client->part.object ? 0 : cut_frames(client, sink);
}

/* -- waiting ------------------------------------------------------------------------------------------------------- */

/* A little longer than CPython's switch interval, as in base/host.c: other threads may go on, the server perhaps among them. */
enum { INSIDE_NS = 6 * 1000 * 1000 };

/* A signal that comes between the last look for one and the sleep doesn't end the sleep. So the thread in which signals
 * are handled looks again now and then. */
enum { NAP_NS = 50 * 1000 * 1000 };

typedef struct patience {
    uint64_t deadline_ns, began_ns, linger_until_ns; /* the last two are 0 where nothing has been waited for yet */
    bool lingers;
} patience;

static void weigh_lingering(ps_client *client, uint64_t now)
{
    ps_trial *trial = &client->linger.trial;
    if (!client->linger.tried || !ps__trial_is_due(trial, now, client->frames))
        return;
    if (pthread_equal(client->waiter, pthread_self()))
        ps__trial_step(trial, now, ps__cpu_ns(), client->frames);
    else
        ps__trial_begin_half(trial, now, ps__cpu_ns(), client->frames); /* what it began on another thread's clock */
    client->waiter = pthread_self();
}

static void begin_to_wait(ps_client *client, patience *p, uint64_t now)
{
    weigh_lingering(client, now);
    p->lingers = ps__linger_now(&client->linger);
    p->began_ns = now;
    p->linger_until_ns = p->lingers ? now + client->linger.window_ns : now;
}

static void waited_enough(ps_client *client, patience *p)
{
    if (p->lingers)
        ps__linger_hit(&client->linger);
    *p = (patience){.deadline_ns = p->deadline_ns};
}

static int64_t nap_ns(int64_t left_ns)
{
    bool naps = (left_ns < 0 || left_ns > NAP_NS) && ps__is_first_thread();
    return naps ? NAP_NS : left_ns;
}

/* Nothing moves: go round once more while the window lasts, then sleep until something can move. */
static int wait_a_little(ps_client *client, patience *p, ps_sink *sink)
{
    uint64_t now = ps__now_ns();
    if (!p->linger_until_ns)
        begin_to_wait(client, p, now);
    if (now >= p->deadline_ns)
        return -ETIMEDOUT;
    if (now < p->linger_until_ns) {
        if (now - p->began_ns > INSIDE_NS)
            sink->leave(sink->context);
        return 0;
    }
    struct pollfd fd = {.fd = client->fd, .events = (short)(POLLIN | (has_output(client) ? POLLOUT : 0))};
    sink->leave(sink->context);
    int ready = ps_sys.ppoll(&fd, 1, nap_ns(p->deadline_ns == UINT64_MAX ? -1 : (int64_t)(p->deadline_ns - now)));
    if (p->lingers)
        ps__linger_miss(&client->linger, ps__now_ns() - now);
    p->lingers = false;
    if (ready != -EINTR && ready != 0)
        return ready < 0 ? ready : 0;
    sink->enter(sink->context);
    return sink->check(sink->context);
}

/* -- the calls ----------------------------------------------------------------------------------------------------- */

/* However a call ended: a frame that is half sent, or input that made no sense, leaves the stream useless. */
static int finish(ps_client *client, ps_sink *sink, int result)
{
    if (result < 0 && result != -ETIMEDOUT && result != -ECANCELED)
        client->broken = true;
    if (is_half_sent(client))
        client->broken = true;
    drop_output(client); /* what lies elsewhere is the caller's again */
    if (client->broken && client->part.object) {
        sink->enter(sink->context); /* the call may have ended outside: after a sleep, or in a system call's error */
        drop_part(client, sink);
    }
    sink->leave(sink->context);
    return result < 0 ? result : 0;
}

static int go_on(ps_client *client, sending *s, patience *p, ps_sink *sink)
{
    bool idle;
    if (s)
        gather_requests(client, s, sink->answered);
    ssize_t count = send_some(client);
    if (count < 0 && !hung_up(count))
        return (int)count;
    int done = receive_some(client, sink, &idle);
    if (done)
        return done;
    if (count < 0 && idle)
        return -ECONNRESET;
    if (!idle || count > 0) {
        waited_enough(client, p);
        return 0;
    }
    return wait_a_little(client, p, sink);
}

/* Frames may be here from before, so many that there is no room for more. */
static int look_at_input(ps_client *client, ps_sink *sink)
{
    sink->enter(sink->context);
    return client->part.object ? 0 : cut_frames(client, sink);
}

static int run(ps_client *client, sending *s, uint64_t deadline_ns, ps_sink *sink)
{
    patience p = {.deadline_ns = deadline_ns};
    int done = look_at_input(client, sink);
    while (done == 0)
        done = go_on(client, s, &p, sink);
    return finish(client, sink, done);
}

int ps__client_exchange(ps_client *client, uint16_t service, const ps_payload *payloads, uint32_t count,
                        uint32_t first_id, uint32_t window, uint64_t deadline_ns, ps_sink *sink)
{
    sending s = {.payloads = payloads, .count = count, .first_id = first_id, .window = window, .service = service};
    return client->broken ? -EPIPE : run(client, &s, deadline_ns, sink);
}

/* Send the rest, and receive meanwhile. */
static int send_rest(ps_client *client, uint64_t deadline_ns, ps_sink *sink)
{
    patience p = {.deadline_ns = deadline_ns};
    int done = look_at_input(client, sink);
    while (done == 0 && has_output(client))
        done = go_on(client, NULL, &p, sink);
    return done;
}

int ps__client_send(ps_client *client, const ps_frame *frame, uint64_t deadline_ns, ps_sink *sink)
{
    if (frame->kind == PS_BYE && !ps__is_still(client->fd, &client->file)) /* before a request it would cost too much */
        return -EPIPE;
    if (client->broken || !gather_frame(client, frame))
        return -EPIPE;
    ssize_t count = send_some(client);
    int done = count < 0 && !hung_up(count) ? (int)count : 0;
    if (done == 0 && has_output(client))
        done = send_rest(client, deadline_ns, sink);
    return finish(client, sink, done);
}

int ps__client_receive(ps_client *client, uint64_t deadline_ns, ps_sink *sink)
{
    return client->broken ? -EPIPE : run(client, NULL, deadline_ns, sink);
}
