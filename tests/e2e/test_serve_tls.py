"""TLS between real processes: who is answered, who is refused, and what the log says of it."""

import shutil
import signal
import socket
import ssl
import warnings
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
import trio
from tests.helpers.certificates import ca_file, issue, pair_file
from tests.helpers.program import LOCALHOST, Ended, Server, client, neighbour, one, reset, serving
from tests.helpers.streams import ask, receive, receive_all
from tests.helpers.waiting import TIMEOUT_SECONDS, eventually

from trio_upper.tls import fingerprint

SHUTDOWN_NOTICE = b"trio-upper: closing, the server is shutting down\n"


class Files:
    """The certificates of a test, as files, and the options that name them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ca = str(ca_file(directory))
        self.foreign_ca = str(ca_file(directory, "foreign"))
        self.serve = ["--tls-cert", self._pair("server", LOCALHOST, "localhost")]
        self.serve_mutual = [*self.serve, "--tls-client-ca", self.ca]
        self.own = ["--tls-cert", self._pair("client", "client@example.org")]
        self.foreign = ["--tls-cert", self._pair("stranger", "client@example.org", by="foreign")]
        self.trust = ["--tls", "--tls-ca", self.ca]

    def _pair(self, name: str, *identities: str, by: str = "ours") -> str:
        directory = self._directory / name
        directory.mkdir()
        return str(pair_file(directory, issue(*identities, by=by)))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The certificates in a directory of their own."""
    return Files(tmp_path)


async def connect(server: Server, files: Files) -> trio.SSLStream[trio.SocketStream]:
    """Return a connection over which TLS is spoken, from a client that has a certificate."""
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.own[1])
    return await shake_hands(await server.connect(), context)


async def shake_hands(
    transport: trio.SocketStream, context: ssl.SSLContext
) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SSLStream(transport, context, server_hostname="localhost")
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(transport)
        raise
    return stream


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_self_made_certificate_has_the_announced_fingerprint(workers: str) -> None:
    """From nothing to TLS in one step; workers share it."""
    options = ("--tls-self-signed", "--workers", workers, "--log-format", "text")
    async with serving(*options) as server:
        await server.line("from this machine")
        announced = {word for word in server.stderr.decode().split() if word.startswith("SHA256:")}
        seen: set[str] = set()
        for _ in range(8):  # one of them accepts
            stream = await shake_hands(await server.connect(), unverified())
            seen.add(fingerprint(stream.getpeercert(binary_form=True)))
            assert await ask(stream, b"hi") == b"HI"
            await stream.aclose()
        assert seen == announced


def unverified() -> ssl.SSLContext:
    """Return a context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_messages_are_answered_over_tls(files: Files) -> None:
    """By our own client, and by any other; both sides know that it is all."""
    async with serving(*files.serve) as server:
        where = ("localhost", str(server.port))
        ended = await client(*where, *files.trust, stdin="hello\nStraße\n".encode())
        assert ended == Ended(0, b"HELLO\nSTRASSE\n", b"")
        async with await connect(server, files) as stream:
            assert await ask(stream, "ß".encode()) == b"SS"
        await server.repeated("client gone", 2, end="eof")


async def test_a_large_file_comes_back_whole_over_tls(files: Files) -> None:
    """Many records in both directions at the same time."""
    text = b"the quick brown fox jumps over the lazy dog\n" * 200_000
    async with serving(*files.serve) as server:
        ended = await client("localhost", str(server.port), *files.trust, stdin=text)
        assert ended == Ended(0, text.upper(), b"")


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
async def test_openssl_s_client_talks_to_it(files: Files) -> None:
    """It verifies the server's certificate, shows its own, and gets its answer."""
    async with serving(*files.serve_mutual) as server:
        command = ["openssl", "s_client", "-quiet", "-no_ign_eof", "-verify_return_error"]
        command += ["-connect", f"{LOCALHOST}:{server.port}", "-CAfile", files.ca]
        command += ["-cert", files.own[1], "-key", files.own[1]]
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(trio.run_process, command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
            )
            await process.stdin.send_all("straße\n".encode())
            assert await receive(process.stdout, 8) == b"STRASSE\n"
            await process.stdin.aclose()
        assert (await server.event("client gone"))["end"] == "eof"


