/* python.h: what the files share that know Python, and the only door of Python.h. objects.c has exceptions and bytes,
 * context.c keeps the context variables of clients apart, failure.c makes ERRORs of what handlers raise, answer.c replies of
 * what they return, at once or later, batch.c and request.c call them (by vectorcall). Those that are async are begun by
 * starter.c and begin.c, go on in call.c and seat.c, and are waited for in waiting.c. sessions.c has TLS by the module ssl.
 * moving.c moves clients to another process. inside.c is what handlers call, guest.c what a loop of the program's calls, server.c gives the engine its hooks (the GIL is
 * taken once a turn), link.c does the same for the client, and inlet.c and outlet.c for one in a loop of the program's.
 *
 * Ownership: objects reach the functions of the ABI as id() numbers that the caller keeps alive for the call; what is
 * kept longer is referenced here. A request object is the handler's; a reply object is held while bytes of it wait.
 * Every reference is taken and dropped with the GIL held. */
#ifndef PYSOCK_PYTHON_PYTHON_H
#define PYSOCK_PYTHON_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#include "base/host.h"
#include "conn/pending.h"
#include "conn/output.h"
#include "core/engine.h"

typedef struct waiting_request {
    ps_pending pending;
    PyObject *client, *request;
} waiting_request;

typedef struct service {
    PyObject *handler; /* NULL: there is no such service */
    bool batch, streams, endless;
    uint32_t max_batch;
    uint64_t max_wait_ns, due_ns;
    uint64_t took_ns, turn_ns; /* what its handlers took of the turn that began then, as far as they are timed */
    waiting_request *waiting;
    size_t waiting_count, waiting_room;
} service;

/* The callbacks, each under its name in the class Callbacks of pysock/engine/contract.py: so they are found. Those that
 * tell of something are in base/host.h, and have the same numbers there. */
#define CALLBACK_NAMES(each)                                                                                           \
    each(CLIENT, "client") each(CONNECT, "connect") each(DISCONNECT, "disconnect") each(DROPPED, "dropped")             \
    each(FAILED, "failed") each(LOG, "log") each(ALLOW, "allow")                                                       \
    each(CHALLENGE, "challenge") each(PROVE, "prove") each(DEFER, "defer") each(ENDED, "ended")                      \
    each(FLOW, "flow") each(ANSWERED, "answered") each(HELD_UP, "held_up")      \
    each(SERVED, "served") each(TRACED, "traced")

#define NUMBER_OF_CALLBACK(name, text) ON_##name,
#define NUMBER_OF_TELL(name, text, numbers) ON_##name,
enum { PS_TELLS(NUMBER_OF_TELL) CALLBACK_NAMES(NUMBER_OF_CALLBACK) CALLBACKS };

/* A request whose handler is called now, or that is answered now: what was counted before. */
typedef struct ps_served {
    ps_conn *conn;
    int number; /* of the service */
    uint32_t size;
    uint64_t bytes_out, errors, came_ns, began_ns;
    bool sampled;
} ps_served;

struct ps_python {
    ps_engine *engine;
    PyObject *callbacks[CALLBACKS];
    PyObject *frame_too_large; /* the exception */
    PyCapsule_Destructor destroy; /* of what its functions share */
    PyObject *raised; /* during a run: the list for what ends it */
    PyThreadState *thread;
    PyObject *entered; /* the context that the loop is in, of the client that was served last; or NULL */
    bool handles;      /* a handler runs */
    const ps_conn *client; /* of the request whose handler runs, and that request; of a batch NULL */
    const ps_frame *request;
    bool is_guest;     /* in a loop of the program's, which looks after signals itself */
    bool turns;        /* a guest's turn runs */
    bool wants_turn;   /* the guest's host was told that one is wanted, since the last one */
    PyObject *spare; /* the memory of the last large request, if nobody kept it: the next one's */
    PyObject *small; /* likewise of the last small one: the next one's, if that is as long */
    PyObject *watched; /* a dict, of functions by the descriptors that they are called for; or NULL */
    PyObject *want; /* of a guest: what is called when a turn is wanted, or NULL */
    PyObject *secured; /* what begins a TLS session of Python's, or NULL; and one of these makes a step: see sessions.c */
    bool aside;
    bool said_no_service;
    uint16_t called;         /* the service of the last request */
    uint64_t timed_until_ns; /* until then each handler is timed; 0: none is */
    int (*on_request)(void *context, ps_conn *conn, const ps_frame *frame, void *object); /* the hook for requests, else */
    int (*on_timed)(void *context, ps_conn *conn, const ps_frame *frame, void *object);   /* and that one */
    uint64_t began_ns; /* when the requests came that are answered now, if not in this turn; else 0 */
    struct {
        uint64_t batch_ns; /* when the handler was called whose batch is answered now; 0: that isn't told of */
        uint64_t slow_ns, least_ns; /* what takes as long is slow; is told of, slow or not: UINT64_MAX: nothing is */
        uint64_t turn_ns, skipped;  /* when the turn began of which the next two are; how many weren't told of */
        uint32_t slow, others;
        uint32_t every, most;      /* each so manieth is told of, 0: none; but at most so many a turn */
        uint32_t until, until_later; /* how many come until then: of requests, and of answers that come later */
        bool is_later; /* the request is answered later */
    } served;
    uint32_t service_count;
    service services[];
};

