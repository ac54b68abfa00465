/* The declarations of the C engine, once: C includes this file and those beside it, of Python's side and of the load
 * generator; cffi's cdef() reads them. So they have no preprocessor lines but plain #define NAME number.
 *
 * Every function that returns an int returns 0, a count or a number asked for, or -errno. Only constructors return
 * pointers; they leave the reason of a NULL in *error, as -errno. */

/* -- the numbers of the model; pysock/states.py and pysock/wire/format.py have the same ------------------------------- */

enum ps_framing { PS_PYSOCK, PS_U32, PS_LINE, PS_RAW };

enum ps_kind {
    PS_CIR = 0x01, PS_SRM = 0x02, PS_PING = 0x03, PS_BYE = 0x04, PS_CANCEL = 0x05, PS_CREDIT = 0x06, PS_TRACE = 0x07,
    PS_PROOF = 0x08, PS_ANSWER = 0x09, PS_ANSWER_ERROR = 0x0A,
    PS_CIR_ACCEPTED = 0x81, PS_CIR_REFUSED = 0x82, PS_REPLY = 0x83, PS_ERROR = 0x84,
    PS_PUSH = 0x85, PS_PONG = 0x86, PS_GOAWAY = 0x87, PS_CHALLENGE = 0x88,
    PS_ASK = 0x89, PS_ASK_CANCEL = 0x8A
};

enum ps_flag { PS_NO_REPLY = 0x01, PS_DEADLINE = 0x02, PS_TAKES_STREAM = 0x04 }; /* of an SRM */
enum ps_reply_flag { PS_MORE = 0x01 };
enum ps_error_flag { PS_NOT_STARTED = 0x01 };
enum ps_push_flag { PS_GAP = 0x01 };

enum ps_error_code {
    PS_HANDLER_FAILED = 1, PS_NO_SUCH_SERVICE, PS_PAYLOAD_TOO_LARGE, PS_TOO_MANY_IN_FLIGHT, PS_SHUTTING_DOWN,
    PS_NOT_ALLOWED, PS_MALFORMED, PS_DEADLINE_PASSED, PS_CANCELLED, PS_OVERLOADED,
    PS_NEEDS_STREAM
};

enum ps_refusal {
    PS_REFUSED_VERSION = 1, PS_REFUSED_NOT_ALLOWED, PS_REFUSED_PROOF, PS_REFUSED_FULL, PS_REFUSED_SHUTTING_DOWN,
    PS_REFUSED_TOO_LATE, PS_REFUSED_MALFORMED
};

enum ps_tag {
    PS_TAG_CLIENT_ID = 1, PS_TAG_NAME, PS_TAG_NONCE, PS_TAG_MAC, PS_TAG_MAX_PAYLOAD, PS_TAG_MAX_IN_FLIGHT,
    PS_TAG_SERVICE, PS_TAG_SOFTWARE, PS_TAG_FEATURES, PS_TAG_STREAM_WINDOW, PS_TAG_SERVICE_OPTIONS,
    PS_TAG_IDLE_TIMEOUT
};

/* What one end may speak and another not. */
enum ps_feature {
    PS_FEATURE_DEADLINE = 1, PS_FEATURE_CANCEL = 2, PS_FEATURE_STREAM = 4, PS_FEATURE_ASK = 8, PS_FEATURE_GAP = 16,
    PS_FEATURE_TRACE = 32
};

enum ps_server_state {
    PS_SERVER_NEW = 1, PS_SERVER_CREATED, PS_SERVER_BOUND, PS_SERVER_LISTENING, PS_SERVER_SERVING, PS_SERVER_DRAINING,
    PS_SERVER_CLOSED, PS_SERVER_STATES
};

enum ps_server_event {
    PS_SERVER_CREATE, PS_SERVER_BIND, PS_SERVER_LISTEN, PS_SERVER_ADOPT, PS_SERVER_SERVE, PS_SERVER_DRAIN,
    PS_SERVER_CLOSE, PS_SERVER_EVENTS
};

