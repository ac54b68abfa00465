/* The declarations of the load generator, csrc/load: one thread that drives many connections to an echo server and
 * measures it. See pysock_abi.h. */

enum ps_load_mode {
    PS_LOAD_CLOSED, /* a new request as each reply comes */
    PS_LOAD_OPEN,   /* requests at a fixed rate, whatever the server does */
    PS_LOAD_CHURN   /* connect, one request, close, again and again */
};

/* Why a run failed; in brackets what the result then tells. */
enum ps_load_failure {
    PS_LOAD_WELL,
    PS_LOAD_CONNECT,      /* (error) */
    PS_LOAD_SYSTEM,       /* this machine could not: (error) */
    PS_LOAD_HUNG_UP,      /* the server closed a connection that waited for something */
    PS_LOAD_STALLED,      /* nothing came for stall_ns */
    PS_LOAD_REFUSED,      /* CIR_REFUSED (code, text) */
    PS_LOAD_CHALLENGED,   /* an auth key is wanted */
    PS_LOAD_NOT_PYSOCK,   /* the answer to the CIR makes no sense */
    PS_LOAD_NO_SERVICE,   /* (text: the names there are) */
    PS_LOAD_TOO_LARGE,    /* the server takes less (expected: how much) */
    PS_LOAD_WRONG_KIND,   /* a frame of another kind than REPLY (got) */
    PS_LOAD_WRONG_ID,     /* the reply to no request in flight (got) */
    PS_LOAD_WRONG_LENGTH, /* of a reply */
    PS_LOAD_WRONG_BYTES,  /* of a reply (position, expected, got) */
    PS_LOAD_UNASKED,      /* more bytes than all replies in flight have */
    PS_LOAD_GIVEN_UP,     /* an ERROR to no request in particular (code, text) */
    PS_LOAD_SHUTTING_DOWN /* GOAWAY (text) */
};

typedef struct ps_load_options {
    const uint8_t *address;  /* as connect() takes it; copied, like the next two */
    const uint8_t *cir;      /* pysock: the whole frame */
    const char *service;     /* pysock: its name */
    double rate;             /* PS_LOAD_OPEN: requests a second, of all connections */
    uint64_t duration_ns, count; /* when it ends; 0: not by this */
    uint64_t linger_ns, stall_ns;
    uint32_t address_size, cir_size;
    uint32_t framing, mode;
    uint32_t connections, in_flight, size;
} ps_load_options;

typedef struct ps_load_progress {
    uint64_t connections, messages, errors, elapsed_ns;
} ps_load_progress;

typedef struct ps_load_result {
    uint64_t connections;        /* opened, and let in */
    uint64_t messages, errors;   /* requests answered well, and by an ERROR */
    uint64_t elapsed_ns, opening_ns;
    uint64_t cpu_ns;             /* of the generator's thread */
    /* What the clock on the wall says of looking for events that had not come, and of sleeping until they came; only
     * where the options make it poll. */
    uint64_t polling_ns, sleeping_ns;
    uint64_t min_ns, max_ns, sum_ns;
    uint64_t position, expected, got;
    int32_t failure, error;      /* enum ps_load_failure; -errno */
    uint32_t code;               /* of a refusal, or of the first ERROR */
    uint32_t text_size;
    char text[256];              /* its words */
} ps_load_result;

#define PS_LOAD_ROWS_MAX 7424

typedef struct ps_load ps_load;

ps_load *ps_load_new(const ps_load_options *options, int *error);
void ps_load_free(ps_load *load);
/* For a slice of the time. 1: call it again, soon; 0: it is over; -ECANCELED: it failed, the result says why. */
int ps_load_run(ps_load *load, uint64_t slice_ns);
/* From any thread, also while it runs. */
void ps_load_stop(ps_load *load);
void ps_load_watch(const ps_load *load, ps_load_progress *progress);
/* After it ran. */
void ps_load_get_result(const ps_load *load, ps_load_result *result);
/* The buckets of the histogram that aren't empty, PS_LOAD_ROWS_MAX at most: the longest latency, and how many. */
size_t ps_load_histogram(const ps_load *load, uint64_t *longest_ns, uint64_t *counts, size_t room);
