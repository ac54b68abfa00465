/* call.h: calls of async handlers, and what begins them. */
#ifndef PYSOCK_PYTHON_CALL_H
#define PYSOCK_PYTHON_CALL_H

#include "python/python.h"

#include <stddef.h>

#if PY_VERSION_HEX >= 0x030C0000
#define PS_HAS_EAGER_TASKS 1
#define PS_MEMBER_BOOL Py_T_BOOL
#define PS_MEMBER_OBJECT _Py_T_OBJECT
#define PS_MEMBER_OFFSET Py_T_PYSSIZET
#define PS_MEMBER_ULONGLONG Py_T_ULONGLONG
#define PS_MEMBER_READONLY Py_READONLY
#else
#define PS_HAS_EAGER_TASKS 0
#include <structmember.h>
#define PS_MEMBER_BOOL T_BOOL
#define PS_MEMBER_OBJECT T_OBJECT
#define PS_MEMBER_OFFSET T_PYSSIZET
#define PS_MEMBER_ULONGLONG T_ULONGLONG
#define PS_MEMBER_READONLY READONLY
#endif

typedef struct ps_call {
    PyObject_HEAD
    struct ps_starter *origin; /* who has begun it */
    PyObject *coroutine;       /* NULL: it is to be given one, before Python 3.12 */
    PyObject *value, *error;   /* what that returned, or raised */
    PyObject *task;            /* which goes on with it, until it ends */
    uint64_t handle;           /* of the request that waits for it, or 0 */
    bool done;
    bool is_new;   /* it waits for something, and no request waits for it yet */
    bool unwanted; /* nor any more */
#if !PS_HAS_EAGER_TASKS
    PyObject *context; /* its own, which the task doesn't know of */
    PyObject *awaited; /* nor of this, to which the first step has come */
    PyObject *gate;    /* a future, for which the task waits until there is a coroutine */
    bool is_retired;   /* there won't be one */
    PyObject *name;    /* of the task, as it was made */
    Py_ssize_t weak_references;
    struct ps_call *next; /* of those that wait */
#endif
} ps_call;

typedef struct ps_starter {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *function, *tasks, *running; /* the handler; pysock.tasks.tasks.Tasks, and its set of those that run */
    PyObject *task_type, *keywords;       /* asyncio.Task, and what it is called with */
    PyObject *told, *plain;               /* what an error is told as, and the starter in Python */
    PyObject *loop, *base, *wants_turn;   /* as long as handlers can be called; else NULL */
    PyObject *enter, *leave;              /* asyncio's functions */
    ps_call *spare;                       /* a call that is used again; before Python 3.12 several */
    uint32_t spares;
    ps_python *py;                        /* whose engine has called it; NULL: that has ended */
    bool stays;                           /* it goes on when its client has left */
} ps_starter;

/* What is asked for at every call: a string made anew of each would cost as much as the answer. */
#if PS_HAS_EAGER_TASKS
#define CALL_NAMES(each) each(loop) each(eager_start) each(context) each(throw)
#else
#define CALL_NAMES(each)                                                                                               \
    each(loop) each(done) each(set_result) each(create_future) each(get_name) each(cancelling) each(_callbacks)        \
    each(_must_cancel) each(_log_destroy_pending) each(_asyncio_future_blocking)
#endif

#define NAME_OF_CALL(name) PyObject *name;
struct ps_names {
    CALL_NAMES(NAME_OF_CALL)
};

/* waiting.c: the type is made by call.c */
extern PyTypeObject *ps__py_type_of_calls;
extern struct ps_names ps__py_names;
int ps__py_intern_names(void);

/* seat.c: to where it waits next; with an exception; and when it has ended and has told its request, NEXT: it is spare */
PySendResult ps__py_call_resume(ps_call *call, PyObject *value, PyObject **result);
PyObject *ps__py_call_interrupt(ps_call *call, PyObject *error);
PySendResult ps__py_call_again(ps_call *call, PyObject **result);

#if !PS_HAS_EAGER_TASKS
/* seat.c: of a call that has its task before its coroutine. It is free while nobody has cancelled the task, and its own
 * while nobody else has got hold of that, which shows by the number of references. What is put or retired is given. */
int ps__py_seat_has(ps_call *seat, PyObject *task);
bool ps__py_seat_is_free(const ps_call *seat);
bool ps__py_seat_is_own(const ps_call *seat, Py_ssize_t references);
void ps__py_seat_open(const ps_call *seat);
void ps__py_seat_retire(ps_call *seat);
void ps__py_seat_put(ps_starter *starter, ps_call *seat);
ps_call *ps__py_seat_take(ps_starter *starter);
#endif

/* call.c: the type, made once; and one of it */
PyObject *ps__py_call_type(void);
ps_call *ps__py_call_new(ps_starter *origin, PyObject *coroutine);

/* Nobody has it any more, and nothing waits for it: it can be another one of the same origin. */
static inline void ps__py_call_forget(ps_call *call)
{
    Py_CLEAR(call->coroutine);
    Py_CLEAR(call->value);
    Py_CLEAR(call->error);
    call->done = false;
}

/* begin.c: handlers may be called, one is called, and they aren't called any more */
int ps__py_begin_calls(ps_starter *starter);
PyObject *ps__py_begin_call(ps_starter *starter, PyObject *const *args);
void ps__py_end_calls(ps_starter *starter);

#endif