enum ps_conn_state {
    PS_CONN_ACCEPTED = 1, PS_CONN_CHALLENGED, PS_CONN_ESTABLISHED, PS_CONN_DRAINING, PS_CONN_CLOSED, PS_CONN_STATES
};

enum ps_conn_event {
    PS_EV_CIR_ACCEPTED, PS_EV_CIR_CHALLENGED, PS_EV_CIR_REFUSED, PS_EV_PROOF_ACCEPTED, PS_EV_PROOF_REFUSED, PS_EV_SRM,
    PS_EV_PING, PS_EV_BYE, PS_EV_END_OF_FILE, PS_EV_VIOLATION, PS_EV_DRAIN, PS_EV_FLUSHED, PS_EV_LOST, PS_CONN_EVENTS
};

enum ps_reason {
    PS_LEFT, PS_CLOSED_BY_PEER, PS_CLOSED_BY_SERVER, PS_TIMED_OUT, PS_PROTOCOL_VIOLATION, PS_OVER_A_LIMIT,
    PS_SERVER_STOPPING
};

#define PS_REASONS 7

/* Why somebody was refused or dropped, or had to wait: pysock/causes.py has the words. */
enum ps_cause {
    PS_CAUSE_FULL, PS_CAUSE_PEER, PS_CAUSE_CROWD, PS_CAUSE_LATE, PS_CAUSE_ACCESS, PS_CAUSE_PROOF, PS_CAUSE_VIOLATION,
    PS_CAUSE_TOO_LARGE, PS_CAUSE_FRAME_LATE, PS_CAUSE_OUTPUT_FULL, PS_CAUSE_OUTPUT_STALLED, PS_CAUSE_IDLE,
    PS_CAUSE_NO_MEMORY, PS_CAUSE_ACCEPT, PS_CAUSE_SEND, PS_CAUSE_PUSHES_FULL, PS_CAUSE_PUSH_DROPPED,
    PS_CAUSE_TLS, PS_CAUSE_NO_TLS, PS_CAUSE_ONLY_TLS, PS_CAUSE_TLS_TRUNCATED,
    PS_CAUSE_HEADER, PS_CAUSE_UNTRUSTED,
    PS_CAUSES
};

/* Why nobody waits for the answer to a deferred request any more: pysock/engine/deferral.py. */
enum ps_why { PS_WHY_NONE, PS_WHY_CANCELLED, PS_WHY_LATE, PS_WHY_GONE, PS_WHY_STOPPED, PS_WHYS };

enum ps_slow { PS_SLOW_DISCONNECT, PS_SLOW_DROP_NEW, PS_SLOW_DROP_OLD }; /* where too many pushes wait for a client */

enum ps_how { PS_HOW_FLUSH, PS_HOW_NOW, PS_HOW_CUT }; /* what becomes of replies that aren't sent yet */

/* How long a payload may be. */
enum ps_most { PS_MOST_REQUEST, PS_MOST_CIR, PS_MOST_PING, PS_MOST_NOTHING, PS_MOST_CREDIT, PS_MOST_ANSWER };

#define PS_HEADER_SIZE 12
#define PS_FEATURES 63 /* what servers of this version speak */
#define PS_SLOT_BITS 24 /* of a client id, for its slot; the 8 above them are the number of its loop, which is 0 */
#define PS_NAME_MAX 255
#define PS_PING_MAX 64
#define PS_CREDIT_SIZE 4
#define PS_ASKED_MAX 256 /* what is in front of the request of an ASK: the length of a name, and the name */
#define PS_GAP_SIZE 4 /* of what a PUSH with PS_GAP begins with: a u32, pushes before it that were dropped */
#define PS_MASTERS_MAX 64
#define PS_ADDRESS_MAX 128
#define PS_VIA_MAX 64
#define PS_NONCE_SIZE 32
#define PS_MAC_SIZE 32
#define PS_LINGER_AUTO 0xFFFFFFFFFFFFFFFF /* poll where it pays */

/* A number made from this file, by build_engine.py; pysock/engine/native/abi.py has the same. */
uint64_t ps_abi(void);

