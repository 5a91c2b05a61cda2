"""The addresses of a host: resolved, in the order in which to try them, and as text."""

import itertools
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import trio

from trio_upper.client.failures import NoSuchVersion
from trio_upper.client.target import Target

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Address:
    """A numeric address with its port, as the socket module has it; as text without the port."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        """Return the numeric address, with its scope if it has one."""
        host, _, *rest = self.sockaddr
        scope_id = rest[1] if rest else 0
        return f"{host}%{_interface(scope_id)}" if scope_id else str(host)

    def is_own(self) -> bool:
        """Tell whether this machine has the address: only then can a socket be bound to it."""
        host, _, *rest = self.sockaddr
        with socket.socket(self.family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, 0, *rest))
            except OSError:
                return False
        return True


async def resolve(target: Target, only: Literal[4, 6] | None = None) -> list[Address]:
    """Return the addresses of `target`, IPv4 and IPv6 in turns, or `only` those of one version.

    RFC 8305 section 4: a family that is broken then costs one turn, not one for each address.

    Error handling: `OSError` and `UnicodeError` as the resolver raises them, `NoSuchVersion` if the
    host has addresses, but none of `only`.
    """
    found = await trio.socket.getaddrinfo(
        target.host,
        target.port,
        type=trio.socket.SOCK_STREAM,
        proto=trio.socket.IPPROTO_TCP,
    )
    addresses = dict.fromkeys(Address(info[0], info[4]) for info in found)
    if only is None:
        return _in_turns(addresses)
    chosen = [address for address in addresses if address.family == _FAMILIES[only]]
    if not chosen:
        raise NoSuchVersion(f"no IPv{only} address")
    return chosen


def numeric(address: str) -> tuple[Any, ...]:
    """Return the socket module's form of an address of this machine, with port 0."""
    [info, *_] = socket.getaddrinfo(
        address, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )
    return info[4]


def _in_turns(addresses: Iterable[Address]) -> list[Address]:
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


def _interface(scope_id: int) -> str:
    try:
        return socket.if_indextoname(scope_id)
    except OSError:  # a scope may be given as the number of an interface that is not there
        return str(scope_id)
