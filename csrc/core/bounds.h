/* bounds.h: how much of everything, each with its reason. */
#ifndef PYSOCK_CORE_BOUNDS_H
#define PYSOCK_CORE_BOUNDS_H

#ifndef PYSOCK_LARGE
#define PYSOCK_LARGE (16 * 1024) /* the fuzzers have other sizes */
#endif

enum {
    PS_READ_MAX = 64 * 1024,   /* bytes read from one client a turn: nobody waits long for a busy neighbour */
    PS_LARGE = PYSOCK_LARGE,   /* a frame above this is received straight into the object the handler gets */
    PS_LARGE_TURN = 1 << 20,   /* bytes of one large frame read a turn: it may take more, the copy is the kernel's only */
    PS_GUESS_MAX = 1 << 20,    /* the largest frame whose successor is guessed to be alike */
    PS_GUESSED_BYTES = 16 << 20, /* room for frames that are guessed and not complete, of all clients together, roughly */
    PS_OUT_ROOM = 24 * 1024,   /* replies of one client gathered for one send: a client with more in flight takes the
                                  first while the next are made */
    PS_LENT_MAX = 256 * 1024,  /* the same for those sent from objects */
    PS_BY_REFERENCE = 4 * 1024, /* a reply from this size is sent from the handler's object: an iovec more is cheaper
                                   than the copy */
    PS_PIECES_MAX = 64,        /* iovecs of one send: copied and lent replies in turn */
    PS_CHUNK = 16 * 1024,      /* small output that waits is gathered in chunks of this size */
    PS_ACCEPTS_MAX = 16,       /* accepts of one master socket a turn */
    PS_SHARED_ACCEPTS = 4,     /* the same where other workers accept from it, too */
    PS_EVENTS_MAX = 512,       /* events taken from the kernel at once */
    PS_IOV_MAX = 16,           /* chunks of waiting output sent by one call */
    PS_PAUSE_ACCEPT_MS = 50,   /* after accept() ran out of descriptors or memory */
    PS_CROWD_MS = 100,         /* a client that has said nothing for so long makes way where the server is full */
    PS_PAUSE_SEND_MS = 20,     /* after the kernel had no memory for what was to be sent */
    PS_PENDING_BYTES = 64 << 20, /* requests of one client without an answer: then it is not read, as with max_in_flight */
    PS_STREAM_AHEAD = 64 * 1024, /* what another thread may send of a stream before the loop has seen it, roughly */
    PS_COMMANDS_BYTES = 64 << 20, /* what other threads may have queued for a loop that is busy */
    PS_COMMAND_COST = 256,     /* of these bytes, what a command takes besides its payload, roughly */
    PS_PUSH_COST = 64,         /* of the pushes that wait for a client, what each takes besides its bytes, roughly */
    PS_DEAD_ROOM = 2048,       /* slots beside those of max_clients, for connections that are closed and not buried yet:
                                  a place that becomes free is given away in the same turn */
    PS_GONE_MAX = 1000,        /* clients that went are remembered, the last ones */
    PS_CHUNK_SLOTS = 256,      /* slots of the client table allocated together; they never move */
};

#endif