/* The state that follows, or -EINVAL if the event is illegal in this state. */
int ps_server_next(int state, int event);
int ps_conn_next(int state, int event);

/* A frame, as somebody's last words. */
typedef struct ps_said {
    const char *text; /* NULL: that of whoever ends it */
    uint16_t code;
    uint8_t kind; /* 0: nothing is said */
} ps_said;

typedef struct ps_ending {
    const char *name;
    ps_said before, after; /* to one that isn't let in, which counts as refused then; to one that is */
    int8_t cause;          /* -1: none */
    int8_t event;          /* -1: that it is refused, by what is awaited of it */
    uint8_t reason, how, is_error;
} ps_ending;

/* What holds for one kind of frame from a client. */
typedef struct ps_rule {
    const char *wrong[3]; /* why it may not come: before a CIR was accepted, while a PROOF is awaited, after; NULL: it may */
    const char *too_long; /* or too short */
    uint8_t flags;       /* the bits that have a meaning */
    uint8_t timed_flags; /* those that have one where both ends speak of deadlines */
    uint8_t stream_flags; /* and of streams */
    uint8_t needs;       /* the feature without which it is unknown */
    uint8_t version;     /* its code is the version of the protocol */
    uint8_t most;
    uint8_t least;       /* bytes */
} ps_rule;

/* A row; NULL where there is none. */
const ps_ending *ps_ending_of(int end);
const ps_rule *ps_rule_of(int kind);

/* -- the PROXY protocol: a connection begins with a header that says for whom it is ------------------------------------ */

enum ps_proxy { PS_PROXY_1 = 1, PS_PROXY_2 = 2 }; /* versions of it; bits of what a master socket takes */

#define PS_PROXY_TLVS 4096 /* bytes of TLVs that are kept, at most */
#define PS_PROXY_KEPT 4328 /* bytes of a header that are kept, at most */

/* What a header says. */
typedef struct ps_proxy_header {
    const char *wrong;  /* why it is refused */
    uint32_t size;      /* bytes that it has in all; 0: that isn't known yet */
    uint32_t kept;      /* of them those that are kept: all but the TLVs beyond PS_PROXY_TLVS */
    uint16_t port;
    uint8_t version;
    uint8_t is_local;   /* the proxy itself connects: what else there is counts for nothing */
    uint8_t family;     /* AF_... of the source; 0: it isn't known */
    uint8_t source[16]; /* its IP address */
} ps_proxy_header;

/* 1: all of the header is there; 0: more of it must come; -EBADMSG: it is none of these versions, or broken. */
int ps_proxy_read(const uint8_t *data, size_t size, int versions, ps_proxy_header *header);

/* -- the engine: one server's loop and client table ---------------------------------------------------------------- */

/* What a client may cost; see pysock.Limits. Times are in nanoseconds, 0 = never. */
typedef struct ps_limits {
    uint64_t cir_timeout_ns, frame_timeout_ns, output_timeout_ns, idle_timeout_ns;
    uint64_t output_pause, output_drop;
    uint64_t push_soft, push_soft_seconds_ns, push_hard;
    uint32_t max_clients, max_pending_cir, max_cir_bytes, max_payload, max_in_flight, stream_window;
    uint32_t max_clients_per_uid, max_clients_per_ip; /* 0: none but max_clients */
    /* Of TCP peers that vanish, see tcp(7); seconds, but for the last, which is in milliseconds. keep_idle 0: none is set. */
    int32_t keep_idle, keep_interval, keep_count, user_timeout;
} ps_limits;

/* A worker's row in the page that all workers of a service share. Its loop writes it; anybody may read it at any time. */
typedef struct ps_seat {
    uint64_t turned_ns;          /* when its last turn began, by CLOCK_MONOTONIC; at least once a second there is one */
    uint32_t clients;            /* that are its own, also those that wait to be let in */
    uint32_t open;               /* it accepts */
    uint32_t awake;              /* it is in a turn */
    uint32_t unused[11];         /* it is 64 bytes, as pysock/engine/seats.py has it */
} ps_seat;

