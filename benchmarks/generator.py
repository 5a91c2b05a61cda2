"""The load generator over TLS, or where there is no C compiler: ``generator.c`` in Python.

Raw sockets and epoll, so that nothing that is being measured also measures. The contract stands in
``load.py``; with ``--tls`` in front of the other arguments it speaks TLS and verifies no name.
"""

import json
import select
import signal
import socket
import ssl
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.figures import bucket

# Large, so that reading costs less here than writing costs the server.
READ_BYTES = 256 * 1024

# Of a wrong reply, in bytes.
QUOTED = 80

NANOSECONDS_PER_SECOND = 1_000_000_000

# What a socket, plain or TLS, raises where it would have to wait.
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Ring:
    """Messages of one size, repeated for ever."""

    def __init__(self, data: bytes, messages: int) -> None:
        self.data = data
        self.size = len(data)
        self.message = len(data) // messages

    def up_to_end(self, position: int) -> int:
        """How many bytes there are from `position` to the end of the ring."""
        return self.size - position % self.size

    def part(self, position: int, size: int) -> memoryview:
        """Up to `size` bytes at `position`, ending with the ring at the latest."""
        start = position % self.size
        return memoryview(self.data)[start : start + size]

    def holds(self, part: memoryview, position: int) -> bool:
        """Whether `part` stands at `position`; compared in place, without a copy."""
        return self.data.startswith(part, position % self.size)


class Connection:
    """One socket, and how far it has come in the two rings, in bytes."""

    def __init__(self, connected: socket.socket, first: int, load: "Load") -> None:
        self.socket = connected
        self.sent = first * load.requests.message
        self.received = first * load.replies.message
        self.sent_at = [0] * load.in_flight
        # When something was sent, and how long after the time before, in nanoseconds.
        self.spoke = time.monotonic_ns()
        self.pause = 0
        self.watched = False
        self.blocked = False


