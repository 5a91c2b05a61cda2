"""Breaks the code in one place at a time, and tells what no test notices.

``python -m tools.mutants protocol client/account`` prints a table, and a line for each mutant that
survived the tests that `TESTS` names: it changes nothing that can be seen, or a test is missing.
``protocol:25:39`` breaks these lines alone.

Nothing is written: a mutant lives in a forked process. Most are changes inside a function, and take
the place of its code after pytest has collected the tests once. A change of what stands outside
functions, and what has survived, needs a process of its own that imports the module as changed.
POSIX only.
"""

import argparse
import ast
import gc
import importlib.machinery
import importlib.util
import inspect
import math
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
import trio.testing  # noqa: F401 - once, instead of in each forked process
from hypothesis import Phase, settings

from tools import ROOT

SOURCES = ROOT / "src" / "trio_upper"

TESTS = {
    "protocol": ["test_protocol.py"],
    "server/conversation": ["server/test_conversation.py", "server/test_server.py"],
    "server/poller": ["server/test_poller.py"],
    "client/account": ["client/test_account.py"],
    "client/converse": ["client/test_converse.py"],
    "client/connect": ["client/test_connect.py"],
    "client/failures": ["client/test_failures.py"],
}
"""Which tests belong to a module; the quick and telling ones first."""

PROCESSES = 2

# Of each test with random ones.
EXAMPLES = 40

# A mutant that hangs is noticed, after this much more than the tests take without a change.
HANG_FACTOR, HANG_SECONDS = 4, 10.0

# For the tests without a change, in seconds.
MOST_SECONDS = 600.0

# What a forked process ends with, or has ended with.
SURVIVED, NOTICED, HUNG = 0, 1, 2

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
"""The operators, and what each becomes."""

DROPPED = (ast.Assign, ast.AugAssign, ast.Expr, ast.Raise, ast.Delete, ast.Break, ast.Continue)
"""The statements that are left out."""

TESTING = (ast.If, ast.While, ast.IfExp)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mutant:
    """A module with one change.

    `function` is the qualified name of the function whose code alone is different, or empty.
    """

    line: int
    before: str
    after: str
    code: CodeType = field(repr=False)
    function: str

    def __str__(self) -> str:
        """Return where it is, what stood there and what stands there now."""
        return f"line {self.line}: {self.before}  →  {self.after}"


def mutants(source: str) -> Iterator[Mutant]:
    """Yield `source` with one change after the other."""
    tree = ast.parse(source)
    original = functions(compiled(tree))
    for parent, siblings, key, function in places(tree):
        old = siblings[key]
        for new in changes(old, is_test=key == "test" and isinstance(parent, TESTING)):
            whole = old if isinstance(old, ast.stmt | ast.expr) else parent
            assert isinstance(whole, ast.stmt | ast.expr)
            before = shown(whole)
            siblings[key] = new
            after = shown(new if whole is old else whole)
            code = compiled(tree)
            siblings[key] = old
            there, here = original.get(function), functions(code).get(function)
            alone = function if there and here and there.co_freevars == here.co_freevars else ""
            yield Mutant(line=whole.lineno, before=before, after=after, code=code, function=alone)


def compiled(tree: ast.Module) -> CodeType:
    """Return the module's code."""
    return compile(ast.fix_missing_locations(tree), "<mutant>", "exec", dont_inherit=True)


def places(
    node: ast.AST, function: str = "", scope: str = ""
) -> Iterator[tuple[ast.AST, Any, str | int, str]]:
    """Yield all there is in a tree: its parent, what it is an item of, its key, its function.

    That is the outermost one.
    """
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "names", "targets", "type_params"}:
            continue  # for the type checker, or no place for another value
        in_list = isinstance(value, list)
        siblings = value if in_list else vars(node)
        for key, part in enumerate(value) if in_list else [(name, value)]:
            if not isinstance(part, ast.AST) or is_left_alone(part):
                continue
            inner, below = function, scope
            if not function and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = scope if name == "body" else ""
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                below = f"{scope}.{part.name}" if scope else part.name
            yield node, siblings, key, inner
            yield from places(part, inner, below)


