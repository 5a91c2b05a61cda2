"""What goes wrong in connecting, in sentences for people; no I/O.

`Cause` is the table: a row for each cause, with the words that name it and the hint at what to
check next. `CannotConnect` makes one line of a row and of what was tried; `broken` does the same
for a connection that was there already.
"""

import enum
import errno
import ipaddress
import socket
import ssl
from dataclasses import dataclass

import trio

from trio_upper.client.target import with_brackets
from trio_upper.tls import Reason, reason_of, words_of

_HUNG_UP = (
    "something accepted the connection and hung up: a proxy or port forwarder without its server, "
    "a firewall, or a wrong port?"
)


@enum.unique
class Cause(enum.Enum):
    """Why there is no connection: the words that name it, and the hint at what to check next.

    The order is that of importance: when several addresses failed in different ways, the first of
    these is reported. A peer that spoke TLS, or hung up, was there; a refusal comes from a machine
    that is; silence and a missing route say less and less about the other side.

    ``{detail}`` in the words is what the system says, ``{port}`` in the hint is the port.
    """

    TLS_UNTRUSTED = (
        "the server's TLS certificate is not trusted",
        (
            "if this is the right server, name the CA that signed it with --tls-ca, or give the "
            "--tls-fingerprint that the server printed"
        ),
    )
    TLS_WRONG_NAME = (
        "the server's TLS certificate is for another name: {detail}",
        "use a name that the certificate lists, if this is the right server",
    )
    TLS_WRONG_FINGERPRINT = (
        "the server's TLS certificate has another fingerprint, {detail}",
        "ask who runs the server; a new certificate has a new one",
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
        "the server does not speak TLS",
        "is it the right port? to reach a server without TLS, leave out --tls",
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
    RESET = ("reset at once", _HUNG_UP)
    CLOSED = ("closed at once", _HUNG_UP)
    REFUSED = (
        "refused",
        (
            "the machine answered, but nothing listens on that port: "
            "is the server running, and with --public?"
        ),
    )
    REFUSED_HERE = (
        "refused by this machine itself",
        "nothing listens on that port here: is the server running?",
    )
    FORBIDDEN = ("not permitted", "a firewall forbids it, on this machine or on the way")
    TIMED_OUT = (
        "timed out",
        (
            "no answer: wrong address, or a firewall drops it; on the server's machine, "
            "`sudo ufw allow {port}/tcp` or `sudo firewall-cmd --add-port={port}/tcp` opens it"
        ),
    )
    SCOPE_MISSING = (
        "the link-local address does not say on which network it is",
        "add the interface, as in fe80::1%eth0",
    )
    NOT_ONE_MACHINE = (
        "no way there for TCP",
        "this looks like a broadcast or multicast address; give the address of one machine",
    )
    NO_NEIGHBOUR = (
        "host unreachable",
        (
            "no machine on this network has that address, or a firewall rejects it: "
            "is the machine on, is the address right? on the server's machine, "
            "`sudo firewall-cmd --add-port={port}/tcp` opens it"
        ),
    )
    NO_ROUTE = (
        "network unreachable",
        "this machine knows no way there: is it on that network?",
    )
    NO_LOCAL_ADDRESS = (
        "this machine has no address to connect from",
        "is IPv6 switched off here (for an IPv6 address), or are all local ports in use?",
    )
    BIND = (
        "this machine does not have the address to connect from",
        "give --bind an address of this machine",
    )
    TOO_MANY_FILES = ("too many open files", "raise `ulimit -n`, or use fewer --clients")
    OTHER = ("{detail}", "try the IP address, and another machine, to see where the fault is")
    NAME_MALFORMED = (
        "the name is malformed",
        "give a name, an IPv4 address or an IPv6 address",
    )
    NAME_NOT_IDNA = (
        "the name is not valid as an internationalized domain name, {detail}",
        "write its ASCII form, as in xn--strae-oqa.example",
    )
    SCOPE_UNKNOWN = (
        "the address names an interface that is not there",
        "write fe80::…%INTERFACE, with an interface of this machine",
    )
    SCOPE_NEEDLESS = (
        "only a link-local address (fe80::…) takes an interface",
        "leave out the % and what follows it",
    )
    NO_SUCH_VERSION = (
        "the host has {detail}",
        "leave out -4, -6 and --bind to use what addresses it has",
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
        """Words and hint in one line, where there is no address to name."""
        return f"{self.words}: {self.hint}"


_ORDER = list(Cause)

# How many names of a certificate are shown; some list hundreds.
NAMES = 5

# connect(2), socket(2), ip(7). IPv6 that is switched off shows as one of several of them.
_ERRNO_CAUSES = {
    errno.ECONNREFUSED: Cause.REFUSED,
    errno.ECONNRESET: Cause.RESET,
    errno.ECONNABORTED: Cause.RESET,
    errno.EPIPE: Cause.RESET,
    errno.ETIMEDOUT: Cause.TIMED_OUT,
    errno.EACCES: Cause.FORBIDDEN,
    errno.EPERM: Cause.FORBIDDEN,
    errno.ENETUNREACH: Cause.NO_ROUTE,
    errno.ENETDOWN: Cause.NO_ROUTE,
    errno.EHOSTUNREACH: Cause.NO_NEIGHBOUR,
    errno.EHOSTDOWN: Cause.NO_NEIGHBOUR,
    errno.EAFNOSUPPORT: Cause.NO_LOCAL_ADDRESS,
    errno.EADDRNOTAVAIL: Cause.NO_LOCAL_ADDRESS,
    errno.ENODEV: Cause.SCOPE_UNKNOWN,
    errno.EMFILE: Cause.TOO_MANY_FILES,
    errno.ENFILE: Cause.TOO_MANY_FILES,
    # Windows reports some errors by these numbers of WinSock alone (winerror.h).
    10013: Cause.FORBIDDEN,
    10024: Cause.TOO_MANY_FILES,
    10047: Cause.NO_LOCAL_ADDRESS,
    10049: Cause.NO_LOCAL_ADDRESS,
    10050: Cause.NO_ROUTE,
    10051: Cause.NO_ROUTE,
    10053: Cause.RESET,
    10054: Cause.RESET,
    10060: Cause.TIMED_OUT,
    10061: Cause.REFUSED,
    10064: Cause.NO_NEIGHBOUR,
    10065: Cause.NO_NEIGHBOUR,
}

# getaddrinfo(3). EAI_FAIL is a name server that answers, but with an error of its own. Not every
# system has every name; the numbers are those of WinSock.
_LOOKUP_CAUSES = {
    getattr(socket, "EAI_NONAME", 11001): Cause.NAME_NOT_FOUND,
    getattr(socket, "EAI_NODATA", 11004): Cause.NAME_NOT_FOUND,
    getattr(socket, "EAI_ADDRFAMILY", 11004): Cause.NAME_NOT_FOUND,
    getattr(socket, "EAI_AGAIN", 11002): Cause.NAME_SERVER,
    getattr(socket, "EAI_FAIL", 11003): Cause.NAME_SERVER,
    11001: Cause.NAME_NOT_FOUND,
    11002: Cause.NAME_SERVER,
    11003: Cause.NAME_SERVER,
    11004: Cause.NAME_NOT_FOUND,
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
    Reason.WRONG_FINGERPRINT: Cause.TLS_WRONG_FINGERPRINT,
    Reason.UNVERIFIED: Cause.TLS_UNVERIFIED,
    Reason.OTHER: Cause.TLS_FAILED,
}

# A connection that was there breaks in other words than one that was never made.
_BROKEN_WORDS = {
    Cause.RESET: "the server reset the connection",
    Cause.TIMED_OUT: "the server's machine no longer answers",
    Cause.NO_NEIGHBOUR: "the server's machine is no longer on the network",
    Cause.NO_ROUTE: "the network to the server is gone",
    Cause.TLS_CLOSED: "the server cut the connection without ending TLS",
    Cause.TLS_FAILED: "TLS failed, {detail}",
    Cause.OTHER: "the connection broke, {detail}",
}


class NoSuchVersion(OSError):
    """A host has addresses, but none of the only IP version that may be used."""


class BindFailed(OSError):
    """A socket cannot be bound to the address that was given to connect from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An address that failed or did not answer; `str()` of it is a few words for a person.

    `address` is numeric, with its scope if it is link-local. `error` is what it failed with, a
    `trio.TooSlowError` when time ran out first. `connected` means that TCP was there, so that the
    error is the TLS handshake's. `own` means that the address is one of this machine. `names` are
    those that the server's certificate lists, if it is for another one.
    """

    address: str
    error: Exception
    connected: bool = False
    own: bool = False
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the address and what was wrong with it."""
        if self.unanswered:
            return f"{self.address} did not answer"
        return f"{self.address}: {self.words}"

    @property
    def words(self) -> str:
        """Its cause, with what the system says of it where that is not foreseen."""
        detail = _own_words(_root(self.error))
        if self.names and self.cause is Cause.TLS_WRONG_NAME:
            shown = [name if name.isprintable() else ascii(name) for name in self.names]
            more = f" and {len(shown) - NAMES} more" if len(shown) > NAMES else ""
            detail = f"it lists {', '.join(shown[:NAMES])}{more}"
        return self.cause.words.format(detail=detail)

    @property
    def unanswered(self) -> bool:
        """Whether time ran out before any answer."""
        return isinstance(self.error, trio.TooSlowError) and not self.connected

    @property
    def cause(self) -> Cause:
        """Why it failed."""
        root = _root(self.error)
        if self.connected:
            return _handshake_cause(root)
        cause = _transport_cause(root)
        if cause is Cause.REFUSED and self.own:
            return Cause.REFUSED_HERE
        if isinstance(root, OSError):
            return _cause_of_address(self.address, cause)
        return cause


class CannotConnect(Exception):
    """No connection could be made; `str()` of it is one line for a person.

    `attempts` are the addresses tried; none when the host led to none, and then `lookup_error` is
    why (None: the look-up did not end in time). `seconds` is the time it all took. `cause` is the
    most telling one.
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
        #: `words` are those of the cause, without the addresses and the hint.
        self.cause, self.words = _most_telling(host, attempts, lookup_error)
        addresses = _listed([attempt.address for attempt in attempts])
        super().__init__(
            f"cannot connect to {host} port {port}: {self.words} "
            f"({addresses}, {seconds:.2f} s): {self.hint}"
        )

    @property
    def hint(self) -> str:
        """What to check next."""
        hint = self.cause.hint.format(port=self.port)
        if self.cause is Cause.NAME_NOT_IDNA and (ascii_form := _ascii_form(self.host)):
            hint = f"write its ASCII form, {ascii_form}"
        if meant := with_brackets(self.host):
            hint += f"; for that address with a port, write {meant}"
        return hint


def broken(error: BaseException) -> str:
    """Return in one line why an established connection broke.

    `error` is what its stream raised, such as a `trio.BrokenResourceError`; what it was raised from
    tells why. With TLS 1.3 this is also where a refused client certificate shows: the server's
    refusal arrives only after the handshake (RFC 8446 section 4.4.2.4).
    """
    root = _root(error)
    if isinstance(root, trio.BrokenResourceError):  # the stream was found broken a second time
        return "the connection broke"
    cause = _tls_cause(root) or _transport_cause(root)
    return _BROKEN_WORDS.get(cause, cause.sentence).format(detail=_own_words(root))


def was_reset(error: BaseException) -> bool:
    """Tell whether the other side gave up the connection, without a reason of its own."""
    root = _root(error)
    return (_tls_cause(root) or _transport_cause(root)) in {Cause.RESET, Cause.TLS_CLOSED}


def looks_like_tls(first_bytes: bytes) -> bool:
    """Tell whether a peer that was expected to speak plain text began with a record of TLS.

    That is an alert (21) or a handshake message (22), then the version, which is 3 and something
    (RFC 8446 section 5.1). `Cause.TLS_WANTED.sentence` says it.
    """
    return first_bytes.startswith((b"\x15\x03", b"\x16\x03"))


def _most_telling(
    host: str, attempts: tuple[Attempt, ...], lookup_error: Exception | None
) -> tuple[Cause, str]:
    """Return the cause that comes first in the table, and its words."""
    if not attempts:
        error = lookup_error or trio.TooSlowError()
        cause = _lookup_cause(host, error)
        return cause, cause.words.format(detail=_own_words(error))
    first = min(attempts, key=lambda attempt: _ORDER.index(attempt.cause))
    return first.cause, first.words


def _lookup_cause(host: str, error: Exception) -> Cause:
    match error:
        case trio.TooSlowError():
            return Cause.NAME_SERVER
        case UnicodeError():
            return Cause.NAME_MALFORMED if host.isascii() else Cause.NAME_NOT_IDNA
        case NoSuchVersion():
            return Cause.NO_SUCH_VERSION
        case socket.gaierror():
            cause = _LOOKUP_CAUSES.get(error.errno or 0, Cause.OTHER)
            # No name has a %, so this was an address, and what was not found is its interface.
            return _cause_of_scope(host) if cause is Cause.NAME_NOT_FOUND and "%" in host else cause
    return _transport_cause(error)


def _cause_of_scope(address: str) -> Cause:
    """Return what is wrong with an address whose scope the resolver does not take."""
    is_link_local = ipaddress.ip_address(address).is_link_local
    return Cause.SCOPE_UNKNOWN if is_link_local else Cause.SCOPE_NEEDLESS


def _handshake_cause(root: BaseException) -> Cause:
    if isinstance(root, trio.TooSlowError):
        return Cause.TLS_SILENT
    cause = _tls_cause(root) or _transport_cause(root)
    return Cause.TLS_CLOSED if cause is Cause.RESET else cause


def _transport_cause(error: BaseException) -> Cause:
    match error:
        case trio.TooSlowError():
            return Cause.TIMED_OUT
        case BindFailed():
            return Cause.BIND
        case OSError():
            return _ERRNO_CAUSES.get(error.errno or 0, Cause.OTHER)
    return Cause.OTHER


def _cause_of_address(address: str, cause: Cause) -> Cause:
    """Return `cause`, or what is wrong with the address itself if that explains it."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6 and ip.is_link_local and ip.scope_id is None:
        return Cause.SCOPE_MISSING  # ipv6(7)
    if cause in {Cause.NO_ROUTE, Cause.FORBIDDEN} and (ip.is_multicast or address.endswith(".255")):
        return Cause.NOT_ONE_MACHINE
    return cause


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
    text = str(getattr(error, "strerror", None) or error)
    if isinstance(error, UnicodeEncodeError):  # what the codec says from Python 3.13 on
        text = error.reason
    elif isinstance(error, UnicodeError) and "(UnicodeError: " in text:  # and before
        text = text.rpartition("(UnicodeError: ")[2].removesuffix(")")
    if text.startswith("Error connecting to "):  # Trio's, and the address is named anyway
        text = text.rpartition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


def _ascii_form(name: str) -> str | None:
    """Return an internationalized name as older rules (IDNA 2003) write it, None if they cannot."""
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return None


def _listed(addresses: list[str]) -> str:
    if not addresses:
        return "no address tried"
    *most, last = addresses
    return f"tried {', '.join(most)} and {last}" if most else f"tried {last}"