class Load:
    def __init__(
        self, requests: Ring, replies: Ring, in_flight: int, tls: ssl.SSLContext | None
    ) -> None:
        self.tls = tls
        self.requests = requests
        self.replies = replies
        self.in_flight = in_flight
        self.begun = self.answered = 0
        self.sending = False
        self.latency: Counter[int] = Counter()
        self.connections: dict[int, Connection] = {}
        self.poller = select.epoll()

    def open(self, port: int, first: int) -> None:
        """Open one more connection and have one message answered: the server has accepted it."""
        connected = socket.create_connection(("127.0.0.1", port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            connected = self.tls.wrap_socket(connected)
        connected.setblocking(False)
        connection = Connection(connected, first, self)
        self.connections[connected.fileno()] = connection
        self.watch(connection)
        self.send_up_to(connection, first + 1)
        while self.answered < self.begun:
            self.turn()

    def verify(self, connection: Connection, data: bytes) -> None:
        """Compare what came with what is owed next, which may lie across the end of the ring."""
        rest = memoryview(data)
        while rest:
            part = rest[: self.replies.up_to_end(connection.received)]
            if not self.replies.holds(part, connection.received):
                quiet = max(time.monotonic_ns() - connection.spoke, connection.pause)
                seconds = quiet / NANOSECONDS_PER_SECOND
                words = bytes(part[:QUOTED]).decode(errors="replace")
                sys.exit(f"a wrong reply, to a client that was quiet for {seconds:.3f} s: {words}")
            connection.received += len(part)
            rest = rest[len(part) :]

    def receive_all(self, connection: Connection) -> None:
        """Receive until there is nothing: what TLS has taken from the socket wakes nobody."""
        try:
            while True:
                self.receive(connection)
        except WOULD_BLOCK:
            pass

    def receive(self, connection: Connection) -> None:
        data = connection.socket.recv(READ_BYTES)
        now = time.monotonic_ns()
        if not data:
            sys.exit("the server closed a connection")
        first = connection.received // self.replies.message
        self.verify(connection, data)
        whole = connection.received // self.replies.message
        for message in range(first, whole):
            self.latency[bucket(now - connection.sent_at[message % self.in_flight])] += 1
        self.answered += whole - first
        if self.answered > self.begun:
            sys.exit("a wrong reply: more than was owed")

    def whole_messages(self, size: int) -> int:
        return -(-size // self.requests.message)

    def send_up_to(self, connection: Connection, messages: int) -> None:
        """Send until `messages` messages since the start of the ring have gone out whole."""
        until = messages * self.requests.message
        blocked = False
        while connection.sent < until and not blocked:
            blocked = not self.send_some(connection, until - connection.sent)
        if blocked != connection.blocked:
            connection.blocked = blocked
            events = select.EPOLLIN | (select.EPOLLOUT if blocked else 0)
            self.poller.modify(connection.socket, events)

    def send_some(self, connection: Connection, size: int) -> bool:
        """Send at most `size` bytes; False if the kernel takes none."""
        before, now = connection.sent, time.monotonic_ns()
        try:
            connection.sent += connection.socket.send(self.requests.part(before, size))
        except WOULD_BLOCK:
            return False
        self.begun += self.whole_messages(connection.sent) - self.whole_messages(before)
        connection.pause, connection.spoke = now - connection.spoke, now
        size = self.requests.message
        for message in range(before // size, connection.sent // size):
            connection.sent_at[message % self.in_flight] = now
        return True

    def watch(self, connection: Connection) -> None:
        connection.watched = True
        self.poller.register(connection.socket, select.EPOLLIN)

    def refill(self, connection: Connection) -> None:
        """While sending, keep the messages in flight; afterwards only end what has begun.

        Then look no more at a connection on which nothing is owed: a server that stops may end it.
        """
        answered = connection.received // self.replies.message
        if self.sending:
            self.send_up_to(connection, answered + self.in_flight)
            return
        self.send_up_to(connection, self.whole_messages(connection.sent))
        if answered == self.whole_messages(connection.sent):
            connection.watched = False
            self.poller.unregister(connection.socket)

    def turn(self) -> None:
        for descriptor, events in self.poller.poll():
            connection = self.connections[descriptor]
            if events & ~select.EPOLLOUT:
                self.receive_all(connection)
            self.refill(connection)

    def run(self, seconds: float) -> None:
        """Send for `seconds`, then wait until nothing is owed."""
        end = time.monotonic() + seconds
        self.sending = seconds > 0
        for connection in self.connections.values():
            if not connection.watched:
                self.watch(connection)
            self.refill(connection)
        while self.answered < self.begun:
            self.turn()
            self.sending = self.sending and time.monotonic() < end


def unverified_tls() -> ssl.SSLContext:
    """Return a context that trusts every server: that is not what is being measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main(arguments: list[str]) -> None:
    tls = unverified_tls() if arguments[0] == "--tls" else None
    arguments = arguments[tls is not None :]
    port, connections, in_flight = (int(argument) for argument in arguments[:3])
    warm_up, seconds = (float(argument) for argument in arguments[3:5])
    signal.alarm(int(arguments[5]))
    messages = int(arguments[6])
    requests, replies = (Ring(Path(path).read_bytes(), messages) for path in arguments[7:])
    load = Load(requests, replies, in_flight, tls)
    for number in range(connections):
        load.open(port, number % messages)
    load.run(warm_up)
    load.latency.clear()
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("nobody said go")
    start, cpu, answered = time.monotonic_ns(), time.process_time(), load.answered
    load.run(seconds)
    result = {
        "messages": load.answered - answered,
        "seconds": (time.monotonic_ns() - start) / NANOSECONDS_PER_SECOND,
        "cpu": time.process_time() - cpu,
        "latency": sorted(load.latency.items()),
    }
    print(json.dumps(result), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1:])
