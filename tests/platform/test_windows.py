"""What Windows has in a way of its own, as far as another system can show it."""

import signal

import pytest

from trio_upper.platform import windows


def test_ctrl_c_has_an_exit_code_of_its_own() -> None:
    """No signal ends a process there."""
    with pytest.raises(SystemExit) as caught:
        windows.end_with(signal.SIGINT)
    assert caught.value.code == windows.STATUS_CONTROL_C_EXIT == -1073741510
    with pytest.raises(SystemExit) as caught:
        windows.end_with(3)
    assert caught.value.code == 3


def test_a_command_is_quoted_as_windows_reads_it() -> None:
    """Single quotes mean nothing to cmd.exe."""
    assert windows.quote_command(["serve", "--tls-cert", "my cert.pem"]) == (
        'serve --tls-cert "my cert.pem"'
    )
