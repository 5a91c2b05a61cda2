"""Every way of not connecting has its sentence, and the one that tells most is said."""

import errno
import socket
import ssl

import pytest
import trio

from trio_upper.client.failures import (
    Attempt,
    BindFailed,
    CannotConnect,
    Cause,
    NoSuchVersion,
    broken,
    looks_like_tls,
    was_reset,
)

SYSTEM_ERRORS = [
    (errno.ECONNREFUSED, Cause.REFUSED),
    (errno.ECONNRESET, Cause.RESET),
    (errno.ECONNABORTED, Cause.RESET),
    (errno.EPIPE, Cause.RESET),
    (errno.ETIMEDOUT, Cause.TIMED_OUT),
    (errno.EACCES, Cause.FORBIDDEN),
    (errno.EPERM, Cause.FORBIDDEN),
    (errno.ENETUNREACH, Cause.NO_ROUTE),
    (errno.EHOSTUNREACH, Cause.NO_NEIGHBOUR),
    (errno.ENETDOWN, Cause.NO_ROUTE),
    (errno.EHOSTDOWN, Cause.NO_NEIGHBOUR),
    (errno.EAFNOSUPPORT, Cause.NO_LOCAL_ADDRESS),
    (errno.EADDRNOTAVAIL, Cause.NO_LOCAL_ADDRESS),
    (errno.ENODEV, Cause.SCOPE_UNKNOWN),
    (errno.EMFILE, Cause.TOO_MANY_FILES),
    (errno.ENFILE, Cause.TOO_MANY_FILES),
    (errno.EIO, Cause.OTHER),
    (None, Cause.OTHER),
    (10013, Cause.FORBIDDEN),
    (10024, Cause.TOO_MANY_FILES),
    (10047, Cause.NO_LOCAL_ADDRESS),
    (10049, Cause.NO_LOCAL_ADDRESS),
    (10050, Cause.NO_ROUTE),
    (10051, Cause.NO_ROUTE),
    (10053, Cause.RESET),
    (10054, Cause.RESET),
    (10060, Cause.TIMED_OUT),
    (10061, Cause.REFUSED),
    (10064, Cause.NO_NEIGHBOUR),
    (10065, Cause.NO_NEIGHBOUR),
]

LOOKUP_ERRORS = [
    (socket.gaierror(socket.EAI_NONAME, "?"), Cause.NAME_NOT_FOUND),
    (socket.gaierror(getattr(socket, "EAI_NODATA", 11004), "?"), Cause.NAME_NOT_FOUND),
    (socket.gaierror(getattr(socket, "EAI_ADDRFAMILY", 11004), "?"), Cause.NAME_NOT_FOUND),
    (socket.gaierror(socket.EAI_AGAIN, "?"), Cause.NAME_SERVER),
    (socket.gaierror(socket.EAI_FAIL, "?"), Cause.NAME_SERVER),
    (None, Cause.NAME_SERVER),
    (UnicodeError("label too long"), Cause.NAME_MALFORMED),
    (socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"), Cause.OTHER),
    (OSError(errno.EMFILE, "?"), Cause.TOO_MANY_FILES),
    (NoSuchVersion("no IPv6 address"), Cause.NO_SUCH_VERSION),
    (socket.gaierror(11001, "?"), Cause.NAME_NOT_FOUND),
    (socket.gaierror(11002, "?"), Cause.NAME_SERVER),
    (socket.gaierror(11003, "?"), Cause.NAME_SERVER),
    (socket.gaierror(11004, "?"), Cause.NAME_NOT_FOUND),
]

TLS_REASONS = [
    ("NO_TLS", Cause.TLS_NOT_SPOKEN),
    ("UNEXPECTED_EOF_WHILE_READING", Cause.TLS_CLOSED),
    ("UNSUPPORTED_PROTOCOL", Cause.TLS_VERSION),
    ("TLSV1_ALERT_PROTOCOL_VERSION", Cause.TLS_VERSION),
    ("SSLV3_ALERT_HANDSHAKE_FAILURE", Cause.TLS_REFUSED),
    ("TLSV13_ALERT_CERTIFICATE_REQUIRED", Cause.TLS_CERTIFICATE_WANTED),
    ("TLSV1_ALERT_UNKNOWN_CA", Cause.TLS_CERTIFICATE_REJECTED),
    ("SSLV3_ALERT_BAD_CERTIFICATE", Cause.TLS_CERTIFICATE_REJECTED),
    ("SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", Cause.TLS_CERTIFICATE_REJECTED),
    ("SSLV3_ALERT_CERTIFICATE_REVOKED", Cause.TLS_CERTIFICATE_REJECTED),
    ("SSLV3_ALERT_CERTIFICATE_EXPIRED", Cause.TLS_CERTIFICATE_REJECTED),
    ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", Cause.TLS_CERTIFICATE_REJECTED),
    ("TLSV1_ALERT_ACCESS_DENIED", Cause.TLS_CERTIFICATE_REJECTED),
    ("TLSV1_ALERT_INTERNAL_ERROR", Cause.TLS_FAILED),
    (None, Cause.TLS_FAILED),
]

VERIFY_CODES = [
    (2, Cause.TLS_UNTRUSTED),
    (18, Cause.TLS_UNTRUSTED),
    (19, Cause.TLS_UNTRUSTED),
    (20, Cause.TLS_UNTRUSTED),
    (21, Cause.TLS_UNTRUSTED),
    (9, Cause.TLS_EXPIRED),
    (10, Cause.TLS_EXPIRED),
    (62, Cause.TLS_WRONG_NAME),
    (64, Cause.TLS_WRONG_NAME),
    (26, Cause.TLS_UNVERIFIED),
]


def tls_error(reason: str | None) -> ssl.SSLError:
    """Return an error as the ssl module makes it."""
    error = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:1006)")
    if reason:
        error.reason = reason
    return error


