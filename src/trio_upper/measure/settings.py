"""What can be set for a measurement, with the defaults; importing it loads nothing.

A message beyond a limit is refused here, with a sentence for the user that names the option.
"""

from dataclasses import dataclass

# A message is at least a letter and a newline.
SMALLEST_BYTES = 2

# Up to here the buffers on the way hold a whole message and its reply. A larger message must be
# received while it is being sent, or both sides wait for ever.
LARGEST_AT_ONCE_BYTES = 64 * 1024

# Under load, four messages and their replies are held for the whole run: 128 MiB at most.
LARGEST_BYTES = 16 * 1024 * 1024

# What a client takes beside its messages: a task, a stream, what waits for its socket. Measured as
# the peak of the resident size, 500 and 5,000 clients with one message in flight against a server
# on the same machine, Linux, Python 3.11: 10 to 14 KiB each without TLS, 50 KiB with it. The least
# counts, so that nothing is refused that would fit.
CLIENT_BYTES = 10 * 1024

# What is kept of each message in flight beside its bytes: when it was sent, and what is owed.
IN_FLIGHT_BYTES = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class PingSettings:
    """How to ping.

    `count` round trips (None: no limit), one every `interval` seconds or as soon as the last one is
    over, of `size` bytes each. A reply that has not come after `reply_timeout` seconds is given up;
    0: never. `ValueError` for values that make no sense.
    """

    count: int | None = None
    interval: float = 1
    size: int = 32
    reply_timeout: float = 30

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError("--count must be at least 1")
        _check_size(self.size, LARGEST_AT_ONCE_BYTES)
        if self.interval < 0:
            raise ValueError("--interval must not be negative")
        _check_reply_timeout(self.reply_timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """The load: `clients` at once for `seconds`, each with `pipeline` messages of `size` bytes.

    A client that is owed a reply and receives nothing for `reply_timeout` seconds fails; 0: never.
    `ValueError` for values that make no sense.
    """

    clients: int = 10
    seconds: float = 5
    size: int = 32
    pipeline: int = 1
    reply_timeout: float = 30

    @property
    def memory_bytes(self) -> int:
        """About how much memory all clients take at least, with their messages in flight."""
        return self.clients * (CLIENT_BYTES + self.pipeline * (self.size + IN_FLIGHT_BYTES))

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise ValueError("--clients must be at least 1")
        if self.pipeline < 1:
            raise ValueError("--pipeline must be at least 1")
        _check_size(self.size, LARGEST_BYTES)
        if self.seconds <= 0:
            raise ValueError("--seconds must be greater than 0")
        _check_reply_timeout(self.reply_timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """How to check: a bulk transfer for `seconds`, 0: none.

    Each reply may keep this side waiting for `reply_timeout` seconds; 0: no limit. `ValueError` for
    values that make no sense.
    """

    seconds: float = 2
    reply_timeout: float = 3

    def __post_init__(self) -> None:
        if self.seconds < 0:
            raise ValueError("--seconds must not be negative")
        _check_reply_timeout(self.reply_timeout)


# People wait for the verdict, so an address has less time than elsewhere.
CHECK_CONNECT_SECONDS = 5


def _check_size(size: int, largest: int) -> None:
    if not SMALLEST_BYTES <= size <= largest:
        raise ValueError(f"--size must be from {SMALLEST_BYTES} to {largest} bytes")


def _check_reply_timeout(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("--reply-timeout must not be negative")