def is_left_alone(node: ast.AST) -> bool:
    """Tell whether it is a docstring, or for the type checker, or names what a class has."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__")]):
            return True
        case ast.Call(func=ast.Name(id="dataclass")):
            return True
    return isinstance(node, ast.Import | ast.ImportFrom)


def changes(node: ast.AST, *, is_test: bool) -> Iterator[ast.AST]:
    """Yield what may stand in the place of `node`; `is_test`: it decides between two branches."""
    if type(node) in SWAPS:
        yield SWAPS[type(node)]()
    match node:
        case ast.Constant():
            yield from (ast.Constant(value) for value in other_values(node.value))
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.Return(value=None | ast.Constant(value=None)):
            pass
        case ast.Return():
            yield ast.Return(ast.Constant(None))
        case stmt if isinstance(stmt, DROPPED):
            yield ast.Pass()
    if is_test and isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.NamedExpr):
        yield ast.UnaryOp(ast.Not(), node)


def other_values(value: object) -> Iterator[bool | float | str | bytes]:
    """Yield what stands in the place of a constant."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
        case str():
            yield "" if value else "?"
        case bytes():
            yield b"" if value else b"?"


def shown(node: ast.AST) -> str:
    """Return the code in one line."""
    return " ".join(ast.unparse(node).split())


def functions(code: CodeType) -> dict[str, CodeType]:
    """Return the functions of a module's code, methods too, by their qualified names."""
    found: dict[str, CodeType] = {}
    for part in code.co_consts:
        if isinstance(part, CodeType):
            found[part.co_qualname] = part
            if not part.co_flags & inspect.CO_OPTIMIZED:  # a class: what is in it is found by name
                found |= functions(part)
    return found


# How a mutant is tried.


@dataclass(frozen=True)
class Trial:
    """What came of each mutant of a module."""

    module: str
    ends: dict[Mutant, int]

    @property
    def survivors(self) -> list[Mutant]:
        """Those that no test has noticed."""
        return [mutant for mutant, end in self.ends.items() if end == SURVIVED]

    @property
    def row(self) -> str:
        """A row of the table."""
        count, noticed = len(self.ends), len(self.ends) - len(self.survivors)
        hung = list(self.ends.values()).count(HUNG)
        return f"| `{self.module}` | {count} | {noticed} | {hung} | {noticed / count:.1%} |"


def in_forks(jobs: Sequence[Callable[[], int]], seconds: float) -> Iterator[tuple[int, int]]:
    """Run each job in a forked process, `PROCESSES` at once; yield its index and exit code.

    One that takes longer than `seconds` is killed with all that it has started.
    """
    waiting, running = list(enumerate(jobs)), dict[int, tuple[int, float]]()
    gc.freeze()
    while waiting or running:
        while waiting and len(running) < PROCESSES:
            index, job = waiting.pop(0)
            running[fork(job)] = index, time.monotonic() + seconds
        for pid, (index, end) in list(running.items()):
            is_late = time.monotonic() > end
            if is_late:
                os.killpg(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if is_late else os.WNOHANG)
            if ended:
                del running[pid]
                yield index, HUNG if is_late else os.waitstatus_to_exitcode(status)
        time.sleep(0.005)


def try_all(run: Callable[[Mutant | None], int], mutants: Sequence[Mutant], why: str) -> list[int]:
    """Run the tests without a change, which must not fail, then with each mutant."""
    began = time.monotonic()
    [(_, code)] = in_forks([partial(run, None)], MOST_SECONDS)
    if code != SURVIVED:
        raise SystemExit(f"{why}: the tests cannot be run, or fail without any change")
    seconds = HANG_FACTOR * (time.monotonic() - began) + HANG_SECONDS
    return [end for _, end in sorted(in_forks([partial(run, one) for one in mutants], seconds))]


def fork(job: Callable[[], int]) -> int:
    """Run `job` in a forked process, the first of a group, and silent; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = NOTICED
    try:
        os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nowhere, fd)
        code = job()
    finally:
        os._exit(code)


class InHaste:
    """A pytest plugin: what takes long comes last, and no failure is made smaller."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Have the tests with random examples run after the others."""
        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("haste", deadline=None, phases=phases, max_examples=EXAMPLES)
        settings.load_profile("haste")
        items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))


