/* unit.c: the engine as the extension is built: all of it in one translation unit. What a request goes through lies in
 * seven files; seen together, the compiler makes one piece of it, and direct calls of the table in sys.c. At 8 connections
 * with 256 requests in flight that is worth 6 % of the processor. */
#define _GNU_SOURCE
#include "accept.c"
#include "client.c"
#include "command.c"
#include "conn.c"
#include "engine.c"
#include "frame.c"
#include "input.c"
#include "output.c"
#include "poll_epoll.c"
#include "protocol.c"
#include "python.c"
#include "socket.c"
#include "state.c"
#include "sys.c"
#include "table.c"
#include "timers.c"
#include "wait.c"
