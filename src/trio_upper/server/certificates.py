"""The certificate of a server: what is said about it, and one made for a server that has none."""

import base64
import datetime
import re
import socket
import ssl
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from trio_upper.tls import BadCertificate, fingerprint, server_context

# How long before its end a certificate is worth a warning: time to have it renewed.
RENEWAL_DAYS = 14

# How long a certificate is valid that a server has made for itself: it is made anew at each start.
SELF_SIGNED_DAYS = 3650

# A certificate as PEM (RFC 7468), and what it was before that. OpenSSL has one more, with trust
# settings, of which no fingerprint can be made so easily.
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----([^-]*)-----END")

# ASN.1 (X.690): the tags of a version that is not the first, and of a time with a short year.
_VERSION = 0xA0
_UTC_TIME = 0x17


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """A context for a server and the certificate in it. `pem` is what it was made of."""

    context: ssl.SSLContext
    pem: bytes

    @property
    def certificate(self) -> bytes | None:
        """The server's own certificate, which is the first one, in DER form; None: not found."""
        found = _CERTIFICATE.search(self.pem)
        return base64.b64decode(found[1]) if found else None

    @property
    def fingerprint(self) -> str | None:
        """What a client can trust it by."""
        return fingerprint(self.certificate) if self.certificate else None

    @property
    def needs_client_certificate(self) -> bool:
        """Whether clients have to show one."""
        return self.context.verify_mode is ssl.CERT_REQUIRED

    def warning(self, now: datetime.datetime) -> str | None:
        """Return what the operator should know about the dates of the certificate, if anything."""
        if self.certificate is None:
            return None
        begin, end = validity(self.certificate)
        if now < begin:
            return f"the certificate is not valid before {begin:%Y-%m-%d %H:%M} UTC"
        if now >= end:
            return f"the certificate expired on {end:%Y-%m-%d %H:%M} UTC"
        if now >= end - datetime.timedelta(days=RENEWAL_DAYS):
            return f"the certificate expires on {end:%Y-%m-%d %H:%M} UTC"
        return None


def load(*, cert: Path, key: Path | None, client_ca: Path | None) -> ServerTLS:
    """Return TLS with the certificate in a file; everything is as in `tls.server_context`."""
    return ServerTLS(server_context(cert=cert, key=key, client_ca=client_ca), cert.read_bytes())


def load_pem(pem: bytes, *, client_ca: Path | None) -> ServerTLS:
    """Return TLS with the key and the certificate in `pem`.

    The ssl module takes files only: there is one, readable for this user alone, for a moment.

    Error handling: `BadCertificate` if no file can be made.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "server.pem")
            path.touch(mode=0o600)
            path.write_bytes(pem)
            return load(cert=path, key=None, client_ca=client_ca)
    except OSError as error:
        raise BadCertificate(f"cannot make a temporary file for the key: {error}") from error


def make_self_signed(addresses: Iterable[IPv4Address | IPv6Address]) -> bytes:
    """Return a new key, and a certificate for this machine's name and `addresses`, as PEM.

    Error handling: `BadCertificate` where the package cryptography is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise BadCertificate(
            "--tls-self-signed needs the package cryptography: pip install cryptography"
        ) from error
    host = socket.gethostname()
    names = [x509.DNSName(name) for name in {host, "localhost"} if name.isascii()]
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "trio-upper")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([*names, *map(x509.IPAddress, addresses)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def validity(certificate: bytes) -> tuple[datetime.datetime, datetime.datetime]:
    """Return from when until when a certificate, in DER form, is valid (RFC 5280 section 4.1)."""
    [(_, content)] = _elements(certificate)
    (_, to_be_signed), *_ = _elements(content)
    fields = [element for tag, element in _elements(to_be_signed) if tag != _VERSION]
    _serial, _algorithm, _issuer, dates, *_ = fields
    begin, end = (_time(tag, text.decode()) for tag, text in _elements(dates))
    return begin, end


def _time(tag: int, text: str) -> datetime.datetime:
    """Return a date; years of two digits are those from 1950 to 2049 (section 4.1.2.5.1)."""
    if tag == _UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _elements(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element that stands in `encoded` (X.690 section 8.1)."""
    while encoded:
        tag, size, start = encoded[0], encoded[1], 2
        if size >= 0x80:  # the length itself follows, in this many bytes
            start += size - 0x80
            size = int.from_bytes(encoded[2:start])
        yield tag, encoded[start : start + size]
        encoded = encoded[start + size :]
