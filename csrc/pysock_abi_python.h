/* The declarations of Python's side, csrc/python: see pysock_abi.h. Objects cross as id() numbers, borrowed for the call. */

typedef struct ps_python ps_python;

/* 1: the functions below run Python code in the interpreter whose module builtins this is, and that is the main one. 0:
 * PyGILState_Ensure knows threads, not interpreters, and leads into another. */
int ps_python_is_main(uintptr_t builtins);

/* services: a tuple of Service; callbacks: a Callbacks; frame_too_large: the exception FrameTooLarge. */
ps_python *ps_python_new(const ps_options *options, uintptr_t services, uintptr_t callbacks, uintptr_t frame_too_large,
                         int *error);
/* After a run, or instead of one. What other threads may call stays safe until the memory is freed. */
void ps_python_close(ps_python *python);
void ps_python_free(ps_python *python);
ps_engine *ps_python_engine(ps_python *python);
/* From the first turn on count there, which must stay until the engine is freed: PS_M_COUNTERS numbers, and PS_METER_ROW for
 * each service and one more. 0 or -ENOMEM. */
int ps_python_measure(ps_python *python, uint64_t *counters, uint64_t *rows);
/* Appends functions to a list that keep the GIL, which a call by cffi lets go. Four for handlers, that is, for the loop's
 * own thread: push(client_id, payload) and disconnect(client_id) -> bool; broadcast(payload) and push_to(ids, payload) ->
 * int. Two for any thread: select(name, uid,
 * among, but) -> the ids as bytes; answer(handle, reply) -> the sum of 1: somebody has waited, and 2: a turn is wanted; or
 * -errno. Again for handlers:
 * current() -> (client_id, request_id, service, deadline, wants_reply), or None; and waiting(handle), the same of a deferred
 * one. For any thread: ask(client_id, frame, size) -> the sum of 1: sent, or left to the loop, and 2: a turn is wanted; or
 * -errno; more(handle, piece) of a stream -> 1: more may follow now, 0: not now, -1: nobody waits; or, where it
 * isn't the loop's, 1 or -errno; and later(function) -> 0, or -errno: the loop calls it when the turn is over;
 * notice(seconds, every, most): requests that take so long are told of, less than 0: none is slow, and each so manieth of all,
 * 0: none, but at most so many of them a turn; moving() -> the functions that move clients to
 * another process, see python/moving.c. And four for
 * a loop of the program's: begin(raised, want) -> 0 or as ps_python_run; poll_fd() -> int, to be watched; turn() -> bool, whether it goes on;
 * end() -> as ps_python_run. 0: ps_python_free is called with the last of them. */
int ps_python_inside(ps_python *python, uintptr_t list);
/* Appends two types to a list: of calls of async handlers, and of what begins them. */
int ps_python_tasks(uintptr_t list);
/* Runs the loop. -ECANCELED: an exception ended it, which was appended to the list raised. -EBUSY: it runs already; -EINVAL:
 * it has run. -ECHILD: a handler forked, and this is the child. -EBADFD: the program has
 * closed the descriptors of the loop. */
int ps_python_run(ps_python *python, uintptr_t raised);

/* The client's end. inbox: a deque; raised: a list. Frames are appended as (kind, flags, code, request id, payload). */
typedef struct ps_pylink ps_pylink;
ps_pylink *ps_pylink_new(int fd, uint64_t linger_ns, uint32_t max_payload, int *error);
/* Any number of threads may call at a time; -EBUSY: this one is in a call, below a signal's handler. */
/* Wait until no other call runs, but those that listen. */
int ps_pylink_drain(ps_pylink *pylink, uintptr_t raised);
/* Every other call ends and every later one fails; the last one closes the descriptor. */
void ps_pylink_close(ps_pylink *pylink);
void ps_pylink_free(ps_pylink *pylink);
/* What both ends speak, once the client is let in: bits of ps_feature. */
void ps_pylink_agree(ps_pylink *pylink, uint32_t features);
/* Whether the last call left it so that every later one fails. */
int ps_pylink_broken(const ps_pylink *pylink);
/* In a forked child: close the copy of the descriptor. Every later call fails. */
void ps_pylink_abandon(ps_pylink *pylink);
uint32_t ps_pylink_next_id(ps_pylink *pylink);
int ps_pylink_send(ps_pylink *pylink, uint8_t kind, uint8_t flags, uint16_t code, uint32_t request_id, uintptr_t payload,
                 int64_t timeout_ns, uintptr_t inbox, uintptr_t raised);
/* Until there is a frame, whatever it is; or one that nobody asked for, has: or the inbox isn't empty before. */
int ps_pylink_receive(ps_pylink *pylink, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised);
int ps_pylink_listen(ps_pylink *pylink, int has, int64_t timeout_ns, uintptr_t inbox, uintptr_t raised);
/* Append a function to a list: request(kind, service, payloads, most, results, window, timeout_ns, inbox, raised). Unlike
 * a call through cffi it has the GIL as it begins, and gives it away only where it waits. kind: PS_SRM, or PS_PING of one.
 * payloads: a list of bytes-like objects; results: a list of the same length, each item replaced by the reply (bytes) or by
 * a tuple (code, request id, payload, flags) for an ERROR or a PONG. It returns how many ERRORs there are; -EINVAL: a payload isn't
 * contiguous bytes, or has more than `most` of them; nothing was sent. 0: the link is freed with the function; -ENOMEM. */
int ps_pylink_method(ps_pylink *pylink, uintptr_t list);
/* The descriptor isn't its own after all. */
void ps_pylink_disown(ps_pylink *pylink);

/* What comes in on a client's connection that somebody else's loop watches. Appends two functions to a list, which keep
 * the GIL and never wait: receive(fd, waiting, inbox) takes what the kernel has; agree(features) as above. A reply goes to waiting.pop(request id), by
 * its set_result(payload), which may fail if its done() says True; any other frame to the deque inbox, as above. 0 or
 * -errno: -ECONNRESET (the end), -EMSGSIZE, -EPROTO; nothing may follow those. */
int ps_pyinlet_new(uint32_t max_payload, uintptr_t list);
/* Appends the type pysock.engine.outlet.Outlet to a list. 0 or -ENOMEM. */
int ps_pyoutlet_type(uintptr_t list);