typedef struct ps_options {
    ps_limits limits;
    uint64_t linger_ns;          /* how long at most to poll without sleeping before a wait, or PS_LINGER_AUTO */
    uint64_t inside_max_ns;            /* the GIL is let go after so long: a little more than CPython's switch interval */
    uint64_t held_up_ns;         /* a turn that takes as long is told of; 0: none is */
    const uint8_t *welcome;      /* the fields of CIR_ACCEPTED after the client id; copied */
    uint32_t welcome_size;
    uint32_t framing;            /* enum ps_framing */
    uint32_t services;           /* entries of the service table */
    uint32_t slow;               /* enum ps_slow, for clients that speak PS_FEATURE_GAP */
    uint32_t watch_disconnects;  /* tell of every client that goes, not only of attached ones */
    uint32_t ask_connects;       /* ask the connect hook before a client is let in */
    uint32_t tell_joins;         /* tell of each that was let in */
    uint32_t has_key;            /* an auth key is set: a CIR is answered by a CHALLENGE */
    uint32_t ask_allow;          /* ask the allow hook about the peers of checked masters, instead of: */
    uint32_t uid_count, gid_count;
    const uint32_t *uids, *gids; /* who may connect to checked masters; copied */
    ps_seat *seats;              /* others accept from the same masters, each with a row here; NULL: nobody does */
    uint32_t seat_count, seat;   /* which row is this engine's */
} ps_options;

/* One row of the client table, copied out. */
typedef struct ps_info {
    uint64_t client_id, connected_at_ns, idle_since_ns, requests, bytes_in, bytes_out, frames_in, frames_out, queued,
        pushes_dropped;
    int64_t pid, uid, gid;       /* of the peer on a Unix socket, else -1 */
    uint32_t in_flight, state;
    int fd;
    uint32_t master;
    char name[256];
    char software[256];          /* as it says */
    char address[128];           /* "host:port" of a TCP peer, or as a proxy says; "unix:PATH" likewise; else "" */
    char via[64];                /* the proxy's "host:port", or "unix:"; "": it came through none */
} ps_info;

/* The same, packed: a row of a ps_rows. Its texts lie in a row behind one another, without NULs: name, software, address, via. */
typedef struct ps_row {
    uint64_t client_id, connected_at_ns, idle_since_ns, requests, bytes_in, bytes_out, frames_in, frames_out, queued;
    uint64_t pushes_dropped;
    uint64_t left_at_ns;         /* of one that went; else 0 */
    int32_t pid;                 /* -1: unknown; then the next two are nothing */
    uint32_t uid, gid, in_flight;
    uint32_t texts;              /* where they begin, counted from the end of all rows */
    uint8_t state, master, reason, name_size, software_size, address_size, via_size;
    uint8_t unused[5];           /* it is 120 bytes, as pysock/engine/native/rows.py takes it apart */
} ps_row;

/* Many rows, and behind the last their texts. */
typedef struct ps_rows {
    uint8_t *data;
    size_t count, size;          /* rows; bytes, texts and all */
} ps_rows;

typedef struct ps_stats {
    uint64_t clients, pending, accepted, established, refused, disconnected, requests, errors, pushes, timeouts,
        over_limit, bytes_in, bytes_out;
    uint64_t causes[PS_CAUSES];  /* by enum ps_cause */
} ps_stats;

/* What a server tells of itself in memory that other processes may read, see ps_python_measure: numbers of 8 bytes, each
 * written at once. pysock/engine/meter.py has the same. */
