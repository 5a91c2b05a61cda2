"""Gate 16: the server is told to stop while clients that it has not accepted yet wait for it."""

import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from trio.testing import wait_all_tasks_blocked

from tests.acceptance.clients import in_time, insecure_tls
from tests.acceptance.gate import Gate, Sizes, expect
from tests.acceptance.servers import WatchedServer, frozen, hosting, need_descriptors
from tests.acceptance.stopwatch import load, make_stopwatch
from tests.acceptance.talkers import NOTICE
from tests.helpers.certificates import issue, pair_file
from tests.helpers.streams import receive_all, upper

# Nothing takes this long unless it is broken.
GRACE_SECONDS = 60.0

# A stop that waits only for clients that talk is over sooner than this.
SOON_SECONDS = 20.0

# The clients of the load talk for this long; the stop comes meanwhile.
TALK_SECONDS = 3.0


def words_of(number: int) -> bytes:
    return f"newcomer {number}: straße\n".encode()


async def enter(
    server: WatchedServer, stack: AsyncExitStack, count: int
) -> list[trio.SocketStream]:
    """Connect to a server that accepts nothing just now: its kernel does."""
    return [await stack.enter_async_context(await server.connect()) for _ in range(count)]


async def expect_answers(streams: Sequence[trio.abc.Stream]) -> None:
    """Expect each to have its reply, the notice and an end."""
    for number, stream in enumerate(streams):
        wanted = upper(words_of(number)) + NOTICE
        with in_time(f"newcomer {number} had no end"):
            try:
                got = await receive_all(stream)
            except trio.BrokenResourceError:
                got = b"a reset"
        expect(got == wanted, f"newcomer {number} of {len(streams)} got {got[:80]!r}")
        await stream.aclose()


async def stop_with_a_queue(newcomers: int, *options: str) -> None:
    """Stop a server that has a queue: each in it has connected and written."""
    async with (
        hosting("--grace", str(GRACE_SECONDS), *options) as server,
        AsyncExitStack() as stack,
    ):
        async with frozen(server):
            streams = await enter(server, stack, newcomers)
            for number, stream in enumerate(streams):
                await stream.send_all(words_of(number))
            server.send(signal.SIGTERM)
        await expect_answers(streams)
        with in_time("the server did not end", SOON_SECONDS):
            code = await server.ended()
        expect(code == 0, f"the exit code was {code}")


async def stop_beside_load(sizes: Sizes) -> None:
    """Do the same beside clients that talk all the time, and go on after the stop."""
    with TemporaryDirectory() as folder:
        watch = await make_stopwatch(Path(folder))
        async with hosting("--grace", str(GRACE_SECONDS)) as server, AsyncExitStack() as stack:
            async with load(watch, server.port, sizes.busy, TALK_SECONDS) as busy:
                async with frozen(server):
                    streams = await enter(server, stack, sizes.newcomers)
                    for number, stream in enumerate(streams):
                        await stream.send_all(words_of(number))
                    server.send(signal.SIGTERM)
                await expect_answers(streams)
                await busy.result()
            with in_time("the server did not end", SOON_SECONDS):
                code = await server.ended()
            expect(code == 0, f"the exit code was {code}")


async def shake_hands(stream: trio.SSLStream[trio.SocketStream], number: int) -> None:
    await stream.do_handshake()
    await stream.send_all(words_of(number))


async def stop_with_handshakes(count: int) -> float:
    """Stop a TLS server while half of its queue has begun a handshake, and half is silent.

    Returns how many seconds that took.
    """
    with TemporaryDirectory() as name:
        cert = pair_file(Path(name), issue("localhost"))
        options = ("--grace", str(GRACE_SECONDS), "--tls-cert", str(cert))
        async with hosting(*options) as server, AsyncExitStack() as stack:
            async with trio.open_nursery() as nursery:
                async with frozen(server):
                    silent = await enter(server, stack, count)
                    talking = [
                        trio.SSLStream(stream, insecure_tls(), https_compatible=True)
                        for stream in await enter(server, stack, count)
                    ]
                    for number, stream in enumerate(talking):
                        nursery.start_soon(shake_hands, stream, number)
                    await wait_all_tasks_blocked()  # their first words are sent
                    server.send(signal.SIGTERM)
                began = trio.current_time()
            await expect_answers(talking)
            for quiet in silent:
                with in_time("a silent client had no end"):
                    said = await receive_all(quiet)
                expect(b"trio-upper" not in said, f"a silent client was told {said!r}")
                await quiet.aclose()
            with in_time("the server did not end", SOON_SECONDS):
                code = await server.ended()
            seconds = trio.current_time() - began
            expect(code == 0, f"the exit code was {code}")
            ends = {event["end"] for event in server.logged("client gone")}
            expect(ends == {"shutdown"}, f"its clients ended by {sorted(ends)}")
    return seconds


async def run(sizes: Sizes) -> str:
    """Stop servers with queues, beside a load, and with handshakes."""
    need_descriptors(sizes.busy + sizes.newcomers)
    for _ in range(sizes.stops):
        await stop_with_a_queue(sizes.newcomers)
    await stop_beside_load(sizes)
    slowest = max([await stop_with_handshakes(sizes.talkers) for _ in range(sizes.stops)])
    return (
        f"each newcomer had its reply, the notice and an end, in {sizes.stops} stops and in one "
        f"beside {sizes.busy} busy clients; in {sizes.stops} stops over TLS each that had begun "
        f"its handshake had, and the silent ones held up nobody: {slowest:.1f} s at most"
    )


GATE = Gate(
    number=16,
    promise="A stop serves who has connected, also who is still in the kernel's queue or in the "
    "middle of a TLS handshake.",
    doing="{newcomers} clients in the queue, SIGTERM, {stops}x; once beside {busy} busy ones; over "
    "TLS with {talkers} that shake hands and as many silent ones, {stops}x",
    run=run,
    limit=lambda sizes: 120 + 60 * sizes.stops,
)
