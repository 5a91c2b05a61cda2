"""What the C library does with large blocks, seen by the page faults of a fresh process."""

import platform
import subprocess
import sys

import pytest
from tests.helpers.waiting import TIMEOUT_SECONDS

ASKED, GOT = 512 * 1024, 256 * 1024
READS = 100
PAGE = 4096

PROGRAM = f"""
import os, resource, sys, tempfile
from trio_upper.platform import reuse_large_blocks

if "reuse" in sys.argv:
    reuse_large_blocks({2 * ASKED})
with tempfile.TemporaryFile() as file:
    file.write(bytes({GOT}))
    file.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({READS}):
        os.pread(file.fileno(), {ASKED}, 0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str) -> int:
    """Return how many it took a process to read often, each time less than it asked for."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return int(
        subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_SECONDS).stdout
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library does as it likes")
def test_large_blocks_are_used_again() -> None:
    """The same pages serve all reads; otherwise each of them needs its own."""
    each = GOT // PAGE
    assert page_faults("reuse") < 10 * each
    assert page_faults() > READS * each // 2
