"""Why messages were not answered: in words for a person, and how often."""

from collections import Counter

from trio_upper.cli.client import quote
from trio_upper.client.failures import CannotConnect, Cause, broken, looks_like_tls
from trio_upper.measure.exchange import Failed, Trouble
from trio_upper.protocol import NOTICE_PREFIX, read_notice
from trio_upper.terminal.escape import escape


class Reasons:
    """Why messages were not answered, and how often.

    Each kind is shown in the words of its first case; others of the kind differ in times and
    quotations only, and nobody wants to read a thousand of those.
    """

    def __init__(self, reply_timeout: float) -> None:
        self._reply_timeout = reply_timeout
        self._words: dict[Trouble | Cause | str, str] = {}
        #: How often, by the words.
        self.counts: Counter[str] = Counter()

    def add(self, failed: Failed) -> str:
        """Count a failure; return its own words."""
        words = explain(failed, self._reply_timeout)
        kind: Trouble | Cause | str = failed.trouble
        if isinstance(failed.error, CannotConnect):
            kind = failed.error.cause
        elif failed.trouble is Trouble.BROKEN:
            kind = words
        self.counts[self._words.setdefault(kind, words)] += 1
        return words

    def lines(self) -> list[str]:
        """Return a line for each kind, the most frequent first."""
        return [f"{count:,} x {words}" for words, count in self.counts.most_common()]


def explain(failed: Failed, reply_timeout: float) -> str:
    """Return in one line, harmless to a terminal, why there is no right reply."""
    match failed.trouble:
        case Trouble.UNCONNECTED:
            return str(failed.error)
        case Trouble.BROKEN:
            return broken(failed.error or failed)
        case Trouble.SILENT:
            return f"no reply for {reply_timeout:g} s"
        case Trouble.NOTICE:
            notice = read_notice(failed.words) or ""
            return escape(notice.removeprefix(NOTICE_PREFIX.decode()))
        case Trouble.WRONG if looks_like_tls(failed.words):
            return Cause.TLS_WANTED.sentence
        case Trouble.WRONG:
            return f"this is not the reply: {quote(failed.words)}"
        case _:
            return str(failed)
