"""The contexts verify what they promise, bad files are explained, and failed handshakes too."""

import contextlib
import datetime
import errno
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.helpers.certificates import ca_file, cert_file, issue, key_file, pair_file, write
from tests.helpers.waiting import TIMEOUT_SECONDS
from trio_upper.client.failures import Attempt, CannotConnect, Cause, looks_like_tls
from trio_upper.tls import (
    NOT_TLS_ALERT,
    BadCertificate,
    alert_for,
    client_context,
    describe_handshake_failure,
    parse_fingerprint,
    server_context,
    unsent_alert,
)

NAME = "server.example"


def server(directory: Path, *, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return the context of a server called `NAME`."""
    return server_context(cert=pair_file(directory, issue(NAME)), key=None, client_ca=client_ca)


def client(directory: Path, *, cert: Path | None = None, insecure: bool = False) -> ssl.SSLContext:
    """Return the context of a client that trusts our CA."""
    return client_context(ca=ca_file(directory), insecure=insecure, cert=cert, key=None)


async def serve(transport: trio.abc.Stream, context: ssl.SSLContext) -> BaseException | None:
    """Greet one client over TLS; tell it why if the handshake fails, and return the error."""
    async with transport:
        stream = trio.SSLStream(transport, context, server_side=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            with contextlib.suppress(trio.BrokenResourceError):  # the client may have gone
                await transport.send_all(alert_for(error))
            return error
        await stream.send_all(b"HI")
        return None


async def visit(transport: trio.abc.Stream, context: ssl.SSLContext, name: str) -> bytes:
    """Return a TLS server's greeting; tell it why if the handshake fails."""
    async with transport:
        stream = trio.SSLStream(transport, context, server_hostname=name)
        try:
            return bytes(await stream.receive_some())
        except trio.BrokenResourceError as error:
            failed = error
        with contextlib.suppress(trio.BrokenResourceError):  # the server may have gone
            await transport.send_all(unsent_alert(failed))
        raise failed


async def meet(
    server_side: ssl.SSLContext,
    client_side: ssl.SSLContext,
    name: str = NAME,
    *,
    piece: int | None = None,
) -> tuple[BaseException | None, BaseException | None]:
    """Return what a server and a client made of each other: an error each, or None.

    What the server says arrives in pieces of so many bytes; None: as it says it.
    """
    server_end, client_end = trio.testing.memory_stream_pair()

    async def deliver() -> None:
        ends = server_end.send_stream, client_end.receive_stream
        while trio.testing.memory_stream_pump(*ends, max_bytes=piece):
            await trio.testing.wait_all_tasks_blocked()

    server_end.send_stream.send_all_hook = deliver
    errors: list[BaseException | None] = [None, None]

    async def serving() -> None:
        errors[0] = await serve(server_end, server_side)

    async def visiting() -> None:
        try:
            assert await visit(client_end, client_side, name) == b"HI"
        except trio.BrokenResourceError as error:
            errors[1] = root(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving)
        nursery.start_soon(visiting)
    return errors[0], errors[1]


def root(error: BaseException) -> BaseException:
    """Return what an error comes from in the end."""
    return root(error.__cause__) if error.__cause__ else error


async def failure_of_server(first_bytes: bytes, context: ssl.SSLContext) -> tuple[str, bytes]:
    """Return how a server describes a client that sends these bytes, and what it says to it."""
    server_end, client_end = trio.testing.memory_stream_pair()
    await client_end.send_all(first_bytes)
    await client_end.send_eof()
    error = await serve(server_end, context)
    assert error is not None
    return describe_handshake_failure(error), bytes(await client_end.receive_some())


async def test_a_trusted_server(tmp_path: Path) -> None:
    """A server whose certificate our CA signed is accepted under its name."""
    assert await meet(server(tmp_path), client(tmp_path)) == (None, None)


async def test_a_trusted_server_that_comes_byte_by_byte(tmp_path: Path) -> None:
    """It is not taken for one without TLS."""
    assert await meet(server(tmp_path), client(tmp_path), piece=1) == (None, None)


async def test_a_stranger(tmp_path: Path) -> None:
    """Without a CA of one's own only the system's are trusted, and the server hears why."""
    context = client_context(ca=None, insecure=False, cert=None, key=None)
    refusal, error = await meet(server(tmp_path), context)
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert refusal is not None
    said = describe_handshake_failure(refusal)
    assert said == "the client does not accept this server's certificate: unknown CA"


def test_only_the_given_ca_is_trusted(tmp_path: Path) -> None:
    """A CA of one's own replaces those of the system."""
    context = client_context(ca=ca_file(tmp_path), insecure=False, cert=None, key=None)
    assert len(context.get_ca_certs()) == 1


async def test_another_name(tmp_path: Path) -> None:
    """A server with another name in its certificate is not accepted, and hears it."""
    refusal, error = await meet(server(tmp_path), client(tmp_path), "other.example")
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert refusal is not None
    said = describe_handshake_failure(refusal)
    assert said == "the client does not accept this server's certificate"


async def test_insecure(tmp_path: Path) -> None:
    """With `insecure`, neither CA nor name matter."""
    context = client_context(ca=None, insecure=True, cert=None, key=None)
    assert await meet(server(tmp_path), context, "other.example") == (None, None)


async def test_mutual(tmp_path: Path) -> None:
    """A client with a certificate that the server's CA signed is accepted."""
    demanding = server(tmp_path, client_ca=ca_file(tmp_path))
    leaf = issue("me@example.org")
    context = client_context(
        ca=ca_file(tmp_path),
        insecure=False,
        cert=cert_file(tmp_path, leaf),
        key=key_file(tmp_path, leaf),
    )
    assert await meet(demanding, context) == (None, None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_client_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """A client without the certificate that is demanded is refused, and hears why."""
    context = client(tmp_path)
    context.maximum_version = version
    refusal, error = await meet(server(tmp_path, client_ca=ca_file(tmp_path)), context)
    assert refusal is not None
    assert describe_handshake_failure(refusal) == "no certificate from the client"
    assert isinstance(error, ssl.SSLError)
    assert error.reason in {"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"}


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (issue("me@example.org", by="theirs"), "unknown CA"),
        (issue("me@example.org", expired=True), "certificate has expired"),
    ],
)
async def test_bad_client_certificate(tmp_path: Path, leaf: trustme.LeafCert, words: str) -> None:
    """A client with a certificate that is not accepted is refused, and hears why."""
    demanding = server(tmp_path, client_ca=ca_file(tmp_path))
    refusal, error = await meet(demanding, client(tmp_path, cert=pair_file(tmp_path, leaf)))
    assert refusal is not None
    said = describe_handshake_failure(refusal)
    assert said == f"the client's certificate is not accepted: {words}"
    assert isinstance(error, ssl.SSLError)
    assert error.reason in {"TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_CERTIFICATE_EXPIRED"}