def verify_error(code: int, message: str = "?") -> ssl.SSLCertVerificationError:
    """Return an error of certificate verification as the ssl module makes it."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    error.verify_code = code
    error.verify_message = message
    return error


def broken_by(error: Exception) -> trio.BrokenResourceError:
    """Return what a Trio stream raises for `error`."""
    result = trio.BrokenResourceError("socket connection broken")
    result.__cause__ = error
    return result


def failed(*errors: Exception, connected: bool = False, host: str = "box") -> CannotConnect:
    """Return the failure of one attempt for each of `errors`."""
    attempts = tuple(
        Attempt(address=f"192.0.2.{number}", error=error, connected=connected)
        for number, error in enumerate(errors, 1)
    )
    return CannotConnect(host, 8746, attempts=attempts, seconds=0.25)


def lookup_failed(error: Exception | None, host: str = "box") -> CannotConnect:
    """Return the failure of a look-up."""
    return CannotConnect(host, 8746, attempts=(), seconds=0.25, lookup_error=error)


def test_sentence() -> None:
    """The sentence has host, port, cause, every address, the time and the hint, in one line."""
    refused = OSError(errno.ECONNREFUSED, "Connection refused")
    failure = CannotConnect(
        "example.lan",
        8746,
        attempts=(
            Attempt(address="192.168.1.7", error=refused),
            Attempt(address="fe80::1%eth0", error=refused),
            Attempt(address="fd00::7", error=trio.TooSlowError()),
        ),
        seconds=0.0213,
    )
    assert str(failure) == (
        "cannot connect to example.lan port 8746: refused "
        "(tried 192.168.1.7, fe80::1%eth0 and fd00::7, 0.02 s): "
        "the machine answered, but nothing listens on that port: "
        "is the server running, and with --public?"
    )
    assert (failure.host, failure.port, failure.seconds) == ("example.lan", 8746, 0.0213)
    assert failure.cause is Cause.REFUSED
    assert len(failure.attempts) == 3


def test_sentence_without_an_address() -> None:
    """A name that leads to no address says so."""
    assert str(lookup_failed(socket.gaierror(socket.EAI_NONAME, "?"))) == (
        "cannot connect to box port 8746: name not found (no address tried, 0.25 s): "
        "is it spelled right?"
    )


@pytest.mark.parametrize(("number", "cause"), dict(SYSTEM_ERRORS).items())
def test_system_errors(number: int | None, cause: Cause) -> None:
    """What the kernel says about an attempt has its row."""
    assert failed(OSError(number, "?")).cause is cause


@pytest.mark.parametrize(("error", "cause"), LOOKUP_ERRORS)
def test_lookup_errors(error: Exception | None, cause: Cause) -> None:
    """What the resolver says, or that it says nothing in time, has its row."""
    assert lookup_failed(error).cause is cause


@pytest.mark.parametrize(("reason", "cause"), TLS_REASONS)
def test_tls_reasons(reason: str | None, cause: Cause) -> None:
    """What OpenSSL says about a handshake has its row."""
    assert failed(broken_by(tls_error(reason)), connected=True).cause is cause


@pytest.mark.parametrize(("code", "cause"), VERIFY_CODES)
def test_verify_codes(code: int, cause: Cause) -> None:
    """What is wrong with a certificate has its row."""
    assert failed(broken_by(verify_error(code)), connected=True).cause is cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (trio.TooSlowError(), Cause.TLS_SILENT),
        (broken_by(OSError(errno.ECONNRESET, "?")), Cause.TLS_CLOSED),
        (broken_by(OSError(errno.EHOSTUNREACH, "?")), Cause.NO_NEIGHBOUR),
        (broken_by(RuntimeError("a bug")), Cause.OTHER),
    ],
)
def test_handshakes(error: Exception, cause: Cause) -> None:
    """What goes wrong once TCP is there is told apart from what goes wrong before."""
    assert failed(error, connected=True).cause is cause


def test_time_out_before_the_handshake() -> None:
    """An attempt still in progress at the deadline has timed out."""
    assert failed(trio.TooSlowError()).cause is Cause.TIMED_OUT


@pytest.mark.parametrize(
    ("address", "number", "cause"),
    [
        ("fe80::1", errno.EINVAL, Cause.SCOPE_MISSING),
        ("fe80::1", errno.ENETUNREACH, Cause.SCOPE_MISSING),
        ("fe80::1%eth0", errno.EINVAL, Cause.OTHER),
        ("192.0.2.1", errno.EINVAL, Cause.OTHER),
        ("255.255.255.255", errno.ENETUNREACH, Cause.NOT_ONE_MACHINE),
        ("192.0.2.255", errno.EACCES, Cause.NOT_ONE_MACHINE),
        ("224.0.0.1", errno.ENETUNREACH, Cause.NOT_ONE_MACHINE),
        ("ff02::1", errno.ENETUNREACH, Cause.NOT_ONE_MACHINE),
        ("192.0.2.255", errno.ECONNREFUSED, Cause.REFUSED),
        ("192.0.2.1", errno.ENETUNREACH, Cause.NO_ROUTE),
    ],
)
def test_what_is_wrong_with_the_address_itself(address: str, number: int, cause: Cause) -> None:
    """A missing scope and the address of a group explain what the kernel says of them."""
    attempt = Attempt(address=address, error=OSError(number, "?"))
    assert CannotConnect("box", 1, attempts=(attempt,), seconds=0).cause is cause


def test_refused_by_this_machine() -> None:
    """An address of this machine needs no hint at what other machines can reach."""
    refused = OSError(errno.ECONNREFUSED, "?")
    attempt = Attempt(address="127.0.0.1", error=refused, own=True)
    failure = CannotConnect("localhost", 1, attempts=(attempt,), seconds=0)
    assert failure.cause is Cause.REFUSED_HERE
    assert "(tried 127.0.0.1, 0.00 s)" in str(failure)
    assert str(failure).endswith("is the server running?")


def test_a_bind_that_fails() -> None:
    """The address to connect from is at fault, not the one to connect to."""
    assert failed(BindFailed(errno.EADDRNOTAVAIL, "?")).cause is Cause.BIND


def test_the_hint_has_the_port() -> None:
    """The command that opens a firewall can be copied."""
    assert "sudo ufw allow 8746/tcp" in str(failed(trio.TooSlowError()))


def test_an_address_that_may_be_meant_with_a_port() -> None:
    """``::1:8746`` is an address; when it fails the brackets that may be missing are shown."""
    attempt = Attempt(address="::1:8746", error=OSError(errno.ENETUNREACH, "?"))
    failure = CannotConnect("::1:8746", 8746, attempts=(attempt,), seconds=0)
    assert str(failure).endswith("; for that address with a port, write [::1]:8746")


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("i❤.example", "write its ASCII form, xn--i-7iq.example"),
        ("ä" * 80, Cause.NAME_NOT_IDNA.hint),
    ],
)
def test_a_name_that_idna_refuses(host: str, hint: str) -> None:
    """The rule that it breaks, and the ASCII form if there is one."""
    failure = lookup_failed(UnicodeError("Codepoint U+2764 not allowed"), host)
    assert failure.cause is Cause.NAME_NOT_IDNA
    assert "Codepoint U+2764 not allowed" in str(failure)
    assert failure.hint == hint


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            UnicodeError("encoding with 'idna' codec failed (UnicodeError: label too long)"),
            "label too long",
        ),
        (UnicodeEncodeError("idna", "ä" * 80, 0, 80, "label is too long"), "label is too long"),
    ],
)
def test_a_name_with_a_part_that_is_too_long(error: UnicodeError, words: str) -> None:
    """What the codec says is wrong, without its own name; before Python 3.13, and from then on."""
    assert f"domain name, {words} (" in str(lookup_failed(error, "ä" * 80))


@pytest.mark.parametrize(
    ("error", "connected", "words"),
    [
        (trio.TooSlowError(), False, "192.0.2.1 did not answer"),
        (OSError(errno.ECONNREFUSED, "?"), False, "192.0.2.1: refused"),
        (OSError(errno.EIO, "disk error"), False, "192.0.2.1: disk error"),
        (trio.TooSlowError(), True, f"192.0.2.1: {Cause.TLS_SILENT.words}"),
    ],
)
def test_an_attempt_in_a_few_words(error: Exception, connected: bool, words: str) -> None:
    """For a line about another address that was better."""
    assert str(Attempt(address="192.0.2.1", error=error, connected=connected)) == words


@pytest.mark.parametrize(
    ("host", "cause"),
    [
        ("fe80::1%nosuch", Cause.SCOPE_UNKNOWN),
        ("::1%lo", Cause.SCOPE_NEEDLESS),
        ("2001:db8::1%nosuch", Cause.SCOPE_NEEDLESS),
    ],
)
def test_scopes_that_are_not_found(host: str, cause: Cause) -> None:
    """The interface of a link-local address is not there; no other address takes one."""
    assert lookup_failed(socket.gaierror(socket.EAI_NONAME, "?"), host=host).cause is cause


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (failed(OSError(errno.EIO, "Error connecting to ('::1', 1): Input error")), "Input error"),
        (failed(OSError(errno.EIO, "Disk error: full")), "Disk error: full"),
        (failed(RuntimeError("two\nlines")), "two lines"),
        (failed(RuntimeError()), "RuntimeError"),
        (failed(ssl.SSLError(1, "two\nlines"), connected=True), "two lines"),
        (failed(verify_error(26, "unsuitable purpose"), connected=True), "unsuitable purpose"),
        (failed(verify_error(62, "name mismatch"), connected=True), "name mismatch"),
        (
            failed(tls_error("TLSV1_ALERT_INTERNAL_ERROR"), connected=True),
            "tlsv1 alert internal error",
        ),
        (lookup_failed(socket.gaierror(socket.EAI_MEMORY, "no memory")), "no memory"),
    ],
)
def test_own_words(failure: CannotConnect, words: str) -> None:
    """An unforeseen failure is reported in the system's own words, still in one line."""
    assert str(failure).partition(" (")[0].endswith(f" {words}")
    assert "\n" not in str(failure)


