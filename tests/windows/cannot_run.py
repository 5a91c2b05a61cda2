"""Which tests cannot run on Windows, and why: `tests.conftest` marks them there."""

TERMINALS = "needs a pseudo-terminal; consoles are tested from Linux"
PROCESSES = "processes do not share a port there"
UNIX = "is about what only Unix systems have"
FILES = "is about the project's files, not the program"
DESCRIPTORS = "waits for descriptors that are not sockets"
WINE = "Wine has no such option, resets no connection, or names interfaces in its own way"
CLOGGED = "the system takes all that is sent, whether it is read or not"
SIGNALS = "needs signals that Windows has not"

# Files that are not imported there.
MODULES = {
    "e2e": "run from Linux, as tests/windows/end_to_end.py",
    "acceptance": "measures a Linux machine",
    "cli/test_bench.py": TERMINALS,
    "cli/test_client.py": SIGNALS,
    "cli/test_dialogue.py": SIGNALS,
    "cli/test_early.py": SIGNALS,
    "cli/test_output.py": TERMINALS,
    "cli/test_progress.py": TERMINALS,
    "cli/test_serve.py": SIGNALS,
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
    "terminal/test_fuzz.py": TERMINALS,
    "terminal/test_keyboard.py": TERMINALS,
    "terminal/test_lease.py": TERMINALS,
    "terminal/test_plain.py": TERMINALS,
    "terminal/test_screen.py": TERMINALS,
    "test_docs.py": FILES,
    "test_proof.py": FILES,
    "test_readme.py": FILES,
    "test_architecture.py": FILES,
}

# Parts of the names of tests.
TESTS = {
    "test_announcement.py::test_words_that_a_shell": "words are quoted for another shell there",
    "test_check.py::test_a_terminal_has_colours": TERMINALS,
    "test_log.py::": DESCRIPTORS,
    "test_main.py::test_ctrl_c_outside": SIGNALS,
    "told_so[serve --workers 3": PROCESSES,
    "told_so[serve --max-clients 2": PROCESSES,
    "test_main.py::test_what_is_said_is_said_at_once": TERMINALS,
    "test_main.py::test_a_reader_of_standard_error": DESCRIPTORS,
    "test_main.py::test_a_person_is_asked_only": TERMINALS,
    "test_ping.py::test_when_the_terminal_goes": SIGNALS,
    "test_run.py::test_a_signal_ends_the_process": SIGNALS,
    "test_run.py::test_a_closed_output_ends_by_sigpipe": SIGNALS,
    "test_settings.py::test_the_defaults_load_nothing": "reads an end of line of Unix",
    "test_portable.py::test_keep_alive_sets_what": WINE,
    "test_listeners.py::test_a_name_stands_for_each": WINE,
    "test_listeners.py::test_an_accepted_connection_is_kept_alive": WINE,
    "test_listeners.py::test_a_peer_is_named_as_people_write_it[address3": WINE,
    "test_server.py::test_a_server_that_crashes": WINE,
    "test_server.py::test_nothing_after_the_accept": "is about epoll",
    "test_streams.py::test_it_obeys_the_rules": CLOGGED,
    "test_streams.py::test_a_reset_breaks": WINE,
    "test_streams.py::test_delivered_grows": CLOGGED,
    "test_history.py::test_the_history_is_in_the_state_folder": UNIX,
    "test_history.py::test_a_history_that_others": UNIX,
    "test_history.py::test_a_history_that_cannot_be": UNIX,
    "test_history.py::test_a_history_linked_to_null": UNIX,
    "test_prompt.py::test_the_room_is_light": "Trio itself imports asyncio there",
    "test_library.py::test_the_readme": FILES,
    "test_tls.py::TestFiles::test_directory": "the system has another word for it",
    "test_main.py::test_a_ca_that": "the system has another word for it",
}
