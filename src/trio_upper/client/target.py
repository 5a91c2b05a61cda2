"""Where to connect to, from what a person writes; no I/O.

Whatever is malformed raises `ValueError` with one clear sentence, harmless to a terminal.
"""

import re
import socket
from dataclasses import dataclass

from trio_upper.protocol import DEFAULT_HOST, DEFAULT_PORT

MAX_PORT = 65535

# How a port is written: thousands of digits, whatever their value, are more than `int` takes.
PORT = re.compile("0{0,9}[0-9]{1,5}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?([^/?#]*)")

# What getaddrinfo would take for an IPv4 address in one of its old spellings, as 127.1 and
# 0x7f000001: no name ends like this (RFC 1123 section 2.1).
_NUMBER = re.compile(r"\d+|0[xX][0-9a-fA-F]*")

_VALID_HOSTS = "give a name, an IPv4 address or an IPv6 address"
_VALID_PORTS = f"use a number from 1 to {MAX_PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect to: a name or a numeric address, and a port from 1 to 65535.

    An IPv6 address may have a scope (RFC 4007 section 11), as in ``fe80::1%eth0``; it has no
    brackets. `ValueError`, with one clear sentence, for a host or a port that is not valid.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT

    def __post_init__(self) -> None:
        _check_host(self.host)
        if not 1 <= self.port <= MAX_PORT:
            raise ValueError(f"{self.port} is not a valid port; {_VALID_PORTS}")


def parse_target(host: str | None, port: str | int | None) -> Target:
    """Return the `Target` that a person means; None for `host` or `port`: its default.

    `host` may carry the port, as in ``host:8746`` or ``[::1]:8746``.

    Error handling: `ValueError`, with one clear sentence, for what is malformed, and for two ports
    that contradict each other.
    """
    name, carried = (DEFAULT_HOST, None) if host is None else split_host(host.strip())
    numbers = {_port_number(text) for text in (carried, port) if text is not None}
    if len(numbers) > 1:
        raise ValueError(f"{host!r} has another port than {port}; give only one of them")
    return Target(host=name, port=numbers.pop() if numbers else DEFAULT_PORT)


def split_host(host: str) -> tuple[str, str | None]:
    """Return a host and the port that it carries, if any; neither is checked yet.

    `ValueError`, with one clear sentence, for a URL and for misplaced brackets.
    """
    if url := _URL.match(host):
        place = url[1]
        raise ValueError(
            f"{host!r} is a URL; write {place!r}" if _is_place(place) else _not_a_host(host)
        )
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        if not closed or ":" not in name or (rest and not rest.startswith(":")):
            raise ValueError(_not_a_host(host, "brackets are for IPv6, as in [::1]:8746"))
        return name, rest[1:] if rest else None
    if host.count(":") == 1:
        name, _, port = host.partition(":")
        return name, port
    return host, None


def with_brackets(host: str) -> str | None:
    """Return ``[::1]:8746`` for ``::1:8746``, which is an address but may be meant so; else None.

    That is an IPv6 address whose last group could be a port. One digit is left alone: many
    addresses end in it, and hardly any port has it.
    """
    address, _, port = host.rpartition(":")
    address += ":" if address.endswith(":") else ""
    if not re.fullmatch("[1-9][0-9]{1,4}", port) or int(port) > MAX_PORT:
        return None
    is_address = _is_numeric(socket.AF_INET6, address.partition("%")[0])
    return f"[{address}]:{port}" if is_address else None


def _port_number(port: str | int) -> int:
    if isinstance(port, int):
        return port
    if not PORT.fullmatch(port.strip()):
        raise ValueError(f"{port!r} is not a valid port; {_VALID_PORTS}")
    return int(port)


def _is_place(text: str) -> bool:
    try:
        parse_target(text, None)
    except ValueError:
        return False
    return True


def _not_a_host(host: str, instead: str = _VALID_HOSTS) -> str:
    return f"{host!r} is not a valid host; {instead}"


def _check_host(host: str) -> None:
    address, percent, scope = host.partition("%")
    if ":" in address or percent:
        valid = _is_numeric(socket.AF_INET6, address) and (not percent or _is_scope(scope))
    elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        valid = _is_numeric(socket.AF_INET, host)
    else:
        valid = bool(host.strip(".")) and all(_may_be_in_name(character) for character in host)
    if not valid:
        meant = with_brackets(host)
        raise ValueError(_not_a_host(host, f"write {meant}") if meant else _not_a_host(host))


def _is_numeric(family: int, address: str) -> bool:
    try:
        socket.inet_pton(family, address)
    except (OSError, ValueError):
        return False
    return True


def _is_scope(scope: str) -> bool:
    """Tell whether an interface may have this name (Linux, dev_valid_name), or this number."""
    return bool(scope) and scope.isprintable() and not set(scope) & set(" /:%")


def _may_be_in_name(character: str) -> bool:
    """Tell whether a name may hold this; the resolver judges the rest, and beyond ASCII, IDNA."""
    if character.isascii():
        return character.isalnum() or character in "-._"
    return character.isprintable()
