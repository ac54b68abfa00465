/* share.c: who reads, who writes, and whose answers come, among the threads of one link. */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "client/share.h"

static void count_entering(ps_link *link, ps_caller *call)
{
    if (!call->enters)
        __atomic_add_fetch(&link->entering, 1, __ATOMIC_RELAXED);
    call->enters = true;
}

void ps__share_entered(ps_link *link, const ps_caller *call)
{
    if (call->enters)
        __atomic_sub_fetch(&link->entering, 1, __ATOMIC_RELAXED);
}

void ps__share_awaken(ps_link *link, ps_caller *call)
{
    call->sleeps = false;
    if (link->guard == call)
        link->guard = NULL;
    if (call->finished)
        count_entering(link, call);
    __atomic_store_n(&call->woken, 1, __ATOMIC_RELEASE);
}

void ps__share_rouse(ps_link *link, ps_caller *call)
{
    if (!call->sleeps)
        return;
    ps__share_awaken(link, call);
    ps__futex_wake(&call->woken);
}

static void rouse_all(ps_link *link)
{
    for (ps_caller *call = link->calls; call; call = call->next)
        ps__share_rouse(link, call);
}

bool ps__share_may_read(const ps_link *link, const ps_caller *call)
{
    const ps_caller *reader = link->reader;
    if (!reader || reader == call)
        return !call->waits_for_end;
    return !call->waits_for_end && !call->listens && (reader->rests || (reader->listens && reader->dozes));
}

void ps__share_read(ps_link *link, ps_caller *call)
{
    link->reader = call;
    link->turn++;
    call->reads = true;
}

int ps__share_join(ps_link *link, ps_caller *call)
{
    int result = 0;
    call->thread = pthread_self();
    ps__share_lock(link);
    ps_caller **at = &link->calls;
    for (; *at && result == 0; at = &(*at)->next)
        if (pthread_equal((*at)->thread, call->thread))
            result = -EBUSY;
    if (result == 0 && link->broken)
        result = -EPIPE;
    if (result == 0) {
        __atomic_store_n(at, call, __ATOMIC_RELEASE); /* one store: a fork may come at any moment */
        if (__atomic_add_fetch(&link->running, 1, __ATOMIC_RELAXED) > 1 && !link->brisk)
            link->brisk = ps__now_ns() - link->woke_ns < PS_SHARE_REST_NS;
        if (ps__share_may_read(link, call))
            ps__share_read(link, call);
    }
    ps__share_unlock(link);
    return result;
}

static void wake_next_reader(ps_link *link)
{
    ps_caller *next = NULL;
    for (ps_caller *call = link->calls; call; call = call->next)
        if (call->sleeps && !call->naps && !call->waits_for_end && (!next || (next->listens && !call->listens)))
            next = call;
    if (next)
        ps__share_rouse(link, next);
}

/* Somebody has gone. Whoever comes back may read; where there is a guard it sees whether nobody does. */
static void leave_reading(ps_link *link)
{
    if (link->guard)
        return;
    if (!link->reader)
        wake_next_reader(link);
    else if (link->reader->rests)
        ps__share_rouse(link, link->reader);
}

static void end_link(ps_link *link, int lost)
{
    if (!link->broken)
        link->lost = lost == -ETIMEDOUT || lost == -ECANCELED ? -ECONNABORTED : lost;
    link->broken = true;
    if (link->calls && link->fd >= 0 && ps__is_still(link->fd, &link->file))
        ps_sys.shutdown(link->fd, SHUT_RDWR); /* who sleeps in the kernel wakes */
    rouse_all(link);
}

void ps__share_leave(ps_link *link, ps_caller *call, int lost)
{
    ps__share_lock(link);
    ps_caller **at = &link->calls;
    while (*at && *at != call)
        at = &(*at)->next;
    if (*at) {
        __atomic_store_n(at, call->next, __ATOMIC_RELEASE);
        __atomic_sub_fetch(&link->running, 1, __ATOMIC_RELAXED);
    }
    if (link->reader == call)
        link->reader = NULL;
    if (link->writer == call)
        link->writer = NULL;
    if (link->calls)
        count_entering(link, call);
    if (lost)
        end_link(link, lost);
    else
        leave_reading(link);
    for (ps_caller *other = link->calls; other; other = other->next)
        if (other->waits_for_end)
            ps__share_rouse(link, other);
    if (link->closing && !link->calls)
        ps__link_close_fd(link);
    ps__share_unlock(link);
}

bool ps__share_is_shared(const ps_link *link)
{
    return __atomic_load_n(&link->running, __ATOMIC_RELAXED) > 1;
}