def test_no_old_version(tmp_path: Path) -> None:
    """TLS before 1.2 is not spoken, on either side, and newer versions are."""
    for context in (server(tmp_path), client(tmp_path)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.maximum_version is ssl.TLSVersion.MAXIMUM_SUPPORTED


async def test_no_version_in_common(tmp_path: Path) -> None:
    """A server names a client that is too old."""
    new, old = server(tmp_path), client(tmp_path)
    new.minimum_version = ssl.TLSVersion.TLSv1_3
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    refusal, _ = await meet(new, old)
    assert refusal is not None
    assert describe_handshake_failure(refusal) == "no TLS version in common"


async def test_no_cipher_in_common(tmp_path: Path) -> None:
    """A server names a client that it shares no cipher with."""
    one, other = server(tmp_path), client(tmp_path)
    one.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    other.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    other.maximum_version = ssl.TLSVersion.TLSv1_2
    refusal, _ = await meet(one, other)
    assert refusal is not None
    assert describe_handshake_failure(refusal) == "no cipher in common"


@pytest.mark.parametrize(
    ("first_bytes", "words"),
    [
        (b"hello, is anybody there?\n", "the client spoke no TLS"),
        (b"GET / HTTP/1.0\r\n\r\n", "the client spoke no TLS, but HTTP"),
        (b"CONNECT server.example:443 HTTP/1.1\r\n\r\n", "the client spoke no TLS, but HTTP"),
        (b"hi\n", "closed during the handshake"),
        (b"", "closed during the handshake"),
        (b"\x16\x03\x01\x00\x05hello", "unexpected message"),
    ],
)
async def test_no_tls(tmp_path: Path, first_bytes: bytes, words: str) -> None:
    """What is not a handshake is described, and answered with an alert that shows it is TLS."""
    described, answer = await failure_of_server(first_bytes, server(tmp_path))
    assert described == words
    assert looks_like_tls(answer)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "not accept this server's certificate: unknown CA"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "not accept this server's certificate"),
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "not accept this server's certificate"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "not accept this server's certificate: expired"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no TLS version in common"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "no cipher in common"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "tlsv1 alert internal error"),
    ],
)
def test_alerts_from_the_client(reason: str, words: str) -> None:
    """What a client says against the server is described."""
    error = ssl.SSLError(1, "?")
    error.reason = reason
    assert describe_handshake_failure(error).endswith(words)


async def failure_of_client(
    server: Callable[[trio.abc.Stream], Awaitable[None]], context: ssl.SSLContext
) -> trio.BrokenResourceError:
    """Return what a client makes of a server that does this, and is silent afterwards."""
    server_end, client_end = trio.testing.memory_stream_pair()
    stream = trio.SSLStream(client_end, context, server_hostname=NAME)
    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server, server_end)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.do_handshake()
    return caught.value


