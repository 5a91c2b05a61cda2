"""What every Python peer needs: its command line and the two ways to upper-case."""

import argparse
import codecs
from collections.abc import Callable

HOST = "127.0.0.1"

READ_BYTES = 64 * 1024
"""Most bytes a peer asks for at once: what Trio's streams and asyncio's examples settle on."""

Transform = Callable[[bytes], bytes]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--text", action="store_true", help="UTF-8 text, not ASCII letters alone")
    parser.add_argument("--uvloop", action="store_true", help="only for the peers on asyncio")
    return parser.parse_args()


def ascii_transform() -> Transform:
    return bytes.upper


def text_transform() -> Transform:
    """A fresh transform for one connection: a code point may be cut between two reads."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    return lambda data: decode(data).upper().encode()


def choose_transform(*, text: bool) -> Callable[[], Transform]:
    return text_transform if text else ascii_transform
