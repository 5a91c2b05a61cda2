"""What goes wrong in connecting, in sentences for people; no I/O.

`Cause` is the table: a row for each cause, with the words that name it and the hint what to check
next. `CannotConnect` makes one line of a row and of what was tried; `broken` does the same for a
connection that was there already.
"""

import enum
import errno
import os
import socket
import ssl
from dataclasses import dataclass

import trio

from trio_upper.tls import Reason, reason_of, words_of


@enum.unique
class Cause(enum.Enum):
    """Why no connection came about: the words that name it, and the hint what to check next.

    The order is that of telling: when several addresses failed in different ways, the first of
    these counts. Whoever spoke TLS, or hung up, was there; a refusal comes from a machine that is;
    silence and a missing route say less and less about the other side.
    """

    TLS_UNTRUSTED = (
        "the server's TLS certificate is not trusted",
        "name the CA that signed it with --tls-ca, if this is the right server",
    )
    TLS_WRONG_NAME = (
        "the server's TLS certificate is for another name",
        "connect by a name that the certificate holds, if this is the right server",
    )
    TLS_EXPIRED = (
        "the server's TLS certificate has expired, or is not valid yet",
        "renew it on the server, or set this machine's clock right",
    )
    TLS_UNVERIFIED = (
        "the server's TLS certificate cannot be verified, {detail}",
        "the server needs another certificate; --insecure connects without verifying any",
    )
    TLS_CERTIFICATE_WANTED = (
        "the server wants a TLS certificate from this client",
        "give one with --tls-cert and --tls-key",
    )
    TLS_CERTIFICATE_REJECTED = (
        "the server does not accept this client's TLS certificate",
        "give one that is valid and signed by the CA that the server asks for, with --tls-cert",
    )
    TLS_VERSION = (
        "the server speaks no TLS version that this client speaks",
        "one of the two is too old; this client speaks TLS 1.2 and later",
    )
    TLS_REFUSED = (
        "the server refused the TLS handshake",
        "does it want a client certificate (--tls-cert), or are its ciphers too old?",
    )
    TLS_NOT_SPOKEN = (
        "the server speaks no TLS",
        "is it the right port? a server without TLS is reached without --tls",
    )
    TLS_WANTED = ("the server wants TLS", "add --tls")
    TLS_CLOSED = (
        "the server closed the connection during the TLS handshake",
        "does it speak TLS on that port, and does it want a client certificate?",
    )
    TLS_SILENT = (
        "the server accepted the connection, but did not finish the TLS handshake in time",
        "does it speak TLS on that port?",
    )
    TLS_FAILED = ("the TLS handshake failed, {detail}", "does it speak TLS on that port?")
    RESET = (
        "reset at once",
        "the machine is there, but hung up: wrong port, or a firewall or proxy in between?",
    )
    REFUSED = (
        "refused",
        (
            "the machine answered, but nothing listens on that port: "
            "is the server running, and with --host?"
        ),
    )
    FORBIDDEN = (
        "not permitted",
        "a firewall on this machine forbids it, or it is a broadcast address",
    )
    TIMED_OUT = ("timed out", "no answer: wrong address, or a firewall drops it")
    SCOPE_MISSING = (
        "the link-local address does not say on which network it is",
        "add the interface, as in fe80::1%eth0",
    )
    OTHER = ("{detail}", "these are the system's own words")
    UNREACHABLE = (
        "unreachable",
        "no route: is this machine on that network, and is the other one up?",
    )
    NO_LOCAL_ADDRESS = (
        "this machine has no address to connect from",
        "is IPv6 switched off here (for an IPv6 address), or are all local ports in use?",
    )
    MALFORMED = (
        "the address is malformed",
        "allowed are a name, an IPv4 address and an IPv6 address, as in fe80::1%eth0",
    )
    SCOPE_UNKNOWN = (
        "the address names an interface that is not there",
        "after the % stands an interface of this machine, and before it an address fe80::...",
    )
    NAME_NOT_FOUND = ("name not found", "is it spelled right?")
    NAME_SERVER = (
        "name server not reachable",
        "this machine has no working DNS; try the IP address",
    )

    def __init__(self, words: str, hint: str) -> None:
        self.words = words
        self.hint = hint

    @property
    def sentence(self) -> str:
        """Words and hint in one line, for a place that names no address."""
        return f"{self.words}: {self.hint}"


