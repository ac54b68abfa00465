/* later.h: requests of one size, which the server of echo.h answers later, with themselves. Where that can't be, for want of
 * memory or because the loop can't be told, they are answered at once. */
#ifndef PYSOCK_LATER_H
#define PYSOCK_LATER_H

#include "conn/defer.h"
#include "echo.h"
#include "loop/command.h"

enum { LATER_SIZE = 77 };

static echo_object *later_object(echo *e, const uint8_t *payload)
{
    echo_object *o = malloc(sizeof *o + LATER_SIZE);
    CHECK(o);
    o->users = 1;
    memcpy(o->data, payload, LATER_SIZE);
    e->objects++;
    return o;
}

static int later_answer(void *context, uint64_t handle, void *answer)
{
    echo *e = context;
    ps_work work;
    CHECK(e->inside);
    ps_conn *conn = ps__defer_done(e->engine, handle, &work);
    if (conn)
        ps__send(e->engine, conn, PS_REPLY, 0, work.frame.request_id, ((echo_object *)answer)->data, LATER_SIZE, NULL);
    if (work.object)
        echo_object_unref(e, work.object);
    return 0;
}

static int later_ended(void *context, void *object, enum ps_why why)
{
    CHECK(((echo *)context)->inside && ((echo_object *)object)->users > 0 && why != PS_WHY_NONE);
    return 1;
}

static int later_request(void *context, ps_conn *conn, const ps_frame *frame, void *o)
{
    echo *e = context;
    uint64_t handle = frame->size == LATER_SIZE ? ps__defer(e->engine, conn, frame) : 0;
    if (!handle)
        return echo_request(context, conn, frame, o);
    CHECK(!o && ps__defer_keep(e->engine, handle, later_object(e, frame->payload)));
    echo_object *answer = later_object(e, frame->payload);
    if (ps__post_answer(e->engine, handle, answer) < 0) {
        later_answer(e, handle, answer);
        echo_object_unref(e, answer);
    }
    return 0;
}

#endif
