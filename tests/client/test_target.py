"""Targets: what a person writes is understood, or refused with the words that would be right."""

import re

import pytest

from trio_upper.client.target import Target, parse_target, with_brackets

LONG = f"{1:05000}"  # it is 1, but `int` refuses so many digits
PORTS = "use a number from 1 to 65535"


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        (None, None, ("127.0.0.1", 8746)),
        (None, "80", ("127.0.0.1", 80)),
        ("example.lan", None, ("example.lan", 8746)),
        ("example.lan", 80, ("example.lan", 80)),
        ("example.lan", " 080 ", ("example.lan", 80)),
        (" example.lan ", "65535", ("example.lan", 65535)),
        ("example.lan:80", None, ("example.lan", 80)),
        ("example.lan:80", "80", ("example.lan", 80)),
        ("example.lan.", None, ("example.lan.", 8746)),
        ("under_score-1", None, ("under_score-1", 8746)),
        ("straße.example", None, ("straße.example", 8746)),
        ("192.168.1.7:80", None, ("192.168.1.7", 80)),
        ("255.255.255.255", None, ("255.255.255.255", 8746)),
        ("::1", None, ("::1", 8746)),
        ("::1", 80, ("::1", 80)),
        ("[::1]", None, ("::1", 8746)),
        ("[::1]", 80, ("::1", 80)),
        ("[::1]:80", None, ("::1", 80)),
        ("::ffff:192.168.1.7", None, ("::ffff:192.168.1.7", 8746)),
        ("fe80::1%eth0", None, ("fe80::1%eth0", 8746)),
        ("fe80::1%2", None, ("fe80::1%2", 8746)),
        ("[fe80::1%eth0.5]:80", None, ("fe80::1%eth0.5", 80)),
    ],
)
def test_what_a_person_means(
    host: str | None, port: str | int | None, expected: tuple[str, int]
) -> None:
    """A host may carry its port, an address its scope, and what is missing has a default."""
    target = parse_target(host, port)
    assert (target.host, target.port) == expected


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("x", "http", "'http' is not a valid port; use a number from 1 to 65535"),
        ("x", "", "'' is not a valid port; use a number from 1 to 65535"),
        ("x", "-1", "'-1' is not a valid port; use a number from 1 to 65535"),
        ("x", "8_0", "'8_0' is not a valid port; use a number from 1 to 65535"),
        ("x", "٨٠", "'٨٠' is not a valid port; use a number from 1 to 65535"),
        ("x", "1000000", "'1000000' is not a valid port; use a number from 1 to 65535"),
        pytest.param("x", LONG, f"'{LONG}' is not a valid port; {PORTS}", id="long"),
        ("x", "0", "0 is not a valid port; use a number from 1 to 65535"),
        ("x", 65536, "65536 is not a valid port; use a number from 1 to 65535"),
        ("x:", None, "'' is not a valid port; use a number from 1 to 65535"),
        ("x:http", None, "'http' is not a valid port; use a number from 1 to 65535"),
        ("[::1]:", None, "'' is not a valid port; use a number from 1 to 65535"),
        ("x:80", "81", "'x:80' has another port than 81; give only one of them"),
        ("[::1", None, "'[::1' is not a valid host; brackets are for IPv6, as in [::1]:8746"),
        ("[::1]80", None, "'[::1]80' is not a valid host; brackets are for IPv6, as in [::1]:8746"),
        ("http://box:80/", None, "'http://box:80/' is a URL; write 'box:80'"),
        ("http://box/", None, "'http://box/' is a URL; write 'box'"),
        (
            "HTTPS://me@[::1]:80/x?y#z",
            None,
            "'HTTPS://me@[::1]:80/x?y#z' is a URL; write '[::1]:80'",
        ),
        *(
            (
                url,
                None,
                f"'{url}' is not a valid host; give a name, an IPv4 address or an IPv6 address",
            )
            for url in ("http://", "http:///x", "http://:80/", "http://me@/", "http://two words/")
        ),
        ("tcp://192.0.2.1:8746", None, "'tcp://192.0.2.1:8746' is a URL; write '192.0.2.1:8746'"),
        (
            "2001:db8:0:0:0:0:0:1:8746",
            None,
            "'2001:db8:0:0:0:0:0:1:8746' is not a valid host; write [2001:db8:0:0:0:0:0:1]:8746",
        ),
        (
            "fe80::1%eth0:80",
            None,
            "'fe80::1%eth0:80' is not a valid host; write [fe80::1%eth0]:80",
        ),
        ("[x]:80", None, "'[x]:80' is not a valid host; brackets are for IPv6, as in [::1]:8746"),
    ],
)
def test_a_wrong_port_or_bracket(host: str, port: str | int | None, said: str) -> None:
    """A wrong port or bracket is named, with what is allowed."""
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        parse_target(host, port)


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        ":80",
        "8746",
        "192.168.1",
        "127.1",
        "0x7f000001",
        "127.0.0.0x1",
        "127.0.0.1.",
        "999.1.1.1",
        "1.2.3.4.5",
        "192.168.1.7%eth0",
        "٣.0.0.٣",
        "1\x00.1",
        "fe80::g",
        "00:11:22:33:44:55",
        "fe80::1%",
        "fe80::1%a b",
        "fe80::1%a%b",
        "[fe80::1%\x1b]:80",
        "two words",
        "http//x",
        "user@x",
        "x\x1b[2J",
        "x\u202ey",
        "..",
    ],
)
def test_a_host_that_is_not_valid(host: str) -> None:
    """What is neither name nor address is named, harmless to a terminal, with what is allowed."""
    with pytest.raises(
        ValueError, match="is not a valid host; give a name, an IPv4 address or"
    ) as caught:
        parse_target(host, None)
    assert str(caught.value).isprintable()


def test_targets_are_checked_where_they_are_made() -> None:
    """A target that is not parsed is checked as well."""
    assert Target() == parse_target(None, None)
    with pytest.raises(ValueError, match="0 is not a valid port"):
        Target(port=0)
    with pytest.raises(ValueError, match="is not a valid host"):
        Target(host="[::1]")


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        ("::1:8746", "[::1]:8746"),
        ("fe80::1:80", "[fe80::1]:80"),
        ("::8746", "[::]:8746"),
        ("2001:db8::443", "[2001:db8::]:443"),
        ("2001:db8:0:0:0:0:0:1:8746", "[2001:db8:0:0:0:0:0:1]:8746"),
        ("::1", None),
        ("fe80::dead", None),
        ("2001:db8::70000", None),
        ("2001:db8::080", None),
        ("1:2:3:4:5:6:7:8746", None),
        ("192.0.2.1", None),
        ("box", None),
    ],
)
def test_an_address_that_may_be_meant_with_a_port(host: str, meant: str | None) -> None:
    """An IPv6 address needs brackets before a port; without them the port is its last group."""
    assert with_brackets(host) == meant
