"""Certificates made for a test: an authority, and leaves that it signs."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    cert: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """NAME.crt and NAME.key."""
        cert, key = directory / f"{name}.crt", directory / f"{name}.key"
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)
        return cert, key


def name_of(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


class Authority:
    """Signs leaves. `pem`: its own certificate."""

    def __init__(self, common_name: str = "test authority") -> None:
        self._name = name_of(common_name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key.public_key(), authority=True)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool, ago: dt.timedelta = dt.timedelta()
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC) - ago
        return x509.CertificateBuilder(
            self._name, subject, key, x509.random_serial_number(), now - DAY, now + DAY
        ).add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)

    def leaf(
        self, common_name: str, *, dns: tuple[str, ...] = (), uris: tuple[str, ...] = (), expired: bool = False
    ) -> Pair:
        """A certificate with these subject alternative names."""
        key = ec.generate_private_key(ec.SECP256R1())
        ago = 2 * DAY if expired else dt.timedelta()
        builder = self._builder(name_of(common_name), key.public_key(), authority=False, ago=ago)
        names = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, uris)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
        cert = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        return Pair(cert, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
