"""One Guard a port: the address is taken for this Guard alone, and then opened to its own workers.

Each socket is bound without SO_REUSEPORT, which fails where anybody else has the address, and gets the option only
then: from that moment sockets of the same user that ask for it can bind the address, too, and those of another Guard
cannot, whose own claim comes first and finds the address taken. The claim never listens, so no connection comes to it,
and it holds the address while workers end and begin.
Known bypass: another program of the same user that binds with SO_REUSEPORT at once, and asks nobody, gets a share.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from guard.settings import ConfigError

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_PATH = "listen.address"
_MOST = 65_535


@contextmanager
def claim(address: str) -> Iterator[str]:
    """HOST:PORT -> the same with the port that it is, held inside the context. Raises ConfigError."""
    host, colon, number = address.rpartition(":")
    if not colon or not number.isdecimal() or int(number) > _MOST:
        raise ConfigError(_PATH, f"{address!r} is not HOST:PORT")
    with contextlib.ExitStack() as held:
        port, found, places = int(number), 0, _resolved(host.strip("[]"), address)
        for family, where in places:
            taken = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            try:
                port = _take(taken, where, port, both=where == "::" and len(places) == 1)
                found += 1
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise ConfigError(_PATH, f"cannot listen on {address}: {error.strerror}") from None
        if not found:
            raise ConfigError(_PATH, f"cannot listen on {address}: this machine has no such address")
        yield f"{host}:{port}"


def _resolved(host: str, address: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(_PATH, f"cannot listen on {address}: the name is not known") from None
    return list(dict.fromkeys((family, str(where[0])) for family, _, _, _, where in found))


def _take(taken: socket.socket, where: str, port: int, *, both: bool) -> int:
    """The port that was bound. SO_REUSEADDR, so that connections of a former run that linger do not count.

    both: of IPv4, too.
    """
    if taken.family == socket.AF_INET6:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind((where, port))
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # else a second claim would pass until a worker listens
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return int(taken.getsockname()[1])
