"""Random keys at the prompt: whatever is typed, pasted or sent by a cat, no key crashes it."""

import os
import random

import pytest
import trio
from tests.helpers.person import CTRL_C, CTRL_D, CTRL_Z, LABEL, TIMEOUT, at_prompt

SEEDS = [int(seed) for seed in os.environ.get("FUZZ_SEEDS", "1 2 3").split()]

PIECES = 100

MARKER = "the end of the noise"

# These end or stop what is tested here: the last one is Ctrl-\.
ENDING = {*CTRL_C, *CTRL_D, *CTRL_Z, "\x1c"}

SEQUENCES = [
    "\x1b[A",
    "\x1b[B",
    "\x1b[D",
    "\x1b[31m",
    "\x1b[<0;1m",
    "\x1b[M",
    "\x1b[M!!!",
    "\x1b[[A",
]
SEQUENCES += ["\x1b", "\x1b[", "\x1bO", "\x1b[200~", "\x1b[201~", "\x1b]0;title\x07", "\x1b[1;2R"]
SEQUENCES += [
    "\x1b[3~",
    "\x1b[5;9~",
    "\x1bb",
    "\x1bf",
    "\x1b.",
    "\x12",
    "\x18\x05",
    "\x18\x18",
    "\x11",
]


def noise(seed: int) -> list[str]:
    """Return what somebody types who does not know how: keys, sequences, pastes and rubbish."""
    chance = random.Random(seed)
    pieces: list[str] = []
    for _ in range(PIECES):
        match chance.randrange(5):
            case 0:
                pieces.append(chr(chance.randrange(0x80)))
            case 1:
                pieces.append(chance.choice(SEQUENCES))
            case 2:
                pieces.append("".join(chance.choices("añ日🎉\t \r\n", k=chance.randrange(40))))
            case 3:
                paste = "".join(map(chr, chance.choices(range(0x3000), k=chance.randrange(200))))
                pieces.append(f"\x1b[200~{paste}\x1b[201~")
            case _:
                pieces.append(chance.randbytes(3).decode("latin-1"))
    return [
        "".join(character for character in piece if character not in ENDING) for piece in pieces
    ]


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_key_crashes_the_prompt(seed: int) -> None:
    """After all of it a line is sent as before, and the terminal is sane at the end."""
    async with at_prompt() as (person, prompt), prompt.converse(LABEL) as conversation:
        for piece in noise(seed):
            await person.types(piece)
            await trio.lowlevel.checkpoint()
        # Out of a paste, a search or a quoted key that was begun, and of a sequence that may go on.
        await person.types("\x1b[201~")
        await trio.sleep(1)
        await person.types("\x07\r\r\r" + MARKER + "\r\r")
        with trio.fail_after(TIMEOUT):
            async for message in conversation:
                await conversation.show(message.upper())
                if message == f"{MARKER}\n".encode():
                    break
        assert message == f"{MARKER}\n".encode()
