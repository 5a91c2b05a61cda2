"""What is printed when a server has started: for each way of listening the commands to copy."""

import ipaddress
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import ifaddr
import pytest

from trio_upper.cli.announcement import Address, Announcement, own_addresses

PORT = 8746
ELSEWHERE = " " * 22
OWN: list[Address] = [
    IPv4Address("127.0.0.1"),
    IPv4Address("192.168.1.7"),
    IPv4Address("10.0.0.7"),
    IPv4Address("169.254.3.4"),
    IPv6Address("::1"),
    IPv6Address("2001:db8::7"),
    IPv6Address("fe80::7"),
]


@pytest.fixture(autouse=True)
def _started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server was started as the documentation says."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "trio_upper", "serve"])


def announced(*addresses: str, port: int = PORT, arguments: str = "", **facts: Any) -> list[str]:
    """Return what a server says that listens on `addresses`, on a machine that has `OWN`."""
    listening = [(address, port) for address in addresses]
    return Announcement(arguments=arguments.split(), **facts).lines(listening, OWN)


def test_a_server_for_this_machine_says_how_to_expose_it() -> None:
    """On the default address: the client that needs no argument, and the command that exposes."""
    assert announced("127.0.0.1") == [
        "listening on 127.0.0.1, port 8746; Ctrl-C stops",
        "from this machine:    python -m trio_upper client 127.0.0.1 8746",
        "from other machines:  not reachable; to allow it, stop this server and run",
        f"{ELSEWHERE}python -m trio_upper serve --public",
    ]


def test_both_wildcards_are_every_address_of_this_machine() -> None:
    """Each address of an interface that others can use has its command, but no link-local one."""
    assert announced("0.0.0.0", "::") == [
        "listening on 0.0.0.0 and ::, port 8746; Ctrl-C stops",
        "from this machine:    python -m trio_upper client 127.0.0.1 8746",
        "from other machines:  python -m trio_upper client 192.168.1.7 8746",
        f"{ELSEWHERE}python -m trio_upper client 10.0.0.7 8746",
        f"{ELSEWHERE}python -m trio_upper client 2001:db8::7 8746",
    ]


@pytest.mark.parametrize(
    ("wildcard", "here", "elsewhere"),
    [
        ("0.0.0.0", "127.0.0.1", ["192.168.1.7", "10.0.0.7"]),
        ("::", "::1", ["2001:db8::7"]),
    ],
)
def test_one_wildcard_is_the_addresses_of_its_family(
    wildcard: str, here: str, elsewhere: list[str]
) -> None:
    """The wildcard of one family names no address of the other, neither here nor elsewhere."""
    _, local, *remote = announced(wildcard)
    assert local == f"from this machine:    python -m trio_upper client {here} 8746"
    assert [line.split()[-2] for line in remote] == elsewhere


def test_a_specific_address_is_the_one_to_connect_to() -> None:
    """From here and from elsewhere: nothing else listens, not even the loopback."""
    assert announced("192.168.1.7") == [
        "listening on 192.168.1.7, port 8746; Ctrl-C stops",
        "from this machine:    python -m trio_upper client 192.168.1.7 8746",
        "from other machines:  python -m trio_upper client 192.168.1.7 8746",
    ]


def test_a_loopback_address_is_the_better_one_for_this_machine() -> None:
    """Beside a specific address, and wherever it stands, the loopback is for this machine only."""
    for addresses in (("192.168.1.7", "127.0.0.1"), ("127.0.0.1", "192.168.1.7")):
        assert announced(*addresses)[1:] == [
            "from this machine:    python -m trio_upper client 127.0.0.1 8746",
            "from other machines:  python -m trio_upper client 192.168.1.7 8746",
        ]


def test_a_link_local_address_needs_the_interface_of_the_other_machine() -> None:
    """It has the name of ours here; only where a wildcard stands for it is it left out."""
    assert announced("fe80::7%eth0")[1:] == [
        "from this machine:    python -m trio_upper client fe80::7%eth0 8746",
        "from other machines:  python -m trio_upper client fe80::7%INTERFACE 8746",
        f"{ELSEWHERE}INTERFACE is the other machine's on this network, as eth0",
    ]


def test_where_the_addresses_cannot_be_listed_one_has_to_be_found() -> None:
    """A sandbox may forbid it; the server serves all the same."""
    lines = Announcement().lines([("0.0.0.0", PORT)], None)
    assert lines[1:] == [
        "from this machine:    python -m trio_upper client 127.0.0.1 8746",
        "from other machines:  python -m trio_upper client ADDRESS 8746",
        f"{ELSEWHERE}ADDRESS is one of this machine",
    ]
    assert Announcement().lines([("127.0.0.1", PORT)], None)[2].endswith("this server and run")


def test_a_client_can_trust_the_certificate_by_its_fingerprint() -> None:
    """Whatever its names and its CA; the command of a server has no fingerprint."""
    lines = announced("192.168.1.7", "127.0.0.1", tls=True, fingerprint="SHA256:ab")
    assert [line.partition("client ")[2] for line in lines[1:]] == [
        "127.0.0.1 8746 --tls-fingerprint SHA256:ab",
        "192.168.1.7 8746 --tls-fingerprint SHA256:ab",
    ]


