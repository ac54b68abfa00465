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
    ps_call *spare;                       /* a call that is used again */
    ps_python *py;                        /* whose engine has called it; NULL: that has ended */
    bool stays;                           /* it goes on when its client has left */
} ps_starter;

/* waiting.c: made by call.c */
extern PyTypeObject *ps__py_type_of_calls;

/* call.c: the type, made once; one of it, and that one made as new */
PyObject *ps__py_call_type(void);
ps_call *ps__py_call_new(ps_starter *origin, PyObject *coroutine);
void ps__py_call_forget(ps_call *call);

/* begin.c: handlers may be called, one is called, and they aren't called any more */
int ps__py_begin_calls(ps_starter *starter);
PyObject *ps__py_begin_call(ps_starter *starter, PyObject *const *args);
void ps__py_end_calls(ps_starter *starter);

#endif
