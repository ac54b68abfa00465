"""The fields of a CHALLENGE and of the PROOF that answers it. What is in them: ``auth.py``."""

from __future__ import annotations

from collections.abc import Iterable

from pysock.wire import texts
from pysock.wire.format import MAC_SIZE, NONCE_SIZE, Malformed, Tag, decode_fields, encode_field


def encode_challenge(nonce: bytes, mac: bytes) -> bytes:
    """Return the payload of a CHALLENGE."""
    return encode_field(Tag.NONCE, nonce) + encode_field(Tag.MAC, mac)


def decode_challenge(payload: bytes) -> tuple[bytes, bytes]:
    """Take apart a CHALLENGE's payload: nonce and MAC.

    :raises Malformed: if one isn't there exactly once, or not of 32 bytes.
    """
    fields = decode_fields(payload)
    return _the_one(fields, Tag.NONCE, NONCE_SIZE), _the_one(fields, Tag.MAC, MAC_SIZE)


def encode_proof(mac: bytes) -> bytes:
    """Return the payload of a PROOF."""
    return encode_field(Tag.MAC, mac)


def decode_proof(payload: bytes) -> bytes:
    """Take apart a PROOF's payload: the MAC.

    :raises Malformed: with the text that the client is told.
    """
    try:
        return _the_one(decode_fields(payload), Tag.MAC, MAC_SIZE)
    except Malformed:
        raise Malformed(texts.BROKEN_PROOF) from None


def _the_one(fields: Iterable[tuple[int, bytes]], wanted: Tag, size: int) -> bytes:
    found = [value for tag, value in fields if tag == wanted]
    if len(found) != 1 or len(found[0]) != size:
        raise Malformed(f"there must be one field {wanted.name}, of {size} bytes")
    return found[0]