static inline PyObject *object_of(const ps_conn *conn)
{
    return PyTuple_GET_ITEM((PyObject *)conn->object, 0);
}

static inline PyObject *variables_of(const ps_conn *conn)
{
    return PyTuple_GET_ITEM((PyObject *)conn->object, 1);
}

/* objects.c */
PyObject *ps__py_take_exception(void);
int ps__py_hand_over(PyObject *raised);
void *ps__py_object_new(void *context, size_t size, uint8_t **data);
void *ps__py_object_resize(void *context, void *object, size_t size, uint8_t **data);
void ps__py_object_ref(void *context, void *object);
void ps__py_object_unref(void *context, void *object);

/* context.c */
PyObject *ps__py_with_variables(PyObject *object);
void ps__py_leave_variables(ps_python *py);
PyObject *ps__py_callback(ps_python *py, int callback);
PyObject *ps__py_call_within(ps_python *py, const ps_conn *conn, PyObject *handler, PyObject *request);
int ps__py_enter_variables(ps_python *py, PyObject *variables);
PyObject *ps__py_call_afresh(ps_python *py, PyObject *handler, PyObject *clients, PyObject *requests);

/* failure.c: 0, or what ends the loop */
size_t ps__py_fitting(const char *text, size_t size, size_t most);
int ps__py_callback_failed(ps_python *py, int callback);
int ps__py_finish_call(ps_python *py, int callback, PyObject *result);
int ps__py_failed(ps_python *py, ps_conn *conn, const ps_frame *frame);
int ps__py_log_failure(ps_python *py, uint64_t client_id, const ps_frame *frame);
int ps__py_too_large(ps_python *py, ps_conn *conn, const ps_frame *frame, size_t size);

/* answer.c: the same; but for the first, whose 1 and 0 say whether the work had begun */
int ps__py_on_ended(void *context, void *object, enum ps_why why);
int ps__py_on_answer(void *context, uint64_t handle, void *reply);
int ps__py_on_flow(void *context, void *object, int64_t left, uint64_t limit);
int ps__py_answer_other(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result);
/* What is for later is deferred. 1: it isn't for later. */
int ps__py_defer(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result);
/* What is known of its service goes to its record. */
void ps__py_describe(const ps_python *py, uint64_t handle);
/* Whether this is the loop's own thread: within a turn, or between those of a guest's; then what is done is within one. */
enum { PS_ELSEWHERE, PS_IN_TURN, PS_BETWEEN_TURNS };
int ps__py_where(const ps_python *py);
bool ps__py_has_work(const ps_engine *engine); /* for a turn */
int ps__py_answer_with(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *reply);
int ps__py_nobody_waits(ps_python *py, PyObject *result);
PyObject *ps__py_inside_answer(PyObject *self, PyObject *const *args, Py_ssize_t count);
bool ps__py_answer_of_call(ps_python *py, uint64_t handle, PyObject *reply);

/* heldup.c: the handlers of this service have taken so long; a turn has, with so many requests: 0, or what ends the loop */
void ps__py_took(const ps_python *py, service *s, uint64_t ns);
int ps__py_tell_held_up(ps_python *py, uint64_t worked_ns, uint64_t requests);
int ps__py_who(ps_python *py, uint64_t worked_ns, uint64_t requests); /* the number of the service that took most of it, or -1 */