def test_the_most_telling_cause() -> None:
    """When addresses fail in different ways, the way that tells most is said, wherever it is."""
    silent, nowhere = trio.TooSlowError(), OSError(errno.ENETUNREACH, "?")
    refused = OSError(errno.ECONNREFUSED, "?")
    assert failed(nowhere, silent, refused).cause is Cause.REFUSED
    assert failed(refused, silent, nowhere).cause is Cause.REFUSED
    assert failed(nowhere, silent).cause is Cause.TIMED_OUT
    assert failed(OSError(errno.EIO, "?"), silent).cause is Cause.TIMED_OUT


def test_a_handshake_tells_more_than_other_addresses() -> None:
    """A failed TLS handshake is what counts: that address was connected."""
    attempts = (
        Attempt(address="::1", error=OSError(errno.ECONNREFUSED, "?")),
        Attempt(address="127.0.0.1", error=broken_by(verify_error(20)), connected=True),
    )
    failure = CannotConnect("localhost", 1, attempts=attempts, seconds=0)
    assert failure.cause is Cause.TLS_UNTRUSTED
    assert "::1 and 127.0.0.1" in str(failure)


def test_every_cause_has_its_own_words_and_hint() -> None:
    """No two rows share their words, and none is without words or a hint."""
    assert len({cause.words for cause in Cause}) == len(Cause)
    for cause in Cause:
        assert cause.words
        assert cause.hint
        assert cause.sentence == f"{cause.words}: {cause.hint}"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (broken_by(OSError(errno.ECONNRESET, "?")), "the server reset the connection"),
        (broken_by(broken_by(OSError(errno.EPIPE, "?"))), "the server reset the connection"),
        (
            broken_by(OSError(errno.ETIMEDOUT, "?")),
            "the server's machine no longer answers",
        ),
        (broken_by(OSError(errno.ENETUNREACH, "?")), "the network to the server is gone"),
        (
            broken_by(OSError(errno.EHOSTUNREACH, "?")),
            "the server's machine is no longer on the network",
        ),
        (
            broken_by(tls_error("UNEXPECTED_EOF_WHILE_READING")),
            "the server cut the connection without ending TLS",
        ),
        (
            broken_by(tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED")),
            Cause.TLS_CERTIFICATE_WANTED.sentence,
        ),
        (broken_by(tls_error("BAD_RECORD_MAC")), "TLS failed, bad record mac"),
        (broken_by(OSError(errno.EIO, "disk error")), "the connection broke, disk error"),
        (RuntimeError("why {not}"), "the connection broke, why {not}"),
        (trio.BrokenResourceError(), "the connection broke"),
    ],
)
def test_broken(error: Exception, words: str) -> None:
    """A connection that breaks says why, from what its stream's error was raised from."""
    assert broken(error) == words


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (broken_by(OSError(errno.ECONNRESET, "?")), True),
        (broken_by(tls_error("UNEXPECTED_EOF_WHILE_READING")), True),
        (broken_by(OSError(errno.ETIMEDOUT, "?")), False),
        (broken_by(tls_error("BAD_RECORD_MAC")), False),
    ],
)
def test_was_reset(error: Exception, expected: bool) -> None:
    """Without a reason: the time that ran out, or what TLS found wrong, is one."""
    assert was_reset(error) is expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.example", "b.example"], "it lists a.example, b.example"),
        (["a", "b", "c", "d", "e"], "it lists a, b, c, d, e"),
        (["a", "b", "c", "d", "e", "f", "g"], "it lists a, b, c, d, e and 2 more"),
        (["a\x1b[2J"], "it lists 'a\\x1b[2J'"),
    ],
)
def test_the_names_of_a_certificate(names: list[str], words: str) -> None:
    """The first few, and nothing in them drives a terminal."""
    error = broken_by(verify_error(62))
    attempt = Attempt(address="192.0.2.1", error=error, connected=True, names=tuple(names))
    assert attempt.words == Cause.TLS_WRONG_NAME.words.format(detail=words)


@pytest.mark.parametrize(
    ("first_bytes", "expected"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x0a", True),
        (b"\x16\x03\x01\x02\x00", True),
        (b"\x15\x03", True),
        (b"\x15", False),
        (b"", False),
        (b"HELLO\n", False),
        (b"\x17\x03\x03", False),
        (b"\x15\x02", False),
    ],
)
def test_looks_like_tls(first_bytes: bytes, expected: bool) -> None:
    """Alerts and handshake messages are known for TLS, and nothing else is; the hint is short."""
    assert looks_like_tls(first_bytes) is expected
    assert Cause.TLS_WANTED.sentence == "the server wants TLS: add --tls"
