"""A burst of newcomers: all connect at once, each says a line, and each waits for its reply.

``python -m benchmarks.burst PORT NEWCOMERS SECONDS``; prints how many seconds the slowest first
reply took, counted from before the first of them connected. Exits with 1 at a wrong reply, and when
one has not come within SECONDS.
"""

import select
import socket
import sys
import time

LINE, REPLY = b"newcomer\n", b"NEWCOMER\n"


def open_all(port: int, count: int, poller: select.epoll) -> dict[int, socket.socket]:
    newcomers: dict[int, socket.socket] = {}
    for _ in range(count):
        newcomer = socket.socket()
        newcomer.setblocking(False)
        newcomer.connect_ex(("127.0.0.1", port))
        newcomers[newcomer.fileno()] = newcomer
        poller.register(newcomer, select.EPOLLOUT)
    return newcomers


def advance(newcomer: socket.socket, events: int, poller: select.epoll) -> bool:
    """Send the line, or take the reply; return whether the newcomer has it."""
    if events & select.EPOLLOUT:
        newcomer.send(LINE)
        poller.modify(newcomer, select.EPOLLIN)
        return False
    if (reply := newcomer.recv(len(REPLY))) != REPLY:
        sys.exit(f"a wrong reply: {reply!r}")
    return True


def main(port: int, count: int, limit: float) -> None:
    poller = select.epoll()
    began = time.monotonic()
    newcomers = open_all(port, count, poller)
    waiting = len(newcomers)
    while waiting:
        ready = poller.poll(max(0.0, began + limit - time.monotonic()))
        if not ready:
            sys.exit(f"{waiting} of {count} newcomers had no reply within {limit:g} s")
        waiting -= sum(advance(newcomers[number], events, poller) for number, events in ready)
    print(time.monotonic() - began)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
