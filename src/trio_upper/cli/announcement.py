"""What a person needs next when a server has started: commands to copy, for here and elsewhere."""

import ipaddress
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from trio_upper.cli.invocation import shown_command
from trio_upper.platform import quote_command
from trio_upper.protocol import DEFAULT_HOST

EXPOSE = ("--host", "0.0.0.0", "--host", "::")  # noqa: S104 - it is what the person is told

Address = IPv4Address | IPv6Address


def announce(
    listening: Sequence[tuple[str, int]],
    own: Iterable[Address],
    arguments: Sequence[str],
    *,
    tls: bool = False,
) -> list[str]:
    """Return the lines to print when a server is ready.

    `listening` are the addresses and ports that are open, `own` the addresses of this machine,
    `arguments` the words after ``serve`` on the command line, for the command that would expose it,
    `tls` whether clients need it.
    """
    port = listening[0][1]
    opened = [ipaddress.ip_address(address) for address, _ in listening]
    where = " and ".join(str(address) for address in opened)
    here = next((_loopback(address) for address in opened if _is_local(address)), opened[0])
    elsewhere = [_client(address, port, tls=tls) for address in _reachable(opened, own)]
    lines = [
        f"listening on {where}, port {port}; Ctrl-C stops",
        f"from this machine:    {_client(here, port, tls=tls)}",
    ]
    if not elsewhere and any(address.is_unspecified for address in opened):
        return [*lines, "from other machines:  not reachable; this machine is on no network"]
    if not elsewhere:
        lines.append("from other machines:  not reachable; to change that, stop it and say")
        elsewhere = [
            quote_command([*shown_command(), "serve", *_without_hosts(arguments), *EXPOSE])
        ]
        return lines + [" " * 22 + command for command in elsewhere]
    first, *more = elsewhere
    return [*lines, f"from other machines:  {first}", *(" " * 22 + command for command in more)]


def own_addresses() -> list[Address]:
    """Return the addresses of all interfaces of this machine, without their scopes."""
    import ifaddr

    return [
        ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    ]


def _is_local(address: Address) -> bool:
    return address.is_loopback or address.is_unspecified


def _loopback(address: Address) -> Address:
    """Return what to connect to from this machine to reach a listener on `address`."""
    if not address.is_unspecified:
        return address
    return ipaddress.ip_address(DEFAULT_HOST if address.version == 4 else "::1")


def _reachable(opened: Iterable[Address], own: Iterable[Address]) -> list[Address]:
    """Return where other machines can connect to.

    Link-local addresses are left out where a wildcard stands for them: they need the name of an
    interface of the other machine, and there is a better address nearly always.
    """
    outward = [address for address in own if not (address.is_loopback or address.is_link_local)]
    found: list[Address] = []
    for address in opened:
        if address.is_unspecified:
            found += [one for one in outward if one.version == address.version]
        elif not address.is_loopback:
            found.append(address)
    return found


def _client(address: Address, port: int, *, tls: bool) -> str:
    # With host and port, also where they are the defaults: a client at a terminal asks for neither.
    words = [*shown_command(), "client", str(address), str(port)]
    if tls:
        words.append("--tls")
    return quote_command(words)


def _without_hosts(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--host":
            next(words, None)
        elif not word.startswith("--host="):
            kept.append(word)
    return kept
