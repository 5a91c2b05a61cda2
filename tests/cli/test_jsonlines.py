"""What is printed becomes a JSON object a line."""

import io
import json
import sys
from datetime import datetime, timedelta

import pytest

from trio_upper.cli.jsonlines import JSONLines


def events(*texts: str) -> list[dict[str, str]]:
    """Return the events that printed `texts` become."""
    output = io.StringIO()
    printed = JSONLines(output)
    for text in texts:
        assert printed.write(text) == len(text)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_is_an_event_with_a_level_and_a_time() -> None:
    """Without the name of the program, which every line of its own begins with."""
    [event] = events('trio-upper: cannot listen on "x"\n')
    assert datetime.fromisoformat(event.pop("timestamp")).utcoffset() == timedelta(0)
    assert event == {"event": 'cannot listen on "x"', "level": "error"}


def test_a_warning_has_a_level_of_its_own() -> None:
    """The word for it need not be said twice."""
    [event] = events("trio-upper: warning: odd\n")
    assert (event["event"], event["level"]) == ("odd", "warning")


def test_lines_are_whole_however_they_are_written() -> None:
    """In pieces, several at once, and without the empty ones."""
    assert [event["event"] for event in events("o", "ne\ntwo", "\n\n", "three\n", "rest")] == [
        "one",
        "two",
        "three",
    ]


def test_it_takes_the_place_of_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """It has its descriptor, and can be flushed."""
    printed = JSONLines(sys.stderr)
    assert printed.fileno() == sys.stderr.fileno()
    print("ß", file=printed, flush=True)
    assert json.loads(capfd.readouterr().err)["event"] == "ß"


def test_it_leaves_the_output_to_its_owner() -> None:
    """Who may have closed it already, before the last of its users goes."""
    output = io.StringIO()
    printed = JSONLines(output)
    output.close()
    printed.close()