class Patching:
    """A pytest plugin: instead of running the tests, it runs them in forks, with mutants."""

    def __init__(self, name: str, mutants: list[Mutant]) -> None:
        self._name = name
        self._mutants = mutants
        self.ends: list[int] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests once as they are, then with each mutant."""
        self.ends = try_all(partial(self._run, session), self._mutants, self._name)
        return True

    def _run(self, session: pytest.Session, mutant: Mutant | None) -> int:
        if mutant:
            patch(self._name, mutant)
        for number, item in enumerate(session.items, start=1):
            following = session.items[number] if number < len(session.items) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return NOTICED
        return SURVIVED


def patch(name: str, mutant: Mutant) -> None:
    """Put the changed code of a function in the place of the present one."""
    found: object = sys.modules[name]
    for part in mutant.function.split("."):
        found = vars(found)[part]
        found = getattr(found, "fget", found)
        found = inspect.unwrap(getattr(found, "__func__", found))  # type: ignore[arg-type]
    assert isinstance(found, FunctionType)
    found.__code__ = functions(mutant.code)[mutant.function]


class Importing(importlib.machinery.SourceFileLoader):
    """Has one module imported as changed: a finder, for `sys.meta_path`, and a loader."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        super().__init__(name, str(path))
        self._code = code

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Return how to load the module, None for any other."""
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def get_code(self, _: str) -> CodeType:
        """Return the changed code."""
        return self._code


def run_pytest(arguments: list[str], *plugins: object) -> int:
    """Run pytest in this process; return its exit code."""
    quick = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:xdist"]
    quick += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return int(
        pytest.main([*quick, "--hypothesis-seed=0", *arguments], plugins=[InHaste(), *plugins])
    )


def try_imported(name: str, path: Path, tests: list[str], mutant: Mutant | None) -> int:
    """Run the tests with a module that is imported as changed."""
    if mutant:
        sys.meta_path.insert(0, Importing(name, path, mutant.code))
    return SURVIVED if run_pytest(tests) == 0 else NOTICED


def try_patched(name: str, tests: list[str], mutants: list[Mutant], file: Path) -> int:
    """Run the tests with functions that are exchanged; leave in `file` what came of it."""
    plugin = Patching(name, mutants)
    code = run_pytest(tests, plugin)
    file.write_bytes(pickle.dumps(plugin.ends))
    return code


def examine(
    module: str, tests: list[str], sources: Path = SOURCES, lines: Collection[int] = ()
) -> Trial:
    """Try all mutants of a module, or of some of its lines."""
    path = sources / f"{module}.py"
    found = sorted(mutants(path.read_text("utf-8")), key=lambda mutant: mutant.line)
    found = [one for one in found if not lines or one.line in lines]
    patched = [one for one in found if one.function]
    name = f"{sources.name}.{module.replace('/', '.')}"
    ends = dict.fromkeys(found, SURVIVED)
    with tempfile.NamedTemporaryFile() as file:
        result = Path(file.name)
        [(_, code)] = in_forks([partial(try_patched, name, tests, patched, result)], math.inf)
        if code:
            raise SystemExit(f"{name}: the tests cannot be run, or fail without any change")
        ends.update(zip(patched, pickle.loads(result.read_bytes()), strict=True))
    # What tests have made of the module before they run was made by the code as it is.
    again = [mutant for mutant in found if ends[mutant] == SURVIVED]
    run = partial(try_imported, name, path, tests)
    ends.update(zip(again, try_all(run, again, name), strict=True))
    return Trial(module, ends)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and below it the survivors; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE[:LINE…]", help=f"of {', '.join(TESTS)}"
    )
    chosen = parser.parse_args(arguments).modules or list(TESTS)
    if unknown := {module.partition(":")[0] for module in chosen} - set(TESTS):
        parser.error(f"there are no tests for {', '.join(sorted(unknown))}")
    trials = []
    for chosen_module in chosen:
        module, *lines = chosen_module.split(":")
        tests = [str(ROOT / "tests" / file) for file in TESTS[module]]
        trials.append(examine(module, tests, lines=[int(line) for line in lines]))
        print(trials[-1].row, *trials[-1].survivors, sep="\n", flush=True)
    print("\n| module | mutants | noticed | of these hung | share |\n|---|---|---|---|---|")
    print(*(trial.row for trial in trials), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
