"""What every Python peer needs: its command line, how to upper-case, and a loop for asyncio."""

import argparse
import asyncio
import codecs
import importlib
import ssl
from collections.abc import Callable, Coroutine

HOST = "127.0.0.1"

# What a peer reads at once: Trio's streams and asyncio's examples settle on this.
READ_BYTES = 64 * 1024

# What a queue of new connections holds: as much as the system allows, or a burst would measure it.
BACKLOG = 65535

Transform = Callable[[bytes], bytes]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--text", action="store_true", help="UTF-8 text instead of ASCII letters")
    parser.add_argument("--uvloop", action="store_true", help="only for the peers on asyncio")
    parser.add_argument("--tls-cert", help="a PEM file with key and certificate; only on asyncio")
    return parser.parse_args()


def text_transform() -> Transform:
    """Return a new transform for one connection: a code point may be cut between two reads."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    return lambda data: decode(data).upper().encode()


def choose_transform(*, text: bool) -> Callable[[], Transform]:
    return text_transform if text else lambda: bytes.upper


def tls_context(cert: str | None) -> ssl.SSLContext | None:
    if cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert)
    return context


def run_asyncio(main: Coroutine[None, None, None], *, uvloop: bool) -> None:
    # Imported by name: uvloop is optional, also for type checkers.
    factory = importlib.import_module("uvloop").new_event_loop if uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