/* of the same: a request that came then is served now; and is over, unless it is answered later: 0, or what ends the loop */
static inline bool ps__py_notices(const ps_python *py)
{
    return py->served.least_ns != UINT64_MAX;
}
/* Whether this is one that is told of however quick it was. */
static inline bool ps__py_samples(const ps_python *py, uint32_t *until)
{
    if (!py->served.every || (*until > 1 && (*until)--))
        return false;
    *until = py->served.every;
    return true;
}
ps_served ps__py_serves(ps_python *py, ps_conn *conn, const ps_frame *frame, uint64_t came_ns, bool sampled);
int ps__py_tell_served(ps_python *py, const ps_served *what, PyObject *kept); /* kept: of one that is answered only now */
int ps__py_tell_turn(ps_python *py, uint64_t worked_ns, uint64_t requests);
PyObject *ps__py_inside_notice(PyObject *self, PyObject *args);
void ps__py_time_requests(ps_python *py); /* for a while */

/* stream.c */
int ps__py_begin_stream(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result);
int ps__py_on_pull(void *context, ps_conn *conn, uint64_t handle, void *object, uint64_t until_ns);
int ps__py_on_close(void *context, ps_conn *conn, const ps_frame *frame, void *object);
int ps__py_on_more(void *context, uint64_t handle, void *piece);
PyObject *ps__py_inside_more(PyObject *self, PyObject *const *args, Py_ssize_t count);

/* waiting.c: a call of an async handler that goes on, and the request that waits for it */
bool ps__py_is_call(PyObject *object);
bool ps__py_is_new_call(PyObject *object); /* no request waits for it yet */
void ps__py_call_awaited(ps_python *py, PyObject *call, uint64_t handle);
int ps__py_call_unwanted(PyObject *call, enum ps_why why); /* 0, or -1 and an exception */

/* The next two lie here to become part of what calls them: calls cost a small message some hundredths. */
static inline int ps__py_send_reply(ps_python *py, ps_conn *conn, const ps_frame *frame, const void *data, size_t size,
                                    PyObject *object)
{
    if (size > conn->max_reply)
        return ps__py_too_large(py, conn, frame, size);
    if (!(frame->flags & PS_NO_REPLY))
        ps__send(py->engine, conn, PS_REPLY, 0, frame->request_id, data, size, object);
    return 0;
}

static inline int ps__py_answer(ps_python *py, ps_conn *conn, const ps_frame *frame, PyObject *result)
{
    if (PyBytes_CheckExact(result))
        return ps__py_send_reply(py, conn, frame, PyBytes_AS_STRING(result), (size_t)PyBytes_GET_SIZE(result), result);
    return ps__py_answer_other(py, conn, frame, result);
}

/* sessions.c */
int ps__py_on_tls_begin(void *context, const ps_conn *conn, void **session);
int ps__py_on_tls_step(void *context, void *session, enum ps_tls_step step, const uint8_t *data, size_t size, size_t most,
                       ps_tls_made *made);
void ps__py_on_tls_end(void *context, void *session);
PyObject *ps__py_inside_secure(PyObject *self, PyObject *args);

/* moving.c: of the object that has the engine */
PyObject *ps__py_inside_moving(PyObject *self, PyObject *nothing);

/* inside.c */
int ps__py_on_call(void *context, void *function);
int ps__py_on_watched(void *context, int fd);

/* batch.c */
int ps__py_add_to_batch(ps_python *py, service *s, ps_conn *conn, const ps_frame *frame, PyObject *request);
int ps__py_on_batches(void *context, bool all, uint64_t *due_ns);

/* guest.c: of the object that has the engine */
PyObject *ps__py_guest_begin(PyObject *self, PyObject *args);
PyObject *ps__py_guest_poll_fd(PyObject *self, PyObject *nothing);
PyObject *ps__py_guest_turn(PyObject *self, PyObject *nothing);
PyObject *ps__py_guest_end(PyObject *self, PyObject *nothing);

/* request.c */
int ps__py_on_request(void *context, ps_conn *conn, const ps_frame *frame, void *object);
int ps__py_on_request_measured(void *context, ps_conn *conn, const ps_frame *frame, void *object);
int ps__py_on_request_timed(void *context, ps_conn *conn, const ps_frame *frame, void *object);
void *ps__py_request_new(void *context, size_t size, uint8_t **data);
void ps__py_request_unref(void *context, void *object);

#endif
