/* share.h: several threads in one link.
 *
 * Each call is a row of the link's list. One of them reads, and hands the others their answers; one at a time writes,
 * from the first byte of a frame to its last. Who neither reads nor writes sleeps, until it has what it wanted, or the
 * role it waits for is free. A call that only listens gives the reading to any other while it sleeps in the kernel: so
 * a request beside it costs what it costs alone. It takes the reading back by itself, a moment later. share.c has the
 * roles, turns.c the waiting. */
#ifndef PYSOCK_CLIENT_SHARE_H
#define PYSOCK_CLIENT_SHARE_H

#include "client/link.h"

/* A role is free before its next owner knows: so long at most is it waited for by who can't sleep for it. */
enum { PS_SHARE_NAP_NS = 1000 * 1000 };
/* Who reads leaves it to one that it has woken, and so long nobody need come. */
enum { PS_SHARE_REST_NS = 100 * 1000 };
/* A signal that comes between the last look for one and the sleep doesn't end the sleep. So the thread in which signals are
 * handled looks again after so long. */
enum { PS_SHARE_SIGNAL_NAP_NS = 50 * 1000 * 1000 };
/* An answer of so many bytes at most is handed to its owner as it is, without the GIL; a larger one as an object. */
enum { PS_SHARE_ROOM = 2048 };

typedef struct ps_caller {
    struct ps_caller *next;
    ps_sink *sink;
    uint64_t deadline_ns;
    pthread_t thread;
    uint32_t first_id, count; /* the requests that it waits for */
    uint8_t answer;           /* PS_REPLY or PS_PONG */
    bool listens;             /* it waits for what nobody asked for */
    bool waits_for_end;       /* it waits for the others to end, and takes no role */
    bool reads, writes;       /* its roles: only its own thread looks */
    /* Under the lock: */
    bool dozes;     /* it reads, and sleeps in the kernel */
    bool rests;     /* it reads, and leaves that to whoever comes */
    bool finished;  /* all that it waits for was brought */
    bool has_frame; /* and is this frame, whose payload is in the room */
    ps_frame frame;
    uint8_t *room;     /* NULL: its answers are handed over as objects */
    bool enters;       /* it is counted among those of the link */
    bool sleeps, naps; /* naps: who gives the reading up doesn't wake it */
    uint64_t turn;     /* who read when it looked last */
    uint32_t woken;
} ps_caller;

/* How long to sleep: so much is left (< 0: for ever), or less, where something else is to be looked at. */
static inline int64_t ps__share_sooner(int64_t left_ns, int64_t most_ns)
{
    return left_ns < 0 || left_ns > most_ns ? most_ns : left_ns;
}

static inline int64_t ps__share_nap(int64_t left_ns)
{
    return ps__is_first_thread() ? ps__share_sooner(left_ns, PS_SHARE_SIGNAL_NAP_NS) : left_ns;
}

static inline void ps__share_lock(ps_link *link)
{
    pthread_mutex_lock(&link->lock);
}

static inline void ps__share_unlock(ps_link *link)
{
    pthread_mutex_unlock(&link->lock);
}

/* Under the lock. Awaken: its futex is still to be woken. */
void ps__share_awaken(ps_link *link, ps_caller *call);
void ps__share_rouse(ps_link *link, ps_caller *call);
bool ps__share_may_read(const ps_link *link, const ps_caller *call);
void ps__share_read(ps_link *link, ps_caller *call);

/* -EBUSY: this thread is in a call already, below a signal's handler. */
int ps__share_join(ps_link *link, ps_caller *call);
/* The call is over: its roles are others'. What ends the link for all is < 0; else it is 0. */
void ps__share_leave(ps_link *link, ps_caller *call, int lost);
/* And its thread is back in the program, or about to be. */
void ps__share_entered(ps_link *link, const ps_caller *call);
bool ps__share_is_shared(const ps_link *link);
/* The first of so many numbers in a row. */
uint32_t ps__share_ids(ps_link *link, uint32_t count);

bool ps__share_write(ps_link *link, ps_caller *call);
void ps__share_written(ps_link *link, ps_caller *call);
/* Around a sleep in the kernel of the one that reads; false: another does now. */
void ps__share_doze(ps_link *link, ps_caller *call);
bool ps__share_awake(ps_link *link, ps_caller *call);

/* A small answer that is all that some call waits for is kept for it: true. */
bool ps__share_keep(ps_link *link, const ps_frame *frame);
/* Let those go on whose answers were brought. 1: the call has its own; 0: it goes on reading; 2: look again; < 0. */
int ps__share_pass(ps_link *link, ps_caller *call);
/* An answer that isn't this call's: 1, it was another's, 0, it is nobody's, < 0. */
int ps__share_hand(ps_link *link, ps_caller *call, const ps_frame *frame, void *object);
/* Something came that nobody had asked for. */
void ps__share_tell(ps_link *link, ps_caller *call);
bool ps__share_is_answer(const ps_caller *call, const ps_frame *frame);
/* Whether it has the id of a request that some call waits for. */
bool ps__share_is_awaited(ps_link *link, const ps_frame *frame);

/* Where another reads. 1: all is there; 0: look again what can be done; < 0. */
int ps__share_follow(ps_link *link, ps_caller *call, bool wants_to_write);

/* Wait until no other call runs, but those that listen. */
int ps__share_drain(ps_link *link, ps_sink *sink);
/* Nothing can follow: all hear it, and leave; the last one closes the descriptor. */
void ps__share_break(ps_link *link);
/* In a forked child: only this thread is left. */
void ps__share_abandon(ps_link *link);

#endif