async def refused(server: Server, reason: str, number: int = 1) -> None:
    """Wait for the log to say for what `reason` a client was refused, the `number`-th of all."""
    failed = (await server.repeated("handshake failed", number, level="warning"))[-1]
    assert reason in failed["reason"]
    await server.event("client gone", client=failed["client"], end="tls", received=0, sent=0)
    assert len(server.logged("handshake failed")) == number


async def test_who_does_not_fit_is_refused(files: Files) -> None:
    """Each is told why, the log has one line about it, and a neighbour is answered on."""
    misfits = [
        (["--tls", "--tls-ca", files.foreign_ca], "not trusted", "certificate: unknown CA"),
        (files.trust, "wants a TLS certificate", "no certificate from the client"),
        (files.trust + files.foreign, "does not accept this client's", "unknown CA"),
        ([], "the server wants TLS", "the client spoke no TLS"),
    ]
    async with serving(*files.serve_mutual) as server, neighbour(await connect(server, files)):
        for number, (options, told, logged) in enumerate(misfits, start=1):
            ended = await client("localhost", str(server.port), *options, "-m", "hello")
            assert (ended.code, ended.stdout) == (1, b"")
            assert told in ended.lines[-1]
            await refused(server, logged, number)


async def test_a_client_certificate_of_the_right_ca_is_let_in(files: Files) -> None:
    """Mutual TLS, with our own client."""
    async with serving(*files.serve_mutual) as server:
        where = ("localhost", str(server.port))
        ended = await client(*where, *files.trust, *files.own, "-m", "hello")
        assert ended == Ended(0, b"HELLO\n", b"")