_ORDER = list(Cause)

# connect(2), socket(2), ip(7). IPv6 that is switched off shows as one of several of them.
_ERRNO_CAUSES = {
    errno.ECONNREFUSED: Cause.REFUSED,
    errno.ECONNRESET: Cause.RESET,
    errno.ECONNABORTED: Cause.RESET,
    errno.EPIPE: Cause.RESET,
    errno.ETIMEDOUT: Cause.TIMED_OUT,
    errno.EACCES: Cause.FORBIDDEN,
    errno.EPERM: Cause.FORBIDDEN,
    errno.ENETUNREACH: Cause.UNREACHABLE,
    errno.EHOSTUNREACH: Cause.UNREACHABLE,
    errno.ENETDOWN: Cause.UNREACHABLE,
    errno.EHOSTDOWN: Cause.UNREACHABLE,
    errno.EAFNOSUPPORT: Cause.UNREACHABLE,
    errno.EADDRNOTAVAIL: Cause.NO_LOCAL_ADDRESS,
    errno.ENODEV: Cause.SCOPE_UNKNOWN,
}

# getaddrinfo(3). EAI_FAIL is a name server that answers, but with an error of its own.
_LOOKUP_CAUSES = {
    socket.EAI_NONAME: Cause.NAME_NOT_FOUND,
    socket.EAI_NODATA: Cause.NAME_NOT_FOUND,
    socket.EAI_ADDRFAMILY: Cause.NAME_NOT_FOUND,
    socket.EAI_AGAIN: Cause.NAME_SERVER,
    socket.EAI_FAIL: Cause.NAME_SERVER,
}

_TLS_CAUSES = {
    Reason.NOT_TLS: Cause.TLS_NOT_SPOKEN,
    Reason.HTTP: Cause.TLS_NOT_SPOKEN,
    Reason.CLOSED: Cause.TLS_CLOSED,
    Reason.VERSION: Cause.TLS_VERSION,
    Reason.CIPHER: Cause.TLS_REFUSED,
    Reason.CERTIFICATE_REQUIRED: Cause.TLS_CERTIFICATE_WANTED,
    Reason.REJECTED: Cause.TLS_CERTIFICATE_REJECTED,
    Reason.REJECTED_CA: Cause.TLS_CERTIFICATE_REJECTED,
    Reason.REJECTED_DATE: Cause.TLS_CERTIFICATE_REJECTED,
    Reason.UNTRUSTED: Cause.TLS_UNTRUSTED,
    Reason.EXPIRED: Cause.TLS_EXPIRED,
    Reason.WRONG_NAME: Cause.TLS_WRONG_NAME,
    Reason.UNVERIFIED: Cause.TLS_UNVERIFIED,
    Reason.OTHER: Cause.TLS_FAILED,
}

