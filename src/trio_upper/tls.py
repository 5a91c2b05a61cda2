"""TLS: the contexts of a client and of a server, and why a file or a handshake fails."""

import enum
import hashlib
import os
import re
import ssl
from pathlib import Path
from typing import NoReturn, cast

import trio

# What a server says to a peer that spoke no TLS, or too little of it: a record with the fatal alert
# *unexpected message* (RFC 8446 sections 5.1 and 6.2). OpenSSL leaves such a peer without a word.
NOT_TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x0a"

# What a record begins with: its type and the major version, and behind three more bytes, if it is
# of the handshake, the type of the message (RFC 8446 sections 4 and 5.1).
ALERT, HANDSHAKE = b"\x15", b"\x16"
VERSION = b"\x03"
CLIENT_HELLO = b"\x01"
TELLING_BYTES = 6

# Python's own default, which a distribution may leave to the system's configuration.
_OLDEST = ssl.TLSVersion.TLSv1_2


@enum.unique
class Reason(enum.Enum):
    """Why a handshake failed. The value is how a server's log puts it; a client has hints to add.

    ``{detail}`` stands for OpenSSL's own words.
    """

    NOT_TLS = "the client spoke no TLS"
    HTTP = "the client spoke no TLS, but HTTP"
    CLOSED = "closed during the handshake"
    VERSION = "no TLS version in common"
    CIPHER = "no cipher in common"
    CERTIFICATE_REQUIRED = "no certificate from the client"
    REJECTED = "the client does not accept this server's certificate"
    REJECTED_CA = "the client does not accept this server's certificate: unknown CA"
    REJECTED_DATE = "the client does not accept this server's certificate: expired"
    UNTRUSTED = "the client's certificate is not accepted: unknown CA"
    EXPIRED = "the client's certificate is not accepted: {detail}"
    WRONG_NAME = "the client's certificate is for another name"
    WRONG_FINGERPRINT = "the certificate has another fingerprint, {detail}"
    UNVERIFIED = "the client's certificate cannot be verified: {detail}"
    OTHER = "{detail}"


# OpenSSL's names. Those of the peer's alerts (RFC 8446 section 6.2) stand here without the version
# that OpenSSL puts before them. The first one is that of `NoTLS`.
_REASONS = {
    "NO_TLS": Reason.NOT_TLS,
    "WRONG_FINGERPRINT": Reason.WRONG_FINGERPRINT,
    "WRONG_VERSION_NUMBER": Reason.NOT_TLS,
    "RECORD_LAYER_FAILURE": Reason.NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": Reason.NOT_TLS,
    "HTTP_REQUEST": Reason.HTTP,
    "HTTPS_PROXY_REQUEST": Reason.HTTP,
    "UNEXPECTED_EOF_WHILE_READING": Reason.CLOSED,
    "UNSUPPORTED_PROTOCOL": Reason.VERSION,
    "ALERT_PROTOCOL_VERSION": Reason.VERSION,
    "NO_SHARED_CIPHER": Reason.CIPHER,
    "ALERT_HANDSHAKE_FAILURE": Reason.CIPHER,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Reason.CERTIFICATE_REQUIRED,
    "ALERT_CERTIFICATE_REQUIRED": Reason.CERTIFICATE_REQUIRED,
    "ALERT_UNKNOWN_CA": Reason.REJECTED_CA,
    "ALERT_CERTIFICATE_EXPIRED": Reason.REJECTED_DATE,
    "ALERT_BAD_CERTIFICATE": Reason.REJECTED,
    "ALERT_UNSUPPORTED_CERTIFICATE": Reason.REJECTED,
    "ALERT_CERTIFICATE_REVOKED": Reason.REJECTED,
    "ALERT_CERTIFICATE_UNKNOWN": Reason.REJECTED,
    "ALERT_ACCESS_DENIED": Reason.REJECTED,
}

# X509_V_ERR_* of OpenSSL's x509_vfy.h; the ssl module has no names for them.
_VERIFY_REASONS = {
    2: Reason.UNTRUSTED,  # the issuer's certificate is missing
    18: Reason.UNTRUSTED,  # self-signed
    19: Reason.UNTRUSTED,  # self-signed, at the end of the chain
    20: Reason.UNTRUSTED,  # the issuer is not among the CAs here
    21: Reason.UNTRUSTED,  # the chain is incomplete
    9: Reason.EXPIRED,  # not yet valid
    10: Reason.EXPIRED,  # no longer valid
    62: Reason.WRONG_NAME,  # another host name
    64: Reason.WRONG_NAME,  # another IP address
}


