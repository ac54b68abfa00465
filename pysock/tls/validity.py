"""Until when a certificate is good: the one thing that is asked of a file before anybody connects.

The module ssl tells it of the other end's certificate only. So this file reads its way through the DER of an X.509
certificate (RFC 5280, 4.1; X.690, 8.1) as far as the two times, and no further.
"""

from __future__ import annotations

import ssl
from calendar import timegm
from time import strptime

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_SEQUENCE, _EXPLICIT, _UTC_TIME = 0x30, 0xA0, 0x17


def times_of(pem: str) -> tuple[float, float] | None:
    """From when, and until when, the first certificate in the text is good, in seconds since the epoch.

    ``None``: there is none in it, or it can't be read.
    """
    begin = pem.find(_BEGIN)
    end = pem.find(_END, begin)
    if begin < 0 or end < 0:
        return None
    try:
        return _times(ssl.PEM_cert_to_DER_cert(pem[begin : end + len(_END)] + "\n"))
    except (ValueError, IndexError):
        return None


def _times(der: bytes) -> tuple[float, float]:
    _, at, _ = _open(der, 0)  # Certificate
    _, at, _ = _open(der, at)  # TBSCertificate
    tag, _, end = _open(der, at)
    if tag == _EXPLICIT:  # the version, which may be left out
        at = end
    for _ in range(3):  # serial number, algorithm, issuer
        _, _, at = _open(der, at)
    _, at, _ = _open(der, at)  # Validity
    tag, start, end = _open(der, at)
    before = _time(tag, der[start:end])
    tag, start, end = _open(der, end)
    return before, _time(tag, der[start:end])


def _open(der: bytes, at: int) -> tuple[int, int, int]:
    """What is there: its tag, where its contents begin, and where they end."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(der[at : at + count], "big"), at + count
    if at + length > len(der):
        raise ValueError("cut off")
    return tag, at, at + length


def _time(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year, of 1950 to 2049 (RFC 5280, 4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    return float(timegm(strptime(text, "%Y%m%d%H%M%SZ")))
