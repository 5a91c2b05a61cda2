"""How many clients a server admits, what the others are told, and what it does when it runs out."""

from contextlib import AsyncExitStack

import trio
from tests.helpers.program import Server, neighbour, one, serving
from tests.helpers.streams import ask, receive_all
from tests.helpers.waiting import eventually

FULL = b"trio-upper: full, 5 clients are connected; try again later\n"

# What a client may have to say before it reads that it is not let in; the last one takes a while.
TALK = [b"", b"hello, is there anybody?\n", b"hello?\n" * 200_000]

# With so few descriptors the server needs some two dozen for itself and its refusals.
FEW_DESCRIPTORS = 64
FEW = ("prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}")

# How long, in seconds, a full server is watched, and what share of a processor it may use.
WATCHED = 1.0
BUSY = 0.5


async def sit(server: Server, stack: AsyncExitStack, count: int) -> list[trio.SocketStream]:
    """Connect `count` clients, each of which is answered."""
    streams = [await stack.enter_async_context(await server.connect()) for _ in range(count)]
    for stream in streams:
        assert await ask(stream, b"sit") == b"SIT"
    return streams


async def test_the_sixth_of_five_is_told_so_300_times_in_a_row() -> None:
    """It gets the notice and an end of stream, never a reset, also if it talks before it reads."""
    count = 300
    async with serving("--max-clients", "5") as server, AsyncExitStack() as stack:
        inside = await sit(server, stack, 5)
        for number in range(count):
            async with await server.connect() as stream:
                await stream.send_all(TALK[number % len(TALK)])
                assert await receive_all(stream) == FULL
        for stream in inside:
            assert await ask(stream, b"still here") == b"STILL HERE"
        assert await server.stop() == 0
        assert len(server.logged("client refused", end="full")) == count
        stopped = one(server.logged("stopped"))
        assert (stopped["served"], stopped["refused"], stopped["cut"]) == (5, count, 0)


async def test_a_freed_place_is_given_at_once() -> None:
    """Whoever connects after a client has seen its end is admitted."""
    async with serving("--max-clients", "5") as server, AsyncExitStack() as stack:
        inside = await sit(server, stack, 5)
        for leaving in inside:
            async with await server.connect() as refused:
                assert await receive_all(refused) == FULL
            await leaving.send_eof()
            assert await receive_all(leaving) == b""
            await sit(server, stack, 1)
        await server.repeated("client refused", len(inside))
        assert len(server.logged("client refused")) == len(inside)


async def test_a_crowd_that_wants_in_disturbs_nobody() -> None:
    """More refused clients than can be told at a time are closed; those inside are answered."""
    count = 200
    async with serving("--max-clients", "5") as server, AsyncExitStack() as stack:
        await sit(server, stack, 4)
        async with neighbour(await server.connect()):
            await server.event("client connected", client=5)
            before = server.descriptors()
            async with AsyncExitStack() as crowd:
                for _ in range(count):
                    await crowd.enter_async_context(await server.connect())
                await server.repeated("client refused", count)
                assert server.descriptors() < before + count / 2
            await eventually(lambda: server.descriptors() == before)


async def test_few_descriptors_mean_few_clients_and_nothing_worse() -> None:
    """Those connected are served, the core is idle, and freed places are given again."""
    count = 150
    async with serving(prefix=FEW) as server:
        warning = await server.event("client limit lowered", level="warning")
        places = warning["max_clients"]
        assert (warning["descriptors"], warning["asked"]) == (FEW_DESCRIPTORS, 10_000)
        assert FEW_DESCRIPTORS / 4 < places < FEW_DESCRIPTORS
        for turn in (1, 2):
            async with AsyncExitStack() as crowd:
                inside = await sit(server, crowd, places)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(want_in, server, count)
                    await server.repeated("client refused", count * turn)
                    assert await share_of_processor(server) < BUSY
                    for stream in inside:
                        assert await ask(stream, b"still here") == b"STILL HERE"
                    nursery.cancel_scope.cancel()
                for stream in inside:
                    await stream.send_eof()
                    assert await receive_all(stream) == b""


async def want_in(server: Server, count: int) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(await server.connect())
        await trio.sleep_forever()


async def share_of_processor(server: Server) -> float:
    """Return the share of a core that a server uses when it has nothing to do."""
    before = server.cpu()
    await trio.sleep(WATCHED)
    return (server.cpu() - before) / WATCHED