def saying(*words: bytes) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    """Return a server that says these words, each when the one before has been heard."""

    async def say(stream: trio.abc.Stream) -> None:
        for word in words:
            await stream.send_all(word)
            await trio.testing.wait_all_tasks_blocked()

    return say


async def uppercase_most(stream: trio.abc.Stream) -> None:
    """Be our server without TLS, to a hello that becomes shorter in capitals."""
    await stream.send_all(bytes(await stream.receive_some()).upper()[:-1])


async def test_a_server_without_tls_sends_the_hello_back(tmp_path: Path) -> None:
    """In capitals, and the client knows, without waiting for what it has become too short for."""
    assert speaks_no_tls(await failure_of_client(uppercase_most, client(tmp_path)))


def speaks_no_tls(error: trio.BrokenResourceError) -> bool:
    """Return whether a client understood that its server has no TLS; it has nothing to add."""
    failure = CannotConnect(
        NAME,
        8746,
        attempts=(Attempt(address="192.0.2.1", error=error, connected=True),),
        seconds=0.0,
    )
    return failure.cause is Cause.TLS_NOT_SPOKEN and not unsent_alert(error)


def one_by_one(data: bytes) -> list[bytes]:
    """Return pieces of one byte."""
    return [bytes([byte]) for byte in data]


