"""Which tests cannot run on Windows, and why: `tests.conftest` marks them there."""

TERMINALS = "needs a pseudo-terminal; consoles are tested from Linux"
PROCESSES = "processes do not share a port there"
UNIX = "is about what only Unix systems have"
FILES = "is about the project's files, not the program"
DESCRIPTORS = "waits for descriptors that are not sockets"
SIGNALS = "needs signals that Windows has not"

# Files that are not imported there.
MODULES = {
    "e2e": "run from Linux, as tests/windows/end_to_end.py",
    "acceptance": "measures a Linux machine",
    "cli/test_early.py": SIGNALS,
    "cli/test_progress.py": TERMINALS,
    "cli/test_signals.py": SIGNALS,
    "cli/test_supervise.py": PROCESSES,
    "platform/test_bsd.py": UNIX,
    "platform/test_choice.py": UNIX,
    "platform/test_linux.py": UNIX,
    "platform/test_memory.py": UNIX,
    "platform/test_posix.py": UNIX,
    "platform/test_unix_terminal.py": UNIX,
    "platform/test_windows.py": "simulates on other systems what is real there",
    "server/test_inherited.py": PROCESSES,
    "server/test_poller.py": "is about epoll",
    "server/test_supervisor.py": PROCESSES,
    "server/test_workers.py": PROCESSES,
    "stdio/test_descriptors.py": DESCRIPTORS,
    "stdio/test_streams.py": DESCRIPTORS,
    "terminal/test_devices.py": TERMINALS,
    "terminal/test_editor.py": TERMINALS,
    "terminal/test_keyboard.py": TERMINALS,
    "terminal/test_lease.py": TERMINALS,
    "terminal/test_plain.py": TERMINALS,
    "terminal/test_screen.py": TERMINALS,
    "test_docs.py": FILES,
    "test_readme.py": FILES,
    "test_architecture.py": FILES,
}

# Parts of the names of tests.
TESTS: dict[str, str] = {}