def test_clients_that_need_a_certificate_are_told_so() -> None:
    """The server cannot know their files."""
    *_, last = announced("127.0.0.1", tls=True, client_certificate=True)
    assert last == "clients need a certificate: add --tls-cert FILE and --tls-key FILE"


def test_a_port_of_its_own_stands_in_every_command() -> None:
    """A client that is told the port is told the address before it, also the default one."""
    _, here, *elsewhere = announced("0.0.0.0", "::", port=9000)
    assert here.endswith("client 127.0.0.1 9000")
    assert [line.split()[-1] for line in elsewhere] == ["9000"] * 3


def test_a_client_of_a_server_with_tls_needs_tls() -> None:
    """The word for it stands in every client's command, behind the port, and in no server's."""
    assert announced("127.0.0.1", tls=True, arguments="--tls-cert x.pem")[1:] == [
        "from this machine:    python -m trio_upper client 127.0.0.1 8746 --tls",
        "from other machines:  not reachable; to allow it, stop this server and run",
        f"{ELSEWHERE}python -m trio_upper serve --tls-cert x.pem --public",
    ]
    assert announced("0.0.0.0", port=9000, tls=True)[1:] == [
        "from this machine:    python -m trio_upper client 127.0.0.1 9000 --tls",
        "from other machines:  python -m trio_upper client 192.168.1.7 9000 --tls",
        f"{ELSEWHERE}python -m trio_upper client 10.0.0.7 9000 --tls",
    ]


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ("--port 0 --grace 3", "--port 0 --grace 3 "),
        ("--host localhost --port 0", "--port 0 "),
        ("--host=localhost --port=0", "--port=0 "),
        ("--host ::1 --grace 3 --host=127.0.0.2 --host localhost", "--grace 3 "),
        ("--host", ""),
    ],
)
def test_the_command_that_exposes_keeps_all_but_the_hosts(arguments: str, kept: str) -> None:
    """What the operator asked for stays; only the addresses are other ones."""
    *_, last = announced("::1", arguments=arguments)
    assert last == f"{ELSEWHERE}python -m trio_upper serve {kept}--public"


def test_the_commands_are_for_the_way_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the script types its name on the other machine, too."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/trio-upper", "serve"])
    _, _, elsewhere, *_ = announced("0.0.0.0")
    assert elsewhere == "from other machines:  trio-upper client 192.168.1.7 8746"


def test_words_that_a_shell_would_take_apart_are_quoted() -> None:
    """A file name with a space can be copied as it is shown."""
    *_, last = Announcement(arguments=["--tls-cert", "my cert.pem"]).lines(
        [("127.0.0.1", PORT)], OWN
    )
    assert "--tls-cert 'my cert.pem' --public" in last


@pytest.mark.parametrize("own", [OWN[:1], [OWN[0], OWN[3]], []])
@pytest.mark.parametrize("wildcards", [["0.0.0.0"], ["::"], ["127.0.0.1", "::"]])
def test_a_machine_without_a_network_has_nothing_to_offer(
    own: list[Address], wildcards: list[str]
) -> None:
    """A wildcard stands for no address then, and it is exposed already: nothing else helps."""
    lines = Announcement().lines([(wildcard, PORT) for wildcard in wildcards], own)
    assert lines[2:] == ["from other machines:  not reachable; this machine is on no network"]


def test_a_machine_with_a_network_of_the_other_family_only_cannot_be_reached() -> None:
    """The wildcard of one family does not stand for addresses of the other."""
    own = [address for address in OWN if address.version == 4]
    [line] = Announcement().lines([("::", PORT)], own)[2:]
    assert line.startswith("from other machines:  not reachable")


def test_own_addresses_are_those_of_all_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv4 ones come from the library as text, IPv6 ones with flow and scope: both are found."""
    adapters = [
        ifaddr.Adapter("lo", "lo", [ifaddr.IP("127.0.0.1", 8, "lo")], 1),
        ifaddr.Adapter(
            "eth0",
            "eth0",
            [ifaddr.IP("192.168.1.7", 24, "eth0"), ifaddr.IP(("fe80::7", 0, 2), 64, "eth0")],
            2,
        ),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    assert own_addresses() == [
        ipaddress.ip_address(text) for text in ("127.0.0.1", "192.168.1.7", "fe80::7")
    ]


def test_own_addresses_that_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are unknown, which is not the same as an empty list."""

    def fail() -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr(ifaddr, "get_adapters", fail)
    assert own_addresses() is None


def test_own_addresses_where_nothing_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor may be left to open the library; the server serves all the same."""
    monkeypatch.setitem(sys.modules, "ifaddr", None)
    assert own_addresses() is None


def test_this_machine_has_its_loopback_address() -> None:
    """The library is asked as it wants to be asked."""
    own = own_addresses()
    assert own is not None
    assert IPv4Address("127.0.0.1") in own
