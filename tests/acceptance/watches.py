"""Gate 13: the system has no room to watch one more socket.

How many sockets a user may watch with epoll is limited over all its processes
(``fs.epoll.max_user_watches``, epoll(7)). To use that up, or to lower it, would harm everything
else on this machine. So a library that is loaded into the server gives the kernel's answer while a
certain file is there.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from benchmarks.servers import build

from tests.acceptance.clients import neighbour, speak
from tests.acceptance.gate import Gate, Sizes, Skipped, expect
from tests.acceptance.servers import WatchedServer, expect_no_descriptor_left, hosting

LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

int epoll_ctl(int poller, int operation, int fd, struct epoll_event *event) {
    static int (*real)(int, int, int, struct epoll_event *);
    const char *full = getenv("WATCHES_USED_UP");
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_ctl");
    if (operation == EPOLL_CTL_ADD && full != NULL && access(full, F_OK) == 0) {
        errno = ENOSPC;
        return -1;
    }
    return real(poller, operation, fd, event);
}
"""


async def visit(server: WatchedServer) -> None:
    """Connect, and accept whatever happens."""
    async with await server.connect() as stream:
        try:
            await stream.send_all(b"hello\n")
            await stream.send_eof()
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


async def use_up(server: WatchedServer, full: trio.Path, sizes: Sizes) -> None:
    """Connect clients while nothing more can be watched; those already there are served."""
    async with AsyncExitStack() as stack:
        inside = [await stack.enter_async_context(await server.connect()) for _ in range(3)]
        for stream in inside:
            await speak(stream, b"before\n")
        before = server.descriptors()
        await full.touch()
        for _ in range(sizes.repeats):
            await visit(server)
        for stream in inside:
            await speak(stream, b"meanwhile\n")
        await full.unlink()
        await expect_no_descriptor_left(server, before)
        async with await server.connect() as stream:
            await speak(stream, b"behind\n")


async def run(sizes: Sizes) -> str:
    """Let nothing more be watched for a while, and do so twice."""
    with TemporaryDirectory() as name:
        source, library, full = (Path(name, part) for part in ("watches.c", "watches.so", "full"))
        source.write_text(LIBRARY)
        if why := build("cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"):
            raise Skipped(why)
        prefix = ("env", f"LD_PRELOAD={library}", f"WATCHES_USED_UP={full}")
        async with hosting(prefix=prefix) as server, neighbour(server) as answers:
            for _ in range(2):
                await use_up(server, trio.Path(full), sizes)
            expect(server.events, "nothing was logged")
    return (
        f"{2 * sizes.repeats} clients came while nothing more could be watched; those inside and "
        f"those behind were served; {answers}"
    )


GATE = Gate(
    number=13,
    promise="Where the system can watch no more sockets, only those that are too many are not "
    "served, and only as long.",
    doing="`epoll_ctl` refuses every new socket (ENOSPC) while {repeats} clients come, twice",
    run=run,
    limit=lambda sizes: 60 + sizes.repeats,
)
