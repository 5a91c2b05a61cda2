"""Why messages were not answered: in words for a person, and how often."""

from collections import Counter
from typing import NamedTuple

from trio_upper.client.failures import CannotConnect, Cause, broken
from trio_upper.measure.exchange import Failed, Trouble
from trio_upper.protocol import NOTICE_PREFIX, read_notice
from trio_upper.terminal.escape import escape, quote

# How much is quoted of what came, and of what was owed: together they fit on two lines.
QUOTED_CHARACTERS = 40


class Reason(NamedTuple):
    """Why there is no right reply, and what to check next, if that is known."""

    words: str
    hint: str = ""

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.words}: {self.hint}" if self.hint else self.words


class Reasons:
    """Why messages were not answered, and how often.

    Each kind is shown in the words of its first case; others of the kind differ in times and
    quotations only, and nobody wants to read a thousand of those.
    """

    def __init__(self, reply_timeout: float) -> None:
        self._reply_timeout = reply_timeout
        self._first: dict[Trouble | Cause | str, Reason] = {}
        self._counts: Counter[Reason] = Counter()

    def add(self, failed: Failed) -> str:
        """Count a failure; return its own words, with the hint if it is the first of its kind."""
        reason = explain(failed, self._reply_timeout)
        kind: Trouble | Cause | str = failed.trouble
        if isinstance(failed.error, CannotConnect):
            kind = failed.error.cause
        elif failed.trouble is Trouble.BROKEN:
            kind = reason.words
        known = kind in self._first
        self._counts[self._first.setdefault(kind, reason)] += 1
        return reason.words if known else str(reason)

    @property
    def counts(self) -> dict[str, int]:
        """How often, by the words with their hint."""
        return {str(reason): count for reason, count in self._counts.items()}

    def lines(self, *, hints: bool = True) -> list[str]:
        """Return a line for each kind, the most frequent first."""
        return [
            f"{count:,} x {reason if hints else reason.words}"
            for reason, count in self._counts.most_common()
        ]


def explain(failed: Failed, reply_timeout: float) -> Reason:
    """Return, harmless to a terminal, why there is no right reply."""
    match failed.trouble, failed.error:
        case Trouble.UNCONNECTED, CannotConnect() as error:
            return Reason(str(error).removesuffix(f": {error.hint}"), error.hint)
        case Trouble.BROKEN, _:
            return Reason(broken(failed.error or failed))
        case Trouble.SILENT, _:
            return Reason(f"no reply for {reply_timeout:g} s")
        case Trouble.NOTICE, _:
            notice = read_notice(failed.words) or ""
            return Reason(escape(notice.removeprefix(NOTICE_PREFIX.decode())))
        case Trouble.WRONG, _ if failed.wants_tls:
            return Reason(Cause.TLS_WANTED.words, Cause.TLS_WANTED.hint)
        case Trouble.WRONG, _ if not failed.owed:
            return Reason(f"more came than was owed: {quote(failed.words, QUOTED_CHARACTERS)}")
        case Trouble.WRONG, _:
            came, owed = (quote(text, QUOTED_CHARACTERS) for text in (failed.words, failed.owed))
            return Reason(f"{came} came instead of {owed}, wrong from byte {failed.position:,} on")
    return Reason(str(failed))
