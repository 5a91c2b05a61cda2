"""What a person needs next when a server has started: commands to copy, for here and elsewhere."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from trio_upper.cli.invocation import shown_command
from trio_upper.platform import quote_command
from trio_upper.protocol import DEFAULT_HOST

# What a command is indented by that stands below another one.
INDENT = " " * 22

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a person needs to know of a server, but for where it listens.

    `arguments` are the words after ``serve`` on the command line, for the command that would expose
    it. `tls` is whether clients need TLS, `fingerprint` what they can trust its certificate by, and
    `client_certificate` whether they need one of their own. `at_terminal` is whether the person
    reads the log, too, which then need not say the same.
    """

    arguments: Sequence[str] = ()
    tls: bool = False
    fingerprint: str | None = None
    client_certificate: bool = False
    at_terminal: bool = False

    def lines(
        self, listening: Sequence[tuple[str, int]], own: Sequence[Address] | None
    ) -> list[str]:
        """Return the lines to print when the server is ready.

        `listening` are the addresses and ports that are open, `own` the addresses of this machine;
        None: the system does not list them.
        """
        port = listening[0][1]
        opened = [ipaddress.ip_address(address) for address, _ in listening]
        where = " and ".join(str(address) for address in opened)
        here = next((_loopback(address) for address in opened if _is_local(address)), opened[0])
        lines = [
            f"listening on {where}, port {port}; Ctrl-C stops",
            f"from this machine:    {self._client(str(here), port)}",
            *self._elsewhere(opened, own, port),
        ]
        if self.client_certificate:
            lines.append("clients need a certificate: add --tls-cert FILE and --tls-key FILE")
        return lines

    def _elsewhere(
        self, opened: Sequence[Address], own: Sequence[Address] | None, port: int
    ) -> list[str]:
        exposed = any(address.is_unspecified for address in opened)
        if exposed and own is None:
            command = self._client("ADDRESS", port, elsewhere=True)
            return [f"from other machines:  {command}", f"{INDENT}ADDRESS is one of this machine"]
        reachable = _reachable(opened, own or ())
        if reachable:
            first, *more = [
                self._client(_for_others(address), port, elsewhere=True) for address in reachable
            ]
            lines = [f"from other machines:  {first}", *(INDENT + command for command in more)]
            if any("%" in str(address) for address in reachable):
                lines.append(f"{INDENT}INTERFACE is the other machine's on this network, as eth0")
            return lines
        if exposed:
            return ["from other machines:  not reachable; this machine is on no network"]
        command = quote_command(
            [*shown_command(), "serve", *_without_hosts(self.arguments), "--public"]
        )
        return [
            "from other machines:  not reachable; to allow it, stop this server and run",
            INDENT + command,
        ]

    def _client(self, address: str, port: int, *, elsewhere: bool = False) -> str:
        # With host and port, also the default ones: a client at a terminal asks for neither then.
        words = [*shown_command(elsewhere=elsewhere), "client", address, str(port)]
        if self.fingerprint:
            words += ["--tls-fingerprint", self.fingerprint]
        elif self.tls:
            words.append("--tls")
        return quote_command(words)


def own_addresses() -> list[Address] | None:
    """Return the addresses of all interfaces of this machine, without their scopes.

    None: the system does not list them.
    """
    try:
        import ifaddr

        adapters = list(ifaddr.get_adapters())
    except (OSError, ImportError):  # no descriptor is free to load it, or it is forbidden
        return None
    return [
        ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
        for adapter in adapters
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


def _for_others(address: Address) -> str:
    """Return `address` as other machines have it: the scope of ours means nothing to them."""
    bare, scoped, _ = str(address).partition("%")
    return f"{bare}%INTERFACE" if scoped else bare


def _without_hosts(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--host":
            next(words, None)
        elif not word.startswith("--host="):
            kept.append(word)
    return kept
