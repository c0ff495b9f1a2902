"""Who is at the other end of a socket, in gRPC's words: its address, and what TLS verified of it.

Of a certificate's names gRPC takes: the first common name; DNS names, e-mail addresses, URIs and IP addresses as
subject alternative names; and a SPIFFE id where it is the only URI.
"""

import ipaddress
import socket
import ssl
from collections import defaultdict

from cryptography import x509
from cryptography.x509.oid import NameOID

from guard.proxy.seam import Peer

_SPIFFE = "spiffe://"
_MAX_SPIFFE, _MAX_DOMAIN = 2048, 255


def address_of(sock: socket.socket) -> str:
    """`ipv4:10.0.0.1:4711`, `ipv6:%5B::1%5D:4711`, `unix:`."""
    if sock.family == socket.AF_UNIX:
        return "unix:"
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return "unknown"
    ip = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        return f"ipv4:{mapped}:{port}"
    return f"ipv4:{host}:{port}" if ip.version == 4 else f"ipv6:%5B{host.replace('%', '%25')}%5D:{port}"  # noqa: PLR2004


def peer_of(sock: socket.socket, tls: "ssl.SSLObject | None") -> Peer:
    """The other end of a connection whose handshake is done."""
    if tls is None:
        return Peer(address_of(sock))
    auth: dict[str, tuple[bytes, ...]] = {"transport_security_type": (b"ssl",)}
    certificate = tls.getpeercert(binary_form=True)  # None unless one was asked for, and verified
    if certificate is not None:
        auth |= names_of(certificate)
    return Peer(address_of(sock), auth)


def names_of(der: bytes) -> dict[str, tuple[bytes, ...]]:
    """The names of a verified certificate, as gRPC's auth context has them."""
    certificate = x509.load_der_x509_certificate(der)
    found: dict[str, list[bytes]] = defaultdict(list)
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if common:
        found["x509_common_name"].append(_bytes(common[0].value))
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        names = None
    for name in names or ():
        _add(found, name)
    uris = found["peer_uri"]
    if len(uris) == 1 and _is_spiffe(uris[0]):
        found["peer_spiffe_id"] = list(uris)
    return {key: tuple(values) for key, values in found.items() if values}


def _add(found: dict[str, list[bytes]], name: x509.GeneralName) -> None:
    kinds = {x509.DNSName: "peer_dns", x509.RFC822Name: "peer_email", x509.UniformResourceIdentifier: "peer_uri"}
    key = "peer_ip" if isinstance(name, x509.IPAddress) else kinds.get(type(name))
    if key is not None:
        value = _bytes(str(name.value))
        found["x509_subject_alternative_name"].append(value)
        found[key].append(value)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _is_spiffe(uri: bytes) -> bool:
    """As gRPC has it; whoever uses it as an identity looks closer."""
    text = uri.decode("ascii", "replace")
    domain, slash, path = text.removeprefix(_SPIFFE).partition("/")
    whole = text.startswith(_SPIFFE) and len(text) <= _MAX_SPIFFE and bool(slash and path)
    return whole and 0 < len(domain) <= _MAX_DOMAIN
