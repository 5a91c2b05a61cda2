"""What the figures were taken on: the machine and the versions, no names of hosts or people."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("trio-upper", "trio", "uvloop")

# How each tells its version.
TOOLS = {"cc": ["cc", "--version"], "go": ["go", "version"], "socat": ["socat", "-V"]}

# For a tool to tell its version.
VERSION = re.compile(r"\d+(\.\d+)+")

TELL_SECONDS = 10.0


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def tool_version(name: str) -> str:
    """The first version number that the tool says; empty when it is not there."""
    if shutil.which(name) is None:
        return ""
    said = subprocess.run(
        TOOLS[name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TELL_SECONDS,
        check=False,
    )
    found = VERSION.search(said.stdout)
    return found[0] if found else ""


def describe() -> str:
    """One sentence for the page."""
    versions = {name: package_version(name) for name in PACKAGES}
    versions |= {name: tool_version(name) for name in TOOLS}
    release = VERSION.search(platform.release())
    system = f"{platform.system()} {release[0]}" if release else platform.system()
    known = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"{processor()}, {os.cpu_count()} cores, {system}, "
        f"{platform.python_implementation()} {platform.python_version()}, {known}."
    )
