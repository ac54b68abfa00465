"""Every text that an engine sends or raises: one name each. The C engine says the same, letter by letter."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

SRM_BEFORE_CIR: Final = "a service request came before the CIR: send a CIR first"
SECOND_CIR: Final = "a second CIR on an established connection"
SECOND_CIR_WAITING: Final = "a second CIR: a PROOF is awaited"
UNASKED_PROOF: Final = "a PROOF that was not asked for"
SERVER_KIND: Final = "a frame of a kind that only servers send"
UNKNOWN_KIND: Final = "not a frame of the pysock protocol: unknown kind"
BAD_FLAGS: Final = "unknown flags: only bit 0 of an SRM has a meaning"
BAD_VERSION: Final = "this server speaks version 1 of the pysock protocol"
NO_TLS_HERE: Final = "this server speaks no TLS at this address"
LONG_CIR: Final = "the CIR is too long"
LONG_PROOF: Final = "the PROOF is too long"
LONG_PING: Final = "a PING carries at most 64 bytes"
LONG_BYE: Final = "a BYE carries no payload"
SHORT_CIR: Final = "the CIR is too short to hold the magic PSK1"
BAD_MAGIC: Final = "wrong magic: a CIR begins with PSK1"
BROKEN_FIELD: Final = "the CIR has a broken field"
BROKEN_PROOF: Final = "the PROOF has a broken field"
KEY_WANTED: Final = "this server wants an auth key"
WRONG_PROOF: Final = "wrong proof: the auth keys differ"
CIR_TOO_LATE: Final = "the CIR did not come in time"
CIR_CROWD: Final = "too many others wait to be let in"
NOT_ALLOWED: Final = "not allowed"
SERVER_FULL: Final = "the server is full"
PEER_FULL: Final = "too many connections from this user or address"
SHUTTING_DOWN: Final = "the server is shutting down"
NO_SUCH_SERVICE: Final = "no such service"
REQUEST_TOO_LARGE: Final = "the request has %u bytes, this server takes at most %u"  # length, limit
REPLY_TOO_LARGE: Final = (  # length, limit
    "the reply has %u bytes, this client takes at most %u (max_payload= of connect() or Limits)"
)
FRAME_TOO_SLOW: Final = "the rest of the frame did not come in time"
IDLE: Final = "nothing came for too long"
REPLACED: Final = "replaced: another client has come by this name"
LONG_CANCEL: Final = "a CANCEL carries no payload"
SHORT_DEADLINE: Final = "an SRM with a deadline begins with its 4 bytes"
ID_IN_FLIGHT: Final = "a request with this id is in flight already"
TOO_LATE: Final = "the deadline has passed"
CANCELLED: Final = "cancelled"
CUT_SHORT: Final = "cut short: the server stops"
CREDIT_SIZE: Final = "a CREDIT carries 4 bytes"
CREDIT_OVERFLOW: Final = "more credit than 32 bits hold"
LONG_TRACE: Final = "a TRACE carries at most 64 bytes"
LONG_ANSWER: Final = "the answer is longer than this server takes"
UNASKED_ANSWER: Final = "an answer to nothing that was asked"
NEEDS_STREAM: Final = "this service answers by a stream: ask it by client.stream(), or by a newer client"
NO_PROXY_HEADER: Final = "no header of the PROXY protocol came first: this server is reached through a proxy (proxy=)"
BROKEN_PROXY_HEADER: Final = "the header of the PROXY protocol is broken"
PROXY_CHECKSUM: Final = "the checksum of the PROXY protocol's header is wrong"
UNTRUSTED: Final = "not allowed: only proxies that this server trusts may connect here (trust=)"

# What is wrong with what a handler returned, or with what is to be pushed. These are raised, and told by their type.
NOT_BYTES: Final = "the handler returned %s, not a bytes-like object%s"
PIECE_NOT_BYTES: Final = "the handler yielded %s, not a bytes-like object%s"
STREAM: Final = ": a plain function that returns an iterator is registered with kind='stream'"
NO_IDS: Final = (
    "the handler returned a deferred reply while another request of this connection waits: without ids only one may"
)
ENCODE: Final = ": encode it, for example with text.encode()"
NO_SEQUENCE: Final = "the batch handler returned %s, not a sequence with one reply per request"
WRONG_COUNT: Final = "the batch handler returned %d replies for %d requests"
PUSH_TOO_LARGE: Final = "a payload of %d bytes is more than this client takes (max_payload= of its connect())"

# For the log of a server whose framing has no words for its clients.
NO_SERVICE: Final = "a request came, and there is no service: the connection is closed"