async def test_a_client_that_says_why_it_refuses_the_server_is_quoted(files: Files) -> None:
    """Most clients send an alert when they do not trust the certificate; the log has its words."""
    distrusting = ssl.create_default_context(cafile=files.foreign_ca)

    def knock() -> None:
        with (
            socket.create_connection((LOCALHOST, server.port), TIMEOUT_SECONDS) as connection,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            distrusting.wrap_socket(connection, server_hostname="localhost")

    async with serving(*files.serve) as server:
        await trio.to_thread.run_sync(knock)
        await refused(server, "the client does not accept this server's certificate: unknown CA")


async def test_what_is_no_handshake_is_refused_without_a_word_of_text(files: Files) -> None:
    """Plain text, HTTP, half a hello: an alert and an end, and a line in the log."""
    strange = [
        (b"hello\n", "the client spoke no TLS"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01", "closed during the handshake"),
    ]
    async with serving(*files.serve) as server, neighbour(await connect(server, files)):
        for number, (words, reason) in enumerate(strange, start=1):
            async with await server.connect() as stream:
                await stream.send_all(words)
                await stream.send_eof()
                alert = await receive_all(stream)
                assert alert[:1] == b"\x15"  # the record type of alerts (RFC 8446, section 5.1)
            await refused(server, reason, number)


async def test_a_probe_that_leaves_without_a_byte_is_no_warning(files: Files) -> None:
    """A health check ends its connection, or resets it, every other second."""
    async with serving(*files.serve) as server:
        await (await server.connect()).aclose()
        await server.event("client gone", end="eof")
        reset(await server.connect())
        await server.event("client gone", end="reset")
        assert server.logged("handshake failed") == []


async def test_an_old_version_of_tls_is_refused(files: Files) -> None:
    """TLS 1.2 is the oldest that is spoken."""
    async with serving(*files.serve) as server:
        with pytest.raises(trio.BrokenResourceError):
            await shake_hands(await server.connect(), old_context())
        await refused(server, "no TLS version in common")


def old_context() -> ssl.SSLContext:
    """Return the context of a client that speaks TLS 1.1 at most."""
    context = ssl.create_default_context()
    context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL would not even try
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


async def test_rude_clients_at_the_tls_port_disturb_nobody(files: Files) -> None:
    """Resets at any time, garbage, clients that never read: a neighbour is answered throughout."""
    options = (*files.serve, "--write-timeout", "1")
    async with serving(*options) as server, neighbour(await connect(server, files)):
        await server.event("client connected")
        before = server.descriptors()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                for rudeness in (reset_at_once, send_garbage, reset_in_the_middle):
                    nursery.start_soon(rudeness, server, files)
            for _ in range(2):
                nursery.start_soon(never_read, server, files)
        await server.repeated("client gone", 62)
        assert len(server.logged("client gone", end="stalled")) == 2
        assert len(server.logged("client gone", end="tls")) == 20
        assert len(server.logged("client gone", end="reset")) == 40
        await eventually(lambda: server.descriptors() == before)


async def reset_at_once(server: Server, files: Files) -> None:
    async with await server.connect() as stream:
        reset(stream)


async def send_garbage(server: Server, files: Files) -> None:
    async with await server.connect() as stream:
        await stream.send_all(b"\x00garbage" * 1000)
        await stream.send_eof()
        assert b"garbage" not in (await receive_all(stream)).lower()


async def reset_in_the_middle(server: Server, files: Files) -> None:
    stream = await connect(server, files)
    assert await ask(stream, b"hi") == b"HI"
    await stream.send_all(b"half a mess")
    reset(stream.transport_stream)


async def never_read(server: Server, files: Files) -> None:
    async with await connect(server, files) as stream:
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - which of them is the last?
            while True:
                await stream.send_all(b"x" * 65536)


async def test_notices_come_over_tls(files: Files) -> None:
    """The notice of a full server, and the one for an idle client."""
    options = (*files.serve, "--max-clients", "2", "--idle-timeout", "4")
    full = b"trio-upper: full, 2 clients are connected; try again later\n"
    idle = b"trio-upper: closing, no message for 4 s\n"
    async with (
        serving(*options) as server,
        await connect(server, files) as first,
        await connect(server, files) as second,
        await connect(server, files) as third,
    ):
        assert await receive_all(third) == full
        assert await ask(first, b"hi") == b"HI"
        assert await receive_all(first) == b"\n" + idle
        assert await receive_all(second) == idle


async def test_a_client_that_shakes_hands_holds_a_place(files: Files) -> None:
    """So clients that never finish cannot outnumber those that are allowed."""
    async with (
        serving(*files.serve, "--max-clients", "1") as server,
        await server.connect(),
        await connect(server, files) as refused,
    ):
        assert await receive_all(refused) == (
            b"trio-upper: full, 1 clients are connected; try again later\n"
        )


async def test_a_stop_takes_leave_over_tls(files: Files) -> None:
    """Clients get the notice and a proper end; one still in its handshake gets no notice."""
    async with serving(*files.serve, "--grace", "60") as server:
        streams = [await connect(server, files) for _ in range(10)]
        async with await server.connect() as silent:
            await server.event("client connected", client=len(streams) + 1)
            for stream in streams:
                assert await ask(stream, b"hi\n") == b"HI\n"
            await streams[0].send_all(b"in flight")
            with trio.fail_after(TIMEOUT_SECONDS):
                server.send(signal.SIGTERM)
                assert await receive_all(streams[0]) == b"IN FLIGHT\n" + SHUTDOWN_NOTICE
                for stream in streams[1:]:
                    assert await receive_all(stream) == SHUTDOWN_NOTICE
                assert not (await receive_all(silent)).count(b"trio-upper")
                for stream in streams:
                    await stream.aclose()
                assert await server.ended() == 0


async def test_our_client_explains_a_server_without_tls(files: Files) -> None:
    """It is named for what it is, although its answer is a hello: the client's own, in capitals."""
    async with serving() as server, neighbour(await server.connect()):
        ended = await client("localhost", str(server.port), *files.trust, "-m", "hello")
        assert (ended.code, ended.stdout) == (1, b"")
        assert "the server does not speak TLS" in one(ended.lines)