_FINGERPRINT = re.compile("SHA-?256[:=](([0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)


class BadCertificate(ValueError):
    """A file of certificates or keys cannot be used; `str()` of it is one line for a person."""


class HandshakeRefused(ssl.SSLError):
    """A handshake was ended by this side; `alert` is what OpenSSL would have the peer know."""

    def __init__(self, alert: bytes) -> None:
        super().__init__("handshake refused")
        self.alert = alert


class NoTLS(ssl.SSLError):
    """The first bytes of the peer are not those of a TLS server."""

    reason = "NO_TLS"


class WrongFingerprint(ssl.SSLError):
    """The server's certificate is not the one that was asked for."""

    reason = "WRONG_FINGERPRINT"

    def __init__(self, has: str, wanted: str) -> None:
        super().__init__(f"it is {has}, not {wanted}")
        self.both = f"it is {has}, not {wanted}"


class _Object(ssl.SSLObject):
    """Hands out the alert of a handshake that fails, which `trio.SSLStream` leaves unsent.

    Without it no peer can tell why it was refused: it sees the connection end, and that is all.

    A client's knows a server without TLS by its first bytes. OpenSSL may take them for the head of
    a record, and wait for the rest of it. It knows the one certificate that its context trusts by
    its fingerprint, before a byte of the conversation is sent.
    """

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    _first_bytes = b""

    def do_handshake(self) -> None:
        try:
            if not self.server_side:
                self._overhear()
            super().do_handshake()
            self._check_fingerprint()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            raise HandshakeRefused(self.outgoing.read()) from error

    def _overhear(self) -> None:
        if len(self._first_bytes) < TELLING_BYTES and (new := self.incoming.read()):
            self.incoming.write(new)
            self._first_bytes += new
            if not _may_be_servers(self._first_bytes):
                raise NoTLS

    def _check_fingerprint(self) -> None:
        wanted = cast("_Context", self.context).fingerprint
        if wanted is None:
            return
        has = fingerprint(self.getpeercert(binary_form=True) or b"")
        if has != wanted:
            self.outgoing.read()  # what would finish the handshake
            raise WrongFingerprint(has, wanted)


def _may_be_servers(first_bytes: bytes) -> bool:
    """Return whether a TLS server may begin like this: with an alert, or a message but a hello.

    A client's hello can only be our own, sent back, as our server does without TLS.
    """
    kind, version, message = first_bytes[:1], first_bytes[1:2], first_bytes[5:6]
    is_record = kind in {ALERT, HANDSHAKE} and version in {b"", VERSION}
    return is_record and (kind, message) != (HANDSHAKE, CLIENT_HELLO)


class _Context(ssl.SSLContext):
    sslobject_class = _Object
    fingerprint: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        telling = cast("_Object", made)
        telling.incoming, telling.outgoing = incoming, outgoing
        return telling


def client_context(
    *,
    ca: Path | None = None,
    insecure: bool = False,
    trusted: str | None = None,
    cert: Path | None = None,
    key: Path | None = None,
) -> ssl.SSLContext:
    """Return the context of a client: TLS 1.2 and later, certificate and host name verified.

    `ca` is a PEM file with the only CAs to trust; None: those of the system. `trusted` is the
    `fingerprint` of the one certificate to trust, whatever its CA, names and dates. `insecure`
    verifies nothing at all. `cert` and `key` are the client's own, as PEM files; None for `cert`:
    it has none; None for `key`: it is in the file of `cert`.

    Error handling: `BadCertificate` for a file that cannot be used. Nobody is asked for a
    passphrase. What goes wrong in a handshake is as in `server_context`; see `unsent_alert`.
    """
    if key is not None and cert is None:
        raise BadCertificate(f"the key in {_named(key)} needs the certificate that it belongs to")
    default = _trusting(ca)
    default.__class__ = _Context  # which `create_default_context` does not make
    context = cast("_Context", default)
    context.minimum_version = _OLDEST
    if insecure or trusted:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.fingerprint = trusted
    if cert is not None:
        _load_pair(context, cert, key)
    return context


def server_context(*, cert: Path, key: Path | None, client_ca: Path | None) -> ssl.SSLContext:
    """Return the context of a server: TLS 1.2 and later.

    `cert` and `key` are PEM files; None for `key`: it is in the file of `cert`. `client_ca` is a
    PEM file with the CAs that must have signed the client's certificate, which is then demanded;
    None: clients need none.

    Error handling: `BadCertificate` for a file that cannot be used. Nobody is asked for a
    passphrase. A handshake that fails raises `HandshakeRefused` out of the ssl module, which
    `trio.SSLStream` makes the cause of its `trio.BrokenResourceError`; see `alert_for`.
    """
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _OLDEST
    _load_pair(context, cert, key)
    if client_ca is not None:
        _demand_certificate(context, client_ca)
    return context


def fingerprint(certificate: bytes) -> str:
    """Return the fingerprint of a certificate in DER form: its SHA-256, in hexadecimal digits."""
    return f"SHA256:{hashlib.sha256(certificate).hexdigest()}"


def parse_fingerprint(text: str) -> str:
    """Return what a person wrote as `fingerprint` does: any case, colons between the digits.

    Error handling: `ValueError`, with one clear sentence, for anything else.
    """
    found = _FINGERPRINT.fullmatch(text.strip())
    if not found:
        raise ValueError(
            f"{text!r} is not a valid fingerprint; give SHA256: and 64 hexadecimal digits"
        )
    return f"SHA256:{found[1].replace(':', '').lower()}"


def names_in(stream: trio.SSLStream[trio.SocketStream]) -> list[str]:
    """Return the names and addresses that the server's verified certificate lists."""
    certificate = stream.getpeercert() or {}
    return [str(name) for _, name in certificate.get("subjectAltName", ())]


def alert_for(error: BaseException) -> bytes:
    """Return what a server sends on the bare transport after a handshake that failed with `error`.

    `error` is what `trio.SSLStream.do_handshake` raised, or the `trio.TooSlowError` of its
    deadline. A client, of ours or not, explains itself by it; a plain client knows it for TLS.
    """
    return unsent_alert(error) or NOT_TLS_ALERT


def unsent_alert(error: BaseException) -> bytes:
    """Return the alert that OpenSSL has for the peer after `error`, as in `alert_for`; or nothing.

    A client sends it on the bare transport, so that the server can tell why it was refused.
    """
    refusal = error.__cause__
    return refusal.alert if isinstance(refusal, HandshakeRefused) else b""


def reason_of(error: ssl.SSLError) -> Reason:
    """Return why a handshake failed with `error`, for a client or for a server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_REASONS.get(error.verify_code, Reason.UNVERIFIED)
    name = _name_of(error)
    _, is_alert, alert = name.partition("_ALERT_")
    return _REASONS.get(f"ALERT_{alert}" if is_alert else name, Reason.OTHER)


def words_of(error: ssl.SSLError) -> str:
    """Return OpenSSL's own words for `error`, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, WrongFingerprint):
        return error.both
    name = _name_of(error)
    return name.replace("_", " ").lower() if name else " ".join(str(error.strerror).split())


def _name_of(error: ssl.SSLError) -> str:
    """Return OpenSSL's name for `error`; "" for one of those for which Python has none."""
    return getattr(error, "reason", None) or ""


def describe_handshake_failure(error: BaseException) -> str:
    """Return in a few words, for the server's log, why the handshake with a client failed.

    `error` is what `trio.SSLStream.do_handshake` raised, or the `trio.TooSlowError` of its
    deadline.
    """
    while error.__cause__ is not None:  # Trio says *broken*, and what that came from says why
        error = error.__cause__
    if isinstance(error, ssl.SSLError):
        return reason_of(error).value.format(detail=words_of(error))
    if isinstance(error, trio.TooSlowError):
        return "not finished in time"
    return "reset during the handshake"


def _trusting(ca: Path | None) -> ssl.SSLContext:
    if ca is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise BadCertificate(_bad_ca(ca, error)) from error


def _demand_certificate(context: ssl.SSLContext, client_ca: Path) -> None:
    try:
        context.load_verify_locations(client_ca)
    except OSError as error:
        raise BadCertificate(_bad_ca(client_ca, error)) from error
    context.verify_mode = ssl.CERT_REQUIRED


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    keyed = key or cert

    def refuse_to_ask() -> NoReturn:  # without this, OpenSSL asks at the terminal
        raise BadCertificate(f"the key in {_named(keyed)} is encrypted; decrypt it first")

    try:
        context.load_cert_chain(cert, key, password=refuse_to_ask)
    except OSError as error:
        raise BadCertificate(_bad_pair(cert, keyed, error)) from error


def _bad_ca(ca: Path, error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{_named(ca)} holds no CA certificate that can be used; PEM is expected"
    return f"cannot read {_named(ca)}: {error.strerror}"


def _bad_pair(cert: Path, keyed: Path, error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        # The ssl module does not say which file it was; it reads them in this order.
        unread = next((path for path in (cert, keyed) if not _is_readable(path)), cert)
        return f"cannot read {_named(unread)}: {error.strerror}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {_named(keyed)} does not belong to the certificate in {_named(cert)}"
    if error.reason:
        return f"cannot use the certificate in {_named(cert)}: {words_of(error)}"
    if _holds_certificate(cert):
        elsewhere = "; if it is in another file, give that with --tls-key" if keyed == cert else ""
        return f"{_named(keyed)} holds no private key that can be used; PEM is expected{elsewhere}"
    return f"{_named(cert)} holds no certificate that can be used; PEM is expected"


def _is_readable(path: Path) -> bool:
    return os.access(path, os.R_OK) and not path.is_dir()


def _holds_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _named(path: Path) -> str:
    # One line, whatever the file's name holds, with the backslashes of Windows as they are.
    return repr(str(path)).replace("\\\\", "\\")
