/* link.h: the client's end of a connection, without Python. */
#ifndef PYSOCK_CLIENT_LINK_H
#define PYSOCK_CLIENT_LINK_H

#include <pthread.h>

#include "base/linger.h"
#include "base/sys.h"
#include "core/conn.h"

/* Where the frames of one call go; all members are called between enter and leave, in the thread that reads. */
typedef struct ps_sink {
    void *context;
    void (*enter)(void *context);
    void (*leave)(void *context);
    /* A signal has come, or may have come. < 0 ends the call. */
    int (*check)(void *context);
    /* One frame; object holds the payload and is the sink's from now on, or is NULL and the payload must be copied.
     * 1: that was all that was awaited, 0: go on, < 0: end the call. */
    int (*take)(void *context, const ps_frame *frame, void *object);
    /* For another thread's call: what an answer becomes, NULL: no memory; and that call keeps it, false: it had one. The
     * latter calls nothing that lets other threads in. May be NULL where one thread uses the link. */
    void *(*result)(void *context, const ps_frame *frame, void *object);
    bool (*keep)(void *context, const ps_frame *frame, void *result);
    /* Is there something that nobody asked for? Then who listens needn't wait. May be NULL. */
    bool (*has)(void *context);
    void *(*object_new)(void *context, size_t size, uint8_t **data);
    void (*object_unref)(void *context, void *object);
    bool greedy;       /* when it has what it wants, it takes what has come beside as well */
    uint32_t answered; /* replies so far: the window of requests in flight moves with it */
    uint32_t handed;   /* where the call failed: so many of its frames the kernel has taken whole */
    const uint8_t *trace; /* that its requests are a part of: PS_TRACE_SIZE bytes; NULL: of none */
} ps_sink;

/* Whether this frame answers one of so many requests: answer is PS_REPLY or PS_PONG. */
static inline bool ps__answers(const ps_frame *frame, uint8_t answer, uint32_t first_id, uint32_t count)
{
    bool kind = frame->kind == answer || (frame->kind == PS_ERROR && answer == PS_REPLY);
    return kind && frame->request_id && frame->request_id - first_id < count;
}

typedef struct ps_payload {
    const uint8_t *data;
    size_t size;
} ps_payload;

/* Of the buffer of each way; and from so many bytes on a payload doesn't go through it. */
enum { PS_LINK_ROOM = 64 * 1024, PS_LINK_LARGE = 16 * 1024 };

struct ps_caller;

typedef struct ps_link {
    int fd;
    ps_file file; /* what the number stands for, as long as it is ours: the program may close it */
    uint32_t max_payload, next_id;
    ps_linger linger;
    uint64_t frames;  /* whole frames so far */
    pthread_t waiter; /* who waited last: the trial's clock is a thread's */
    /* What both ends speak: */
    bool timed;      /* an SRM says how long its client still waits */
    bool takes_back; /* the server takes CANCEL */
    uint32_t features; /* all of it: bits of ps_feature */
    bool broken; /* a frame was left half sent or half understood: nothing can follow */
    uint8_t *in, *out;
    size_t in_have;
    size_t out_at, out_end;
    ps_payload large; /* what is left of a payload sent from where it lies, behind out */
    ps_part part;     /* a large frame being received; object == NULL: none */
    pthread_mutex_t lock; /* of what follows, of next_id and broken: see share.h */
    struct ps_caller *calls; /* that run, in the order in which they came */
    struct ps_caller *reader, *writer;
    struct ps_caller *guard; /* sleeps, and sees after a moment whether nobody reads; NULL: nobody does */
    uint32_t entering; /* calls that have what they waited for, and aren't back in the program yet */
    uint32_t running; /* calls in the list */
    uint64_t turn;       /* how often somebody began to read */
    uint64_t woke_ns;    /* when somebody was woken for an answer */
    bool brisk;          /* who has one comes with the next request at once */
    int lost;            /* what the calls hear of which another broke the link */
    bool wants_to_write; /* somebody does, and another writes */
    bool closing;        /* who leaves last closes the descriptor */
} ps_link;

static inline bool ps__link_has_output(const ps_link *link)
{
    return link->out_at < link->out_end || link->large.size;
}

ps_link *ps__link_new(int fd, uint64_t linger_ns, uint32_t max_payload, int *error);
/* May a server send a frame with this head, where both speak this? 0; -EMSGSIZE, -EPROTO. */
int ps__judge_server(const ps_frame *frame, uint32_t max_payload, uint32_t features);
void ps__link_close_fd(ps_link *link);
void ps__link_free(ps_link *link, ps_sink *sink);
/* In a forked child: close the copy of the descriptor. */
void ps__link_abandon(ps_link *link);
/* Any number of threads may call these at a time: the one that reads hands the others what is theirs.
 * What comes while a frame is being sent is handed to the sink, which wants nothing of it.
 * A deadline is a moment of ps__now_ns; UINT64_MAX: never. -ETIMEDOUT, -ECONNRESET (the other end is gone), -EMSGSIZE
 * (a frame over max_payload), -EPROTO (one that no server sends), -EPIPE (broken before), -ECONNABORTED (by another
 * thread's call, which was left half sent), -EBUSY (this thread is in a call). */
int ps__link_send(ps_link *link, const ps_frame *frame, uint64_t deadline_ns, ps_sink *sink);
/* Until the sink has had a frame that nobody asked for. */
int ps__link_receive(ps_link *link, uint64_t deadline_ns, ps_sink *sink);
int ps__link_exchange(ps_link *link, uint16_t service, const ps_payload *payloads, uint32_t count,
                        uint32_t first_id, uint32_t window, uint64_t deadline_ns, ps_sink *sink);
int ps__link_ping(ps_link *link, const ps_payload *payload, uint32_t id, uint64_t deadline_ns, ps_sink *sink);

#endif
