"""The prompt and its conversations, with a console in memory."""

import subprocess
import sys

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_upper.terminal.console import Interrupted, Typing
from trio_upper.terminal.conversation import UNSHOWN_CHARACTERS
from trio_upper.terminal.prompt import Prompt


class MemoryConsole:
    """A console whose screen is a string and whose keyboard is a list of answers, and of lines."""

    def __init__(self, *answers: str | Exception) -> None:
        self.screen = ""
        self.prints = 0
        self.questions: list[tuple[str, bool]] = []
        self.labels: list[str] = []
        self.answers = list(answers)
        self.keyboard, self._typed = trio.open_memory_channel[bytes](10)

    async def print(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.screen += text
        self.prints += 1

    async def ask(self, question: str, *, fresh: bool) -> str:
        await trio.lowlevel.checkpoint()
        self.questions.append((question, fresh))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def type(self, label: str, typing: Typing) -> None:
        self.labels.append(label)
        async for line in self._typed:
            typing.enter(line)


async def test_each_reply_line_ends_with_its_round_trip_time(autojump_clock: object) -> None:
    """Reply line k is timed from when message k was taken, whole or in pieces."""
    console = MemoryConsole()
    async with Prompt(console).converse("here> ") as conversation:
        await console.keyboard.send(b"hello\n")
        await console.keyboard.send(b"you\n")
        assert await anext(conversation) == b"hello\n"
        await trio.sleep(0.001)
        assert await anext(conversation) == b"you\n"
        await trio.sleep(0.00043)
        await conversation.show(b"HEL")
        await conversation.show(b"LO\nY")
        await trio.sleep(2)
        await conversation.show(b"OU\n")
    assert console.labels == ["here> "]
    assert console.screen == "HELLO   1.43 ms\nYOU   2.00 s\n"


async def test_a_time_is_dimmed_when_asked_for(autojump_clock: object) -> None:
    """Dimming surrounds the time alone, and ends on the same line."""
    console = MemoryConsole()
    async with Prompt(console, dim=True).converse("") as conversation:
        await console.keyboard.send(b"a\n")
        await anext(conversation)
        await conversation.show(b"A\n")
    assert console.screen == "A   \x1b[2m0.00 ms\x1b[0m\n"


async def test_a_label_cannot_drive_the_terminal() -> None:
    """A host may be called whatever it likes."""
    console = MemoryConsole()
    async with Prompt(console).converse("\x1b[2J> "):
        await console.keyboard.aclose()
        await wait_all_tasks_blocked()
    assert console.labels == ["\\x1b[2J> "]


async def test_the_lines_end_with_the_typing() -> None:
    """Ctrl-D ends the iteration; replies are shown after it all the same."""
    console = MemoryConsole()
    async with Prompt(console).converse("") as conversation:
        await console.keyboard.send(b"a\n")
        await wait_all_tasks_blocked()
        assert not conversation.ended
        await console.keyboard.aclose()
        assert [line async for line in conversation] == [b"a\n"]
        assert conversation.ended
        await conversation.show(b"A\n")
    assert console.screen.startswith("A   ")


async def test_a_reply_nobody_asked_for_has_no_time() -> None:
    """More lines than messages are shown as they are, escaped."""
    console = MemoryConsole()
    async with Prompt(console).converse("") as conversation:
        await conversation.show(b"\x1b[2J\xff\n")
    assert console.screen == "\\x1b[2J\\xff\n"


async def test_half_a_reply_is_shown_when_its_conversation_ends() -> None:
    """Escaped as far as it came, on a line of its own."""
    console = MemoryConsole()
    async with Prompt(console).converse("") as conversation:
        await conversation.show(b"LO\xc3")
        assert console.screen == ""
    assert console.screen == "LO\\xc3\n"


@pytest.mark.parametrize("ends", [False, True])
async def test_what_was_not_answered_is_known(ends: bool) -> None:
    """Both what was taken, and what was entered and could no more be sent, in order."""
    console = MemoryConsole()
    async with Prompt(console).converse("") as conversation:
        await console.keyboard.send(b"one\ntwo\n")
        await console.keyboard.send(b"\xff\n")
        await console.keyboard.send(b"four\n")
        if ends:
            await console.keyboard.aclose()
        await wait_all_tasks_blocked()
        await anext(conversation)
        await conversation.show(b"ONE\nT")
    assert conversation.unanswered() == [b"two", b"\xff", b"four"]
    assert conversation.ended is ends


async def test_a_long_reply_is_shown_before_its_end() -> None:
    """10 MB in one line come in pieces: none waits for the end, none is lost, none is tiny."""
    console = MemoryConsole()
    piece, count = 10_000, 1000
    async with Prompt(console).converse("") as conversation:
        for _ in range(count):
            await conversation.show(b"A" * piece)
        in_time = console.screen
    assert piece * count - in_time.count("A") <= UNSHOWN_CHARACTERS
    assert console.screen.count("A") == piece * count
    assert console.prints <= piece * count / UNSHOWN_CHARACTERS + 1


async def test_a_notice_cannot_drive_the_terminal() -> None:
    """A notice is one line, with foreign words escaped."""
    console = MemoryConsole()
    await Prompt(console).notice("it said: \x07")
    assert console.screen == "it said: \\x07\n"


async def test_a_question_shows_its_default() -> None:
    """Enter alone takes the default; spaces around an answer are dropped."""
    console = MemoryConsole("", " b ")
    prompt = Prompt(console)
    assert await prompt.ask("Host", "127.0.0.1") == "127.0.0.1"
    assert await prompt.ask("Host", "127.0.0.1") == "b"
    assert console.questions == [("Host [127.0.0.1]: ", False)] * 2


async def test_an_offer_is_accepted_by_enter_and_declined_by_the_end() -> None:
    """Words before Enter are kept for whoever asked; Ctrl-D declines; Ctrl-C is no answer."""
    console = MemoryConsole("words", "", EOFError(), Interrupted())
    prompt = Prompt(console)
    assert await prompt.offer("Again?") == "words"
    assert await prompt.offer("Again?") == ""
    assert await prompt.offer("Again?") is None
    with pytest.raises(Interrupted):
        await prompt.offer("Again?")
    assert console.questions == [("Again? ", True)] * 4


def test_the_room_is_light_without_a_prompt() -> None:
    """Escaping a banner does not import what edits lines."""
    module = "trio_upper.terminal.prompt"
    code = f"import sys, {module}; print({{'prompt_toolkit', 'asyncio'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout.strip() == "set()"