@pytest.mark.parametrize(
    "first_bytes",
    [
        b"S",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"hi\n",
        b"\x16S",
        b"\x15\x02",
        b"\x17\x03",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
async def test_a_server_without_tls_is_known_by_its_first_bytes(
    tmp_path: Path, first_bytes: bytes
) -> None:
    """As soon as they can be none of a TLS server's, whether they come together or one by one."""
    for server in (saying(first_bytes), saying(*one_by_one(first_bytes))):
        assert speaks_no_tls(await failure_of_client(server, client(tmp_path)))


async def test_a_server_that_has_tls_and_refuses(tmp_path: Path) -> None:
    """An alert as the first word is one of TLS, also when it comes byte by byte."""
    alert = one_by_one(b"\x15\x03\x03\x00\x02\x02\x28")
    error = await failure_of_client(saying(*alert), client(tmp_path))
    refusal = root(error)
    assert isinstance(refusal, ssl.SSLError)
    assert "HANDSHAKE_FAILURE" in refusal.reason


def test_silence() -> None:
    """A client that never finishes the handshake hears that TLS is spoken here."""
    assert describe_handshake_failure(trio.TooSlowError()) == "not finished in time"
    assert alert_for(trio.TooSlowError()) == NOT_TLS_ALERT


def test_reset() -> None:
    """A client that resets the connection has not failed at TLS."""
    error = trio.BrokenResourceError()
    error.__cause__ = OSError(errno.ECONNRESET, "Connection reset by peer")
    assert describe_handshake_failure(error) == "reset during the handshake"


def test_an_error_that_python_has_no_name_for() -> None:
    """An OpenSSL error without a name is described in its own words."""
    error = ssl.SSLError(1, "unknown error (0x0)")
    error.reason = ""
    assert "unknown error (0x0)" in describe_handshake_failure(error)


HEX = "0a" * 31 + "ff"


@pytest.mark.parametrize(
    "text",
    [
        f"SHA256:{HEX}",
        f" sha256:{HEX.upper()} ",
        f"SHA256:{':'.join(['0A'] * 31)}:FF",
        f"sha256={HEX}",
        f"SHA-256:{HEX}",
    ],
)
def test_fingerprints(text: str) -> None:
    """As they are printed by whoever prints them: any case, colons between the bytes."""
    assert parse_fingerprint(text) == f"SHA256:{HEX}"


@pytest.mark.parametrize(
    "text", ["", HEX, f"SHA256:{HEX}00", f"SHA256:{HEX[2:]}", f"MD5:{HEX}", f"SHA256:{HEX[:-1]}g"]
)
def test_what_is_no_fingerprint(text: str) -> None:
    """It is named, with what one looks like."""
    with pytest.raises(ValueError, match="is not a valid fingerprint; give SHA256: and 64 hex"):
        parse_fingerprint(text)


class TestFiles:
    """A file that cannot be used is named, in one line, with what is wrong."""

    def complaint(self, *, cert: Path, key: Path | None = None) -> str:
        with pytest.raises(BadCertificate) as caught:
            server_context(cert=cert, key=key, client_ca=None)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_no_certificate_file(self, tmp_path: Path) -> None:
        """A certificate file that is not there is named."""
        missing = tmp_path / "missing.pem"
        key = key_file(tmp_path, issue(NAME))
        said = self.complaint(cert=missing, key=key)
        assert said == f"cannot read '{missing}': No such file or directory"

    def test_no_key_file(self, tmp_path: Path) -> None:
        """A key file that is not there is named, not the certificate's."""
        missing = tmp_path / "missing.pem"
        said = self.complaint(cert=cert_file(tmp_path, issue(NAME)), key=missing)
        assert said == f"cannot read '{missing}': No such file or directory"

    def test_directory(self, tmp_path: Path) -> None:
        """A directory is not a key."""
        said = self.complaint(cert=cert_file(tmp_path, issue(NAME)), key=tmp_path)
        assert said == f"cannot read '{tmp_path}': Is a directory"

    def test_name_with_a_line_feed(self, tmp_path: Path) -> None:
        """Not even the name of a file makes two lines of one."""
        assert "two\\nlines" in self.complaint(cert=tmp_path / "two\nlines")

    def test_certificate_is_not_pem(self, tmp_path: Path) -> None:
        """A file without a certificate is named."""
        junk = write(tmp_path / "junk.pem", b"hello\n")
        said = self.complaint(cert=junk, key=key_file(tmp_path, issue(NAME)))
        assert said == f"'{junk}' holds no certificate that can be used; PEM is expected"

    def test_key_is_not_pem(self, tmp_path: Path) -> None:
        """A file without a key is named, not the certificate's."""
        empty = write(tmp_path / "empty.pem")
        said = self.complaint(cert=cert_file(tmp_path, issue(NAME)), key=empty)
        assert said == f"'{empty}' holds no private key that can be used; PEM is expected"

    def test_key_is_missing_from_the_certificate_file(self, tmp_path: Path) -> None:
        """Without a key file the key must stand with the certificate."""
        cert = cert_file(tmp_path, issue(NAME))
        said = self.complaint(cert=cert)
        assert said == (
            f"'{cert}' holds no private key that can be used; PEM is expected; "
            "if it is in another file, give that with --tls-key"
        )

    def test_foreign_key(self, tmp_path: Path) -> None:
        """A key of another certificate is found out."""
        cert = cert_file(tmp_path, issue(NAME))
        key = key_file(tmp_path, issue("other.example"))
        said = self.complaint(cert=cert, key=key)
        assert said == f"the key in '{key}' does not belong to the certificate in '{cert}'"

    def test_encrypted_key(self, tmp_path: Path) -> None:
        """An encrypted key is refused at once, without a question for its passphrase."""
        leaf = issue(NAME)
        loaded = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
        encrypted = loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        key = write(tmp_path / "locked.pem", encrypted)
        said = self.complaint(cert=cert_file(tmp_path, leaf), key=key)
        assert said == f"the key in '{key}' is encrypted; decrypt it first"

    def test_weak_key(self, tmp_path: Path) -> None:
        """A certificate that OpenSSL finds too weak is refused in OpenSSL's words."""
        pair = write(tmp_path / "weak.pem", weak_pair())
        said = self.complaint(cert=pair)
        assert said == f"cannot use the certificate in '{pair}': ee key too small"

    def test_key_without_certificate(self, tmp_path: Path) -> None:
        """A key alone is of no use to a client."""
        key = key_file(tmp_path, issue(NAME))
        with pytest.raises(BadCertificate, match="needs the certificate that it belongs to"):
            client_context(ca=None, insecure=False, cert=None, key=key)

    def test_bad_client_certificate(self, tmp_path: Path) -> None:
        """A client's own certificate is checked in the same way."""
        with pytest.raises(BadCertificate, match="holds no certificate"):
            client(tmp_path, cert=write(tmp_path / "junk.pem", b"hello"))

    def test_ca_that_is_not_there(self, tmp_path: Path) -> None:
        """A CA file that cannot be read is named."""
        missing = tmp_path / "missing.pem"
        with pytest.raises(BadCertificate) as caught:
            client_context(ca=missing, insecure=False, cert=None, key=None)
        assert str(caught.value) == f"cannot read '{missing}': No such file or directory"

    def test_empty_ca(self, tmp_path: Path) -> None:
        """A CA file without a certificate is named, for the client's CA as well."""
        empty = write(tmp_path / "empty.pem")
        said = f"'{empty}' holds no CA certificate that can be used; PEM is expected"
        with pytest.raises(BadCertificate) as caught:
            client_context(ca=empty, insecure=False, cert=None, key=None)
        assert str(caught.value) == said
        with pytest.raises(BadCertificate) as caught:
            server(tmp_path, client_ca=empty)
        assert str(caught.value) == said


def weak_pair() -> bytes:
    """Return a self-signed certificate with a key of 1024 bits, which OpenSSL refuses to use."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(today)
        .not_valid_after(today + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
