"""gRPC's names of peers as IP addresses: `ipv4:10.0.0.1:4711`, `ipv6:[::1]:4711`, also percent-encoded, `unix:...`."""

import ipaddress
import urllib.parse

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_unix(address: str) -> bool:
    """Whether the peer is on a Unix socket."""
    return address.startswith(("unix:", "unix-abstract:"))


def ip_of(address: str) -> IPAddress | None:
    """The peer's IP address without port and zone, an IPv4-mapped one as IPv4; None where there is none."""
    family, _, rest = address.partition(":")
    if family not in {"ipv4", "ipv6"}:
        return None
    host = urllib.parse.unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


class Peers:
    """A set of peers: CIDR ranges and `unix`. Raises ValueError for anything else."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._unix = "unix" in names
        self._networks: tuple[IPNetwork, ...] = tuple(ipaddress.ip_network(name) for name in names if name != "unix")

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, str):
            return False
        if is_unix(address):
            return self._unix
        ip = ip_of(address)
        return ip is not None and any(ip.version == net.version and ip in net for net in self._networks)