enum ps_came { PS_CAME_UNIX, PS_CAME_TCP, PS_CAME_TLS, PS_CAMES };
enum ps_metered {
    PS_M_STAMP_NS,     /* when the last turn was over, on the monotonic clock; a loop that lives has one each second */
    PS_M_IN_TURN,      /* 1: one runs */
    PS_M_CALLED,       /* the service whose handler was called last */
    PS_M_BUSY_NS,      /* what the turns took */
    PS_M_OUTSIDE_NS,   /* how long the loop has waited for the GIL, in them */
    PS_M_OUTPUT_BYTES, /* what waits to be sent */
    PS_M_CAME,         /* connections accepted, by enum ps_came */
    PS_M_LEFT = 9,     /* clients gone, by enum ps_reason */
    PS_M_STATS = 16,   /* a ps_stats */
    PS_M_COUNTERS = PS_M_STATS + 13 + PS_CAUSES
};
/* And of each service, and of the numbers that are none: requests by what became of them (enum ps_error_code; 0: they were
 * answered well), nanoseconds, and how many took so long: four buckets to each power of two from 1024 ns on. */
#define PS_METER_OUTCOMES 16
#define PS_METER_OTHER 14 /* an error of another code */
#define PS_METER_GONE 15  /* nobody has waited for the answer */
#define PS_METER_BUCKETS 104
#define PS_METER_ROW 128 /* numbers, some of them unused */

typedef struct ps_engine ps_engine;

enum ps_master_flag {
    PS_MASTER_CHECKED = 1, /* its peers are held against the rule of access before a byte is read */
    PS_MASTER_PREPARED = 2 /* its data sockets inherit the options of TCP that they need */
};
int ps_engine_add_master(ps_engine *engine, int fd, int flags);
/* A network: an IPv6 address, or one of IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2), and how many of its bits count. */
typedef struct ps_network {
    uint8_t address[16];
    uint8_t bits;
} ps_network;
/* Through the last master socket come proxies alone, over TCP those of these networks; versions: bits of ps_proxy. */
int ps_engine_expect_proxies(ps_engine *engine, int versions, const ps_network *networks, uint32_t count);
int ps_engine_wakeup_fd(const ps_engine *engine);

/* -- TLS on a master socket, by OpenSSL 3 where the system has it ---------------------------------------------------- */

enum ps_verify { PS_VERIFY_NONE, PS_VERIFY_OPTIONAL, PS_VERIFY_REQUIRE }; /* of a client's certificate */

/* What is known of the other end: each is a byte, its size (u16), and so many bytes. SUBJECT_KEY says what the next SUBJECT
 * is, as "commonName"; IP has 4 or 16 bytes, RESUMED none. Those from SUBJECT_KEY on are of a verified chain. */
enum ps_fact {
    PS_FACT_NONE, PS_FACT_VERSION, PS_FACT_CIPHER, PS_FACT_ALPN, PS_FACT_SNI, PS_FACT_RESUMED, PS_FACT_FINGERPRINT,
    PS_FACT_SUBJECT_KEY, PS_FACT_SUBJECT, PS_FACT_DNS, PS_FACT_URI, PS_FACT_EMAIL, PS_FACT_IP
};

#define PS_TICKET_KEYS 80

/* By what sessions are sealed that go on later: keys that nobody else knows, and after each period the next ones, made from them.
 * These are of the period `of`, as CLOCK_MONOTONIC counts them: the one before this opens tickets, too. They may be several
 * engines', also after whoever made them has dropped them. NULL: there is no memory. */
typedef struct ps_tickets ps_tickets;
ps_tickets *ps_tickets_new(const uint8_t *keys, uint64_t period_ns, uint64_t of);
void ps_tickets_drop(ps_tickets *tickets);

/* All is copied. */
typedef struct ps_tls_options {
    const char *cert, *key;       /* files; key NULL: the certificate's has it */
    const char *password;         /* of the key, or NULL */
    const char *ca_file, *ca_folder; /* whose certificates are verified; both NULL: the system's */
    const uint8_t *alpn;          /* names, each behind its length */
    uint32_t alpn_size, minimum;  /* of the version: 0x0303, 0x0304 */
    uint32_t verify;              /* enum ps_verify */
    ps_tickets *tickets;          /* or NULL: keys that nobody knows but OpenSSL, as long as it has no others */
} ps_tls_options;

