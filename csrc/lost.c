/* lost.c: what if the program closes the descriptors of an engine under it, by closefrom(3) for example.
 *
 * The numbers are given to what the program opens next. To ask about each before it is used would cost too much. So one
 * file stands for all: the wake-up pipe, which has an inode of its own. It is looked at where a number is to be closed, or
 * the pipe is to be written to or read; when the loop has slept for PS_LOOK_NS in vain, for nothing wakes it any more; and
 * when the wait fails. If it is another file by then no number is ours: they are forgotten, and the loop ends. */
#define _GNU_SOURCE
#include <errno.h>

#include "internal.h"

/* To be written to. */
bool ps__wake_is_ours(const ps_engine *engine)
{
    return ps__is_still(engine->wake[1], &engine->wake_file);
}

static void forget_all(ps_engine *engine)
{
    engine->poll_handle = engine->wake[0] = engine->wake[1] = engine->reserve = engine->newcomer = -1;
    for (uint32_t i = 0; i < engine->master_count; i++)
        engine->masters[i].fd = -1;
    for (uint32_t slot = 0; slot < engine->table.made; slot++)
        ps__slot(&engine->table, slot)->fd = -1;
}

bool ps__descriptors_are_ours(ps_engine *engine)
{
    if (engine->wake[0] < 0) /* closed, or known to be lost: what is open still was opened later */
        return true;
    if (ps__is_still(engine->wake[0], &engine->wake_file))
        return true;
    forget_all(engine);
    ps__fail(engine, -EBADFD);
    return false;
}

void ps__look_at_descriptors(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    ps__descriptors_are_ours(engine);
    pthread_mutex_unlock(&engine->lock);
}
