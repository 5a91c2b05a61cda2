"""The questions over real sockets: a right peer, and TLS of all sorts."""

import ssl
from pathlib import Path

import pytest
import trio
from tests.helpers.certificates import ca_file, issue, pair_file
from tests.helpers.peers import closed_port, identity, ours, peer, upper
from tests.helpers.program import LOCALHOST
from tests.helpers.waiting import TIMEOUT_SECONDS

from trio_upper.cli.check import describe, values
from trio_upper.client.settings import ConnectSettings
from trio_upper.client.target import Target
from trio_upper.measure.checks import Checker, Finding, Question, Skipped, Status
from trio_upper.measure.settings import CheckSettings
from trio_upper.server.server import Server
from trio_upper.server.settings import ServerSettings
from trio_upper.tls import client_context, server_context


async def ask(
    port: int, tls: ssl.SSLContext | None = None, *, seconds: float = 0.1
) -> tuple[Checker, dict[Question, str]]:
    """Check a port of this machine; return who did, and what is said of each question."""
    settings = CheckSettings(seconds=seconds, reply_timeout=TIMEOUT_SECONDS)
    checker = Checker(Target(host=LOCALHOST, port=port), settings, ConnectSettings(tls=tls))
    shown: list[Question | Finding] = []

    async def show(event: Question | Finding) -> None:
        await trio.lowlevel.checkpoint()
        shown.append(event)

    with trio.fail_after(TIMEOUT_SECONDS):
        await checker.run(show)
    assert shown[::2] == list(Question)
    assert shown[1::2] == list(checker.findings.values())
    said = {
        question: str(describe(found, LOCALHOST, TIMEOUT_SECONDS))
        for question, found in checker.findings.items()
    }
    return checker, said


def trusting(directory: Path) -> ssl.SSLContext:
    return client_context(ca=ca_file(directory), insecure=False, cert=None, key=None)


async def test_a_server_of_ours_passes() -> None:
    """All of it."""
    async with peer(ours) as port:
        checker, said = await ask(port)
    assert checker.right
    assert {found.status for found in checker.findings.values()} == {Status.OK, Status.SKIPPED}
    assert said[Question.SIZES] == "right from 1 byte to 64 KiB"
    assert said[Question.BULK].endswith("there and back, 0.1 s")


async def test_a_closed_port_is_refused() -> None:
    """By this machine itself, which the hint takes into account."""
    with closed_port() as port:
        checker, said = await ask(port)
    assert not checker.right
    assert said[Question.CONNECT].startswith(f"{LOCALHOST}: refused by this machine itself")


async def test_tls_that_is_trusted(tmp_path: Path) -> None:
    """Its version, and how long the handshake took; each question but one is asked through it."""
    async with peer(upper, tls=identity(LOCALHOST)) as port:
        checker, said = await ask(port, trusting(tmp_path))
    assert checker.right
    assert said[Question.TLS].startswith("TLS 1.3, handshake in ")
    measured = values(checker.findings[Question.TLS])
    assert measured["version"] == "TLS 1.3"
    assert measured["handshake_ms"]
    assert said[Question.HALF_CLOSE] == "skipped: not over TLS"


async def test_tls_that_is_not_trusted(tmp_path: Path) -> None:
    """The line about TLS says why; what needs it is skipped."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issue(LOCALHOST, by="others").configure_cert(context)
    async with peer(upper, tls=context) as port:
        checker, said = await ask(port, trusting(tmp_path))
    assert not checker.right
    assert said[Question.TLS].startswith("the server's TLS certificate is not trusted: ")
    assert checker.findings[Question.SERVER] == Skipped(
        question=Question.SERVER, needs=Question.TLS
    )


async def test_tls_that_is_not_spoken(tmp_path: Path) -> None:
    """Leave out --tls."""
    async with peer(ours) as port:
        _, said = await ask(port, trusting(tmp_path))
    assert said[Question.TLS].startswith("the server does not speak TLS: ")


@pytest.mark.parametrize(
    ("demanding", "trusts", "words"),
    [
        (False, False, "the server wants TLS: add --tls"),
        (True, True, "the server wants a TLS certificate from this client"),
    ],
    ids=["TLS", "client certificate"],
)
async def test_what_a_server_wants(
    demanding: bool, trusts: bool, words: str, tmp_path: Path
) -> None:
    """Its answer to the first message says so; with TLS 1.3 also that it wants a certificate."""
    cert = pair_file(tmp_path, issue(LOCALHOST))
    ca = ca_file(tmp_path) if demanding else None
    theirs = server_context(cert=cert, key=None, client_ca=ca)
    async with trio.open_nursery() as nursery:
        server = Server(ServerSettings(port=0, tls=theirs))
        [(_, port)] = await nursery.start(server.run)
        checker, said = await ask(port, trusting(tmp_path) if trusts else None)
        server.cut()
    assert not checker.right
    assert said[Question.TLS].startswith(words)
    assert said[Question.SERVER] == "skipped: needs tls"
