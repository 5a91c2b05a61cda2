"""The proof of the tests: what breaks the code is up to date, and is noticed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tools import ROOT
from tools.broken_promises import broken, end_left_behind, load, names
from tools.mutants import main, mutants

from tests.helpers.waiting import TIMEOUT_SECONDS
from tests.test_docs import PROMISES, gates_in

SOURCE = '''
LIMIT = 10

def is_small(number):
    """Tell."""
    unused = "x"
    return not number > LIMIT
'''

TESTS = """
from {name} import code

def test_it():
    assert code.is_small(1)
    assert not code.is_small(99)
"""

EXAMINE = """
import sys
from pathlib import Path
from tools.mutants import examine
trial = examine("code", [sys.argv[1]], Path(sys.argv[2]))
print(trial.row, *trial.survivors, sep="\\n")
"""


def held_by(row: list[str]) -> set[str]:
    """Return the tests and gates that hold a promise, as a break has them."""
    tests = re.findall(r"`([\w/]+\.py::\w+)`", row[1])
    return {*tests, *(f"gate {number}" for number in gates_in(row[1]))}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda row: row[0])
def test_each_test_that_holds_a_promise_has_a_break_to_notice(promise: list[str]) -> None:
    """None is named that would stay green; none is expected to be red that is not named."""
    breaks = [one for one in load() if promise[0].startswith(one.promise)]
    assert {name for one in breaks for name in one.red} == held_by(promise)


def test_each_break_has_its_row_and_its_place() -> None:
    """When the code or a promise changes, ``tools/broken_promises.toml`` does, too."""
    for one in load():
        assert sum(promise[0].startswith(one.promise) for promise in PROMISES) == 1, one.promise
        assert all(path.read_text(encoding="utf-8") != text for path, text in broken(one).items())


def test_a_test_is_known_by_its_cases() -> None:
    """And not by another one whose name begins like it."""
    assert names("a.py::test_b", "a.py::test_b[1]")
    assert not names("a.py::test_b", "a.py::test_b_and_c")


def test_each_thing_is_broken_once() -> None:
    """Constants, operators, returned values and statements; no docstring."""
    found = sorted((one.line, one.before, one.after) for one in mutants(SOURCE))
    assert found == [
        (2, "10", "11"),
        (2, "LIMIT = 10", "pass"),
        (6, "'x'", "''"),
        (6, "unused = 'x'", "pass"),
        (7, "not number > LIMIT", "number > LIMIT"),
        (7, "number > LIMIT", "number >= LIMIT"),
        (7, "return not number > LIMIT", "return None"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="mutants are tried in forks")
def test_what_no_test_notices(tmp_path: Path) -> None:
    """The limit itself, and what is of no use: in a function, and outside of any."""
    package = tmp_path / "small_package"
    package.mkdir()
    (package / "code.py").write_text(SOURCE)
    tests = tmp_path / "test_code.py"
    tests.write_text(TESTS.format(name=package.name))
    done = subprocess.run(  # a process without threads, which can fork
        [sys.executable, "-X", "utf8", "-c", EXAMINE, str(tests), str(package)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=10 * TIMEOUT_SECONDS,
        check=True,
    )
    assert sorted(done.stdout.splitlines()) == [
        "line 2: 10  →  11",
        "line 6: 'x'  →  ''",
        "line 6: unused = 'x'  →  pass",
        "line 7: number > LIMIT  →  number >= LIMIT",
        "| `code` | 7 | 3 | 0 | 42.9% |",
    ]


def test_an_unknown_module_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """It has no tests that belong to it."""
    with pytest.raises(SystemExit):
        main(["nonsense"])
    assert "there are no tests for nonsense" in capsys.readouterr().err


def test_a_mutant_runs() -> None:
    """It is the module with the change, and no other."""
    [mutant] = [one for one in mutants(SOURCE) if one.after == "number >= LIMIT"]
    module: dict[str, object] = {}
    exec(mutant.code, module)
    assert module["LIMIT"] == 10
    assert mutant.function == "is_small"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no proc(5)")
def test_nothing_of_a_broken_copy_goes_on_running(tmp_path: Path) -> None:
    """Neither a server nor a worker in a session of its own; what is not of the copy does."""
    wait = [sys.executable, "-c", "input()"]
    copies = [os.environ | {"PYTHONPATH": str(tmp_path / name / "src")} for name in ("a", "ab")]
    with (
        subprocess.Popen(wait, env=copies[0], stdin=subprocess.PIPE, start_new_session=True) as one,
        subprocess.Popen(wait, env=copies[1], stdin=subprocess.PIPE) as other,
    ):
        end_left_behind(tmp_path / "a")
        assert one.wait(TIMEOUT_SECONDS) == -signal.SIGKILL
        assert other.poll() is None
        other.communicate(b"\n", timeout=TIMEOUT_SECONDS)
    assert other.returncode == 0