# Where a connection that was there breaks in other words than one that never came about.
_BROKEN_WORDS = {
    Cause.RESET: "the server reset the connection",
    Cause.TIMED_OUT: "the server's machine does not answer any more",
    Cause.UNREACHABLE: "the network to the server is gone",
    Cause.TLS_CLOSED: "the server cut the connection without ending TLS",
    Cause.TLS_FAILED: "TLS failed, {detail}",
    Cause.OTHER: "the connection broke, {detail}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One address that was tried in vain.

    `address` is numeric, with its scope if it is link-local. `error` is what came of it, a
    `trio.TooSlowError` when time ran out first. `connected` tells that TCP was there, so that the
    error is the TLS handshake's.
    """

    address: str
    error: Exception
    connected: bool = False


class CannotConnect(Exception):
    """No connection came about; `str()` of it is one line for a person, without a traceback.

    `attempts` are the addresses tried; none when the host led to none, and then `lookup_error` is
    why (None: the look-up did not end in time). `seconds` is the time it all took. `cause` is the
    one that tells most.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        attempts: tuple[Attempt, ...],
        seconds: float,
        lookup_error: Exception | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.attempts = attempts
        self.seconds = seconds
        self.cause, error = _most_telling(host, attempts, lookup_error)
        words = self.cause.words.format(detail=_own_words(error))
        addresses = _listed([attempt.address for attempt in attempts])
        super().__init__(
            f"cannot connect to {host} port {port}: {words} "
            f"({addresses}, {seconds:.2f} s): {self.cause.hint}"
        )


def broken(error: BaseException) -> str:
    """Return in one line why a connection that was established is no more.

    `error` is what its stream raised, such as a `trio.BrokenResourceError`; what it was raised from
    tells why. With TLS 1.3 this is also where a refused client certificate shows: the server's
    refusal arrives only after the handshake (RFC 8446 section 4.4.2.4).
    """
    root = _root(error)
    if isinstance(root, trio.BrokenResourceError):  # the stream was found broken a second time
        return "the connection broke"
    cause = _tls_cause(root) or _transport_cause(root)
    return _BROKEN_WORDS.get(cause, cause.sentence).format(detail=_own_words(root))


def looks_like_tls(first_bytes: bytes) -> bool:
    """Tell whether a peer that was expected to speak plain text began with a record of TLS.

    That is an alert (21) or a handshake message (22), then the version, which is 3 and something
    (RFC 8446 section 5.1). `Cause.TLS_WANTED.sentence` says it.
    """
    return first_bytes.startswith((b"\x15\x03", b"\x16\x03"))


def _most_telling(
    host: str, attempts: tuple[Attempt, ...], lookup_error: Exception | None
) -> tuple[Cause, BaseException]:
    """Return the cause that comes first in the table, with the error that it was seen by."""
    if not attempts:
        error = lookup_error or trio.TooSlowError()
        return _lookup_cause(host, error), error
    failed = [(_attempt_cause(attempt), _root(attempt.error)) for attempt in attempts]
    return min(failed, key=lambda pair: _ORDER.index(pair[0]))


def _lookup_cause(host: str, error: Exception) -> Cause:
    if isinstance(error, trio.TooSlowError):
        return Cause.NAME_SERVER
    if isinstance(error, UnicodeError):
        return Cause.MALFORMED
    if not isinstance(error, socket.gaierror):
        return Cause.OTHER
    cause = _LOOKUP_CAUSES.get(error.errno or 0, Cause.OTHER)
    # No name holds a %, so this was an address, and what was not found is its interface.
    return Cause.SCOPE_UNKNOWN if cause is Cause.NAME_NOT_FOUND and "%" in host else cause


def _attempt_cause(attempt: Attempt) -> Cause:
    root = _root(attempt.error)
    if not attempt.connected:
        return _transport_cause(root, attempt.address)
    if isinstance(root, trio.TooSlowError):
        return Cause.TLS_SILENT
    cause = _tls_cause(root) or _transport_cause(root)
    return Cause.TLS_CLOSED if cause is Cause.RESET else cause


def _transport_cause(error: BaseException, address: str = "") -> Cause:
    if isinstance(error, trio.TooSlowError):
        return Cause.TIMED_OUT
    if not isinstance(error, OSError):
        return Cause.OTHER
    if error.errno == errno.EINVAL and ":" in address and "%" not in address:
        return Cause.SCOPE_MISSING  # ipv6(7)
    return _ERRNO_CAUSES.get(error.errno or 0, Cause.OTHER)


def _tls_cause(error: BaseException) -> Cause | None:
    """Return what an error of the ssl module means, None for any other error."""
    return _TLS_CAUSES[reason_of(error)] if isinstance(error, ssl.SSLError) else None


def _root(error: BaseException) -> BaseException:
    """Return what `error` was raised from in the end: Trio says *broken*, and that says why."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _own_words(error: BaseException) -> str:
    """Return an error's own words in one line."""
    if isinstance(error, ssl.SSLError):
        return words_of(error)
    number: int = getattr(error, "errno", None) or 0
    if number in errno.errorcode:
        return os.strerror(number)  # the error's own text may repeat the address
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def _listed(addresses: list[str]) -> str:
    if not addresses:
        return "no address tried"
    *most, last = addresses
    return f"tried {', '.join(most)} and {last}" if most else f"tried {last}"