uint32_t ps__share_ids(ps_link *link, uint32_t count)
{
    ps__share_lock(link);
    if (link->next_id > UINT32_MAX - count)
        link->next_id = 0; /* ids of one exchange don't wrap, and 0 means "no id" in what the server sends of itself */
    uint32_t first = link->next_id + 1;
    link->next_id += count;
    ps__share_unlock(link);
    return first;
}

bool ps__share_write(ps_link *link, ps_caller *call)
{
    if (call->writes)
        return true;
    ps__share_lock(link);
    call->writes = !link->writer && !link->broken;
    if (call->writes)
        link->writer = call;
    ps__share_unlock(link);
    return call->writes;
}

void ps__share_written(ps_link *link, ps_caller *call)
{
    call->writes = false;
    ps__share_lock(link);
    link->writer = NULL;
    if (link->wants_to_write)
        rouse_all(link);
    link->wants_to_write = false;
    ps__share_unlock(link);
}

void ps__share_doze(ps_link *link, ps_caller *call)
{
    if (!call->listens)
        return;
    ps__share_lock(link);
    call->dozes = true;
    ps__share_unlock(link);
}

bool ps__share_awake(ps_link *link, ps_caller *call)
{
    if (!call->listens)
        return true;
    ps__share_lock(link);
    call->dozes = false;
    call->reads = link->reader == call;
    ps__share_unlock(link);
    return call->reads;
}

bool ps__share_is_answer(const ps_caller *call, const ps_frame *frame)
{
    return ps__answers(frame, call->answer, call->first_id, call->count);
}

bool ps__share_keep(ps_link *link, const ps_frame *frame)
{
    ps__share_lock(link);
    ps_caller *call = link->calls;
    while (call && !(call->room && ps__share_is_answer(call, frame)))
        call = call->next;
    bool keeps = call && !call->finished;
    if (keeps) {
        call->finished = call->has_frame = true;
        call->frame = *frame;
        call->frame.payload = call->room;
        memcpy(call->room, frame->payload, frame->size);
    }
    ps__share_unlock(link);
    return keeps;
}

static ps_caller *owner_of(ps_link *link, const ps_frame *frame)
{
    ps_caller *call = link->calls;
    while (call && !ps__share_is_answer(call, frame))
        call = call->next;
    return call;
}

bool ps__share_is_awaited(ps_link *link, const ps_frame *frame)
{
    ps__share_lock(link);
    bool awaited = owner_of(link, frame) != NULL;
    ps__share_unlock(link);
    return awaited;
}

/* The answer's object is made before the lock is taken: making one may let other threads in. */
int ps__share_hand(ps_link *link, ps_caller *call, const ps_frame *frame, void *object)
{
    if (!ps__share_is_awaited(link, frame))
        return 0;
    void *result = call->sink->result(call->sink->context, frame, object);
    if (!result)
        return -ENOMEM;
    ps__share_lock(link);
    ps_caller *owner = owner_of(link, frame);
    if (owner && owner->sink->keep(owner->sink->context, frame, result))
        result = NULL;
    if (owner && owner->sink->answered == owner->count)
        owner->finished = true;
    if (owner)
        ps__share_rouse(link, owner);
    ps__share_unlock(link);
    if (result)
        call->sink->object_unref(call->sink->context, result);
    return 1;
}

void ps__share_tell(ps_link *link, ps_caller *call)
{
    ps__share_lock(link);
    for (ps_caller *other = link->calls; other; other = other->next)
        if (other->listens && other != call) {
            other->finished = true;
            ps__share_rouse(link, other);
        }
    ps__share_unlock(link);
}

void ps__link_close_fd(ps_link *link)
{
    if (link->fd >= 0 && ps__is_still(link->fd, &link->file))
        ps_sys.close(link->fd);
    link->fd = -1;
    link->broken = true;
}

void ps__share_break(ps_link *link)
{
    ps__share_lock(link);
    link->closing = true;
    end_link(link, -EPIPE);
    if (!link->calls)
        ps__link_close_fd(link);
    ps__share_unlock(link);
}

void ps__share_abandon(ps_link *link)
{
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    link->lock = fresh; /* who held it may be a thread that this process doesn't have */
    ps_caller *own = link->calls;
    while (own && !pthread_equal(own->thread, pthread_self()))
        own = own->next;
    if (own)
        own->next = NULL;
    link->calls = own;
    link->running = own != NULL;
    link->reader = link->writer = link->guard = NULL;
    link->entering = own && own->enters;
    link->lost = -EPIPE;
}
