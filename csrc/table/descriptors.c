/* descriptors.c: the numbers of an engine's descriptors: how one comes and goes, and what if the program closes them under
 * it, by closefrom(3) for example.
 *
 * The numbers are given to what the program opens next. To ask about each before it is used would cost too much. So one
 * file stands for all: the wake-up pipe, which has an inode of its own. It is looked at where a number is to be closed, or
 * the pipe is to be written to or read; when the loop has slept for PS_LOOK_NS in vain, for nothing wakes it any more; and
 * when the wait fails. If it is another file by then no number is ours: they are forgotten, and the loop ends.
 *
 * It may also close a single one. The poll's is looked at when the wait fails, and before it is closed: all that have no
 * inode of their own are alike, so what is one of these can't be told from it. A client's is in the poll as long as it is
 * read, and whoever has got its number isn't: it is looked at where the number is to be closed, and when the server stops,
 * but not before each message, for that would be a system call more. */
#include <errno.h>

#include "base/host.h"
#include "base/socket.h"
#include "base/sys.h"
#include "table/descriptors.h"
#include "table/table.h"

/* To be written to. */
bool ps__wake_is_ours(const ps_engine *engine)
{
    return ps__is_still(engine->wake[1], &engine->wake_file);
}

static void forget_all(ps_engine *engine)
{
    engine->poll_handle = engine->wake[0] = engine->wake[1] = engine->reserve = engine->newcomer = -1;
    engine->timer = -1;
    for (uint32_t i = 0; i < engine->listener_count; i++)
        engine->listeners[i].fd = -1;
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

bool ps__poll_is_ours(ps_engine *engine)
{
    if (!ps__descriptors_are_ours(engine))
        return false;
    if (engine->poll_handle < 0 || ps__is_still(engine->poll_handle, &engine->poll_file))
        return true;
    engine->poll_handle = -1;
    ps__fail(engine, -EBADFD);
    return false;
}

void ps__look_at_poll(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    ps__poll_is_ours(engine);
    pthread_mutex_unlock(&engine->lock);
}

void ps__look_at_descriptors(ps_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    ps__descriptors_are_ours(engine);
    pthread_mutex_unlock(&engine->lock);
}

/* -- one comes, one goes ------------------------------------------------------------------------------------------- */

/* accept4(), and the descriptor written down as the newcomer, until it has a row or is turned away. */
int ps__accept_newcomer(ps_engine *engine, int master, struct sockaddr *peer, socklen_t *size)
{
    pthread_mutex_lock(&engine->lock);
    int fd = ps_sys.accept4(master, peer, size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    engine->newcomer = fd < 0 ? -1 : fd;
    pthread_mutex_unlock(&engine->lock);
    return fd;
}

/* close(), never again, whatever it returns: Linux has freed the number (close(2)). Others ask the kernel about *fd under
 * the lock. */
void ps__close_fd(ps_engine *engine, int *fd)
{
    pthread_mutex_lock(&engine->lock);
    ps__descriptors_are_ours(engine); /* else *fd is -1 by now */
    ps_sys.close(*fd);
    *fd = -1;
    pthread_mutex_unlock(&engine->lock);
}

/* The poll, in which it was, has said that it doesn't know it, or can't. Only a socket could be ours, and only one that is
 * there already. */
static bool is_foreign(const ps_engine *engine, int fd, int said)
{
    if (said != -ENOENT && said != -EPERM)
        return false;
    if (ps__family(fd) == -ENOTSOCK)
        return true;
    if (engine->poll->add(engine->poll_handle, fd, 0, 0) < 0)
        return false;
    engine->poll->remove(engine->poll_handle, fd);
    return true;
}

bool ps__has_foreign_fd(const ps_engine *engine, const ps_conn *conn)
{
    if (!conn->interest)
        return false; /* nobody knows */
    int said = engine->poll->change(engine->poll_handle, conn->fd, ps__id(conn), conn->interest);
    return is_foreign(engine, conn->fd, said);
}

void ps__close_client(ps_engine *engine, ps_conn *conn)
{
    int said = engine->poll->remove(engine->poll_handle, conn->fd);
    if (!conn->interest || !is_foreign(engine, conn->fd, said)) {
        ps__close_fd(engine, &conn->fd);
        return;
    }
    pthread_mutex_lock(&engine->lock);
    conn->fd = -1;
    pthread_mutex_unlock(&engine->lock);
}

/* In a forked child, where there is one thread and no other lock than the one that fork() waited for. */
void ps__leave_fd(int *fd)
{
    if (*fd >= 0)
        ps_sys.close(*fd);
    *fd = -1;
}
