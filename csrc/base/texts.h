/* texts.h: every text that the engine sends or raises, by the names of pysock/wire/texts.py; a test compares them. They are
 * literals, so that tables may hold them. */
#ifndef PYSOCK_BASE_TEXTS_H
#define PYSOCK_BASE_TEXTS_H

#define PS_TEXT_SRM_BEFORE_CIR "a service request came before the CIR: send a CIR first"
#define PS_TEXT_SECOND_CIR "a second CIR on an established connection"
#define PS_TEXT_SECOND_CIR_WAITING "a second CIR: a PROOF is awaited"
#define PS_TEXT_UNASKED_PROOF "a PROOF that was not asked for"
#define PS_TEXT_SERVER_KIND "a frame of a kind that only servers send"
#define PS_TEXT_UNKNOWN_KIND "not a frame of the pysock protocol: unknown kind"
#define PS_TEXT_BAD_FLAGS "unknown flags: only bit 0 of an SRM has a meaning"
#define PS_TEXT_BAD_VERSION "this server speaks version 1 of the pysock protocol"
#define PS_TEXT_NO_TLS_HERE "this server speaks no TLS at this address"
#define PS_TEXT_LONG_CIR "the CIR is too long"
#define PS_TEXT_LONG_PROOF "the PROOF is too long"
#define PS_TEXT_LONG_PING "a PING carries at most 64 bytes"
#define PS_TEXT_LONG_BYE "a BYE carries no payload"
#define PS_TEXT_SHORT_CIR "the CIR is too short to hold the magic PSK1"
#define PS_TEXT_BAD_MAGIC "wrong magic: a CIR begins with PSK1"
#define PS_TEXT_BROKEN_FIELD "the CIR has a broken field"
#define PS_TEXT_BROKEN_PROOF "the PROOF has a broken field"
#define PS_TEXT_KEY_WANTED "this server wants an auth key"
#define PS_TEXT_WRONG_PROOF "wrong proof: the auth keys differ"
#define PS_TEXT_CIR_TOO_LATE "the CIR did not come in time"
#define PS_TEXT_CIR_CROWD "too many others wait to be let in"
#define PS_TEXT_NOT_ALLOWED "not allowed"
#define PS_TEXT_SERVER_FULL "the server is full"
#define PS_TEXT_PEER_FULL "too many connections from this user or address"
#define PS_TEXT_SHUTTING_DOWN "the server is shutting down"
#define PS_TEXT_NO_SUCH_SERVICE "no such service"
#define PS_TEXT_REQUEST_TOO_LARGE "the request has %u bytes, this server takes at most %u"
#define PS_TEXT_REPLY_TOO_LARGE \
    "the reply has %zu bytes, this client takes at most %u (max_payload= of connect() or Limits)"
#define PS_TEXT_FRAME_TOO_SLOW "the rest of the frame did not come in time"
#define PS_TEXT_IDLE "nothing came for too long"
#define PS_TEXT_REPLACED "replaced: another client has come by this name"
#define PS_TEXT_LONG_CANCEL "a CANCEL carries no payload"
#define PS_TEXT_SHORT_DEADLINE "an SRM with a deadline begins with its 4 bytes"
#define PS_TEXT_ID_IN_FLIGHT "a request with this id is in flight already"
#define PS_TEXT_TOO_LATE "the deadline has passed"
#define PS_TEXT_CANCELLED "cancelled"
#define PS_TEXT_CUT_SHORT "cut short: the server stops"
#define PS_TEXT_CREDIT_SIZE "a CREDIT carries 4 bytes"
#define PS_TEXT_CREDIT_OVERFLOW "more credit than 32 bits hold"
#define PS_TEXT_LONG_TRACE "a TRACE carries at most 64 bytes"
#define PS_TEXT_LONG_ANSWER "the answer is longer than this server takes"
#define PS_TEXT_UNASKED_ANSWER "an answer to nothing that was asked"
#define PS_TEXT_NEEDS_STREAM "this service answers by a stream: ask it by client.stream(), or by a newer client"
#define PS_TEXT_NO_PROXY_HEADER "no header of the PROXY protocol came first: this server is reached through a proxy (proxy=)"
#define PS_TEXT_BROKEN_PROXY_HEADER "the header of the PROXY protocol is broken"
#define PS_TEXT_PROXY_CHECKSUM "the checksum of the PROXY protocol's header is wrong"
#define PS_TEXT_UNTRUSTED "not allowed: only proxies that this server trusts may connect here (trust=)"

/* Of handlers, and of what is pushed. */
#define PS_TEXT_NOT_BYTES "the handler returned %.200s, not a bytes-like object%s"
#define PS_TEXT_PIECE_NOT_BYTES "the handler yielded %.200s, not a bytes-like object%s"
#define PS_TEXT_STREAM ": a plain function that returns an iterator is registered with kind='stream'"
#define PS_TEXT_NO_IDS \
    "the handler returned a deferred reply while another request of this connection waits: without ids only one may"
#define PS_TEXT_ENCODE ": encode it, for example with text.encode()"
#define PS_TEXT_NO_SEQUENCE "the batch handler returned %.200s, not a sequence with one reply per request"
#define PS_TEXT_WRONG_COUNT "the batch handler returned %zd replies for %zu requests"
#define PS_TEXT_PUSH_TOO_LARGE "a payload of %zu bytes is more than this client takes (max_payload= of its connect())"

/* For the log. */
#define PS_TEXT_NO_SERVICE "a request came, and there is no service: the connection is closed"

#endif
