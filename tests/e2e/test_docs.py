"""The documentation's examples and its picture show what the program prints."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import trio
from tests.helpers.program import LOCALHOST, Ended, run, serving
from tools import ROOT
from tools.__main__ import main
from tools.examples import EXAMPLE, PAGES
from tools.meanings import FIELDS, ROUND_TRIP

if sys.platform != "linux":
    pytest.skip("two hosts need network namespaces", allow_module_level=True)

PICTURES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.svg"))

# Options that make a run with --json short.
BRIEFLY = {
    "ping": ("--count", "1"),
    "bench": ("--seconds", "0.1"),
    "check": ("--seconds", "0.1"),
}

# What differs between two runs: a unit with its number, a row of the histogram, a number.
TIME = re.compile(r"\d[\d,.]* m?s\b")
ROW = re.compile(r" *[\d.]+ to +[\d.]+ ms \|[# ]*\| +[\d,]+")
NUMBER = re.compile(r"\d[\d,]*(\.\d+)?")


def form(text: str) -> list[str]:
    """Return the lines of `text` without what differs between two runs."""
    told_apart = NUMBER.sub("N", TIME.sub("TIME", ROW.sub("ROW", text)))
    return [line for line, _ in groupby(told_apart.splitlines())]


def lines(picture: str) -> str:
    """Return the text in an SVG, each line of a terminal on one of its own."""
    texts = ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    rows = groupby(texts, lambda text: text.get("y"))
    shown = ("".join("".join(text.itertext()) for text in row) for _, row in rows)
    return "\n".join(filter(str.strip, shown)).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.slow
def test_running_it_again_changes_nothing_but_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ``python -m tools`` writes is what is there: ``nox -s docs`` helps if it is not."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "RESULTS.md", tmp_path / "benchmarks")
    if main(tmp_path):
        pytest.skip(capsys.readouterr().err)
    for file in (*PAGES, *PICTURES):
        shown = lines if file in PICTURES else str
        then, now = ((root / file).read_text(encoding="utf-8") for root in (ROOT, tmp_path))
        assert form(shown(now)) == form(shown(then))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_example_is_run(page: Path) -> None:
    """All blocks of a terminal, by `tools.examples`; each has what it prints."""
    assert_examples_are_run(page.read_text(encoding="utf-8"))


def test_every_example_of_the_readme_is_run() -> None:
    """But those that install something."""
    assert_examples_are_run((ROOT / "README.md").read_text(encoding="utf-8"))


def assert_examples_are_run(text: str) -> None:
    """Compare the blocks of a terminal in `text` with those that are run."""
    blocks = re.findall(r"^```console\n\$ (.+)\n(.*)", text, flags=re.MULTILINE)
    run_again = {f"python -m trio_upper {found[2]}" for found in EXAMPLE.finditer(text)}
    assert run_again == {one for one, _ in blocks if not one.startswith("pip install ")}
    assert all(output != "```" for one, output in blocks if one in run_again)


def test_pages_with_examples_are_known() -> None:
    """No page is left out of `PAGES`."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = {page for page in pages if EXAMPLE.search(page.read_text(encoding="utf-8"))}
    assert found == {ROOT / page for page in PAGES}


@pytest.mark.parametrize("command", FIELDS)
async def test_json_has_the_documented_fields(command: str) -> None:
    """In their order; ``tools/meanings.py`` says what they mean."""
    async with serving() as server:
        ended = await run(command, f"127.0.0.1:{server.port}", "--json", *BRIEFLY[command])
    assert list(json.loads(ended.stdout)) == list(FIELDS[command])


async def test_json_lines_have_the_documented_fields() -> None:
    """One for each round trip, and the summary."""
    async with serving() as server:
        ended = await run("ping", f"127.0.0.1:{server.port}", "--jsonl", "--count", "1")
    round_trip, summary = map(json.loads, ended.stdout.splitlines())
    assert list(round_trip) == list(ROUND_TRIP)
    assert list(summary) == ["type", *FIELDS["ping"]]
    assert (round_trip["type"], summary["type"]) == ("round_trip", "summary")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_the_guides_certificates_are_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the strict rules of Python 3.13; server and client accept each other's."""
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    make, use = re.findall("```sh\n(.+?)```", guide.partition("## TLS")[2], re.DOTALL)[:2]
    monkeypatch.chdir(tmp_path)
    script = make.replace("192.0.2.1", LOCALHOST)
    strict = "openssl verify -x509_strict -CAfile ca.pem alpha.pem alice.pem"
    await trio.run_process(["sh", "-ec", script + strict], capture_stderr=True)
    serve, client = (shlex.split(line)[3:] for line in use.splitlines())
    async with serving(*serve[1:]) as server:
        _, _, *options = client
        ended = await run("client", LOCALHOST, str(server.port), *options, "-m", "hello")
    assert ended == Ended(0, b"HELLO\n", b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_what_the_guide_says(shell: str) -> None:
    """Its line makes the shell ask the program, which has the names."""
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    script = str(Path(sys.executable).with_name("trio-upper"))
    assert f"_TRIO_UPPER_COMPLETE={shell}_source trio-upper" in guide
    words = {"COMP_WORDS": "trio-upper ser", "COMP_CWORD": "ser" if shell == "fish" else "1"}
    source, names = (
        subprocess.run(
            [script],
            env=os.environ | words | {"_TRIO_UPPER_COMPLETE": f"{shell}_{what}"},
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
        ).stdout
        for what in ("source", "complete")
    )
    assert f"_TRIO_UPPER_COMPLETE={shell}_complete" in source
    assert "serve" in names
    assert "bench" not in names


def test_other_words_are_seen() -> None:
    """Numbers and the rows of a histogram do not count, all else does."""
    histogram = "0.1 to 0.15 ms |##  |   6\n  1 to  1.5 ms |    | 1,106\n"
    assert form("2026-11-22 15:18:36 HELLO   0.41 ms\n" + histogram) == [
        "N-N-N N:N:N HELLO   TIME",
        "ROW",
    ]
    assert form("HELLO 1.20 s, 1 of 7 bytes") == form("HELLO 0.33 ms, 22 of 7,000 bytes")
    assert form("connected to 192.0.2.1") != form("connects to 192.0.2.1")


@pytest.mark.parametrize("path", PICTURES)
def test_a_picture_loads_nothing(path: str) -> None:
    """No font, no style sheet: it looks the same in every page, and calls nothing."""
    picture = (ROOT / path).read_text(encoding="utf-8")
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert re.findall(r"[a-z]+://[^\"' ]+", picture) == ["http://www.w3.org/2000/svg"]
    assert "@import" not in picture
    assert set(re.findall(r"url\((.)", picture)) == {"#"}