/* Find OpenSSL, by the names of its two libraries. 0; -ENOENT, -ENOSYS: there is none, or it lacks something, and why. */
int ps_libssl_load(const char *ssl, const char *crypto, char *why, size_t room);
/* From now on clients of this master must speak TLS, so; also on a server that runs. Not 0: all is as it was, and why. */
int ps_engine_secure(ps_engine *engine, uint32_t master, const ps_tls_options *options, char *why, size_t room);
/* Why the last handshake failed, in OpenSSL's words, which aren't freed; in the loop's thread. */
typedef struct ps_handshake {
    const char *reason;   /* or NULL */
    const char *verified; /* what came of a look at the client's certificate, or NULL; and its number, X509_V_... */
    int64_t verify_code;
    int hosted;           /* it was a session of the host's, which knows itself */
} ps_handshake;
void ps_engine_handshake(const ps_engine *engine, ps_handshake *failed);
/* What is known of a client: how many bytes that has, of which as many as there is room for are written. 0: nothing. */
int64_t ps_engine_facts(ps_engine *engine, uint64_t client_id, uint8_t *to, size_t room);

/* From any thread, and from hooks. */
int ps_engine_stop(ps_engine *engine, uint64_t grace_ns);
/* Lame: it serves as before, but health checks are told that no new clients are wanted. 0: no longer. */
void ps_engine_lame(ps_engine *engine, int lame);
/* 1; 0 if the client is not there (any more); -EMSGSIZE if it takes less. */
int ps_engine_push(ps_engine *engine, uint64_t client_id, const uint8_t *data, size_t size);
int64_t ps_engine_broadcast(ps_engine *engine, const uint8_t *data, size_t size);
/* To those of these clients that are there and take so much; how many. */
int64_t ps_engine_push_to(ps_engine *engine, const uint64_t *ids, size_t count, const uint8_t *data, size_t size);
int ps_engine_disconnect(ps_engine *engine, uint64_t client_id);
/* Of a client that was let in. */
int ps_engine_attach(ps_engine *engine, uint64_t client_id);
int ps_engine_info(ps_engine *engine, uint64_t client_id, ps_info *info);
/* What is kept of the header that a proxy sent for it; how many bytes: 0: it came through none. */
size_t ps_engine_header(ps_engine *engine, uint64_t client_id, uint8_t *data, size_t room);
/* The clients, oldest first: all, or those among these ids. 0, and to be freed; -ENOMEM. */
int ps_engine_rows(ps_engine *engine, const uint64_t *among, size_t count, ps_rows *rows);
/* The last that went, who went first first; likewise. */
int ps_engine_gone(ps_engine *engine, ps_rows *rows);
void ps_rows_free(ps_rows *rows);
uint64_t ps_engine_find(ps_engine *engine, const char *name);
/* Oldest first. */
int64_t ps_engine_ids(ps_engine *engine, uint64_t *ids, size_t room);
/* Which clients are meant: all of this must hold. */
typedef struct ps_selection {
    const char *name;      /* a pattern, see base/match.h; NULL: any */
    size_t name_size;
    const uint64_t *among; /* one of these; NULL: of all */
    size_t count;
    int64_t uid;           /* of the peer on a Unix socket; -1: any */
    uint64_t but;          /* not this one; 0: any */
} ps_selection;
/* How many of their ids were written; no more than there is room for. */
size_t ps_engine_select(ps_engine *engine, const ps_selection *wanted, uint64_t *ids, size_t room);
void ps_engine_stats(ps_engine *engine, ps_stats *stats);

/* In a forked child: close the copies of all descriptors, touch nothing that the parent has as well. A loop that runs in
 * this very thread ends. The master sockets are the caller's. fork() does it by itself. */
void ps_engine_abandon(ps_engine *engine);

/* -- sockets used by hand: one system call each -------------------------------------------------------------------- */

int ps_socket_open(int family);
int ps_socket_bind(int fd, const uint8_t *address, uint32_t size);
int ps_socket_listen(int fd, int backlog);
int ps_socket_accept(int fd);
int64_t ps_socket_recv(int fd, uint8_t *data, size_t room);
int64_t ps_socket_send(int fd, const uint8_t *data, size_t size);
int ps_socket_close(int fd);
int ps_socket_unlink(const char *path);
