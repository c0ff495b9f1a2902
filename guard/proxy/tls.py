"""TLS on both sides, with rotated files picked up without a restart.

Towards callers: gRPC asks for the certificates at each new connection; they are read again where a file changed, and
checked first, so that a half-written pair keeps the old one in use. Connections that are open keep what they have.
Towards the upstream: a channel has its credentials for life; whoever holds it compares `fingerprint` and opens another.
"""

import ssl
import time

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from guard import reloading
from guard.settings import ClientTls, ConfigError, ServerTls

SETTLE_S = 0.2
"""New certificates wait for handshakes that just begin with the old ones: gRPC frees these under them, and the process
ends (grpc/grpc#36693). So it is told of changed ones only: whatever it is told, it takes for new."""


def server_credentials(settings: ServerTls) -> grpc.ServerCredentials:
    """Credentials that follow their files. Raises ConfigError where they cannot be used now."""
    ca_files = () if settings.client_ca_file is None else (settings.client_ca_file,)
    files = reloading.Reloading(_server_configuration, settings.cert_file, settings.key_file, *ca_files, every_s=0.0)
    used = files.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        if files.value is used:
            return None
        time.sleep(SETTLE_S)  # without the GIL; gRPC lets no other connection begin its handshake meanwhile
        used = files.value
        return used

    return grpc.dynamic_ssl_server_credentials(used, fetch, settings.require_client_cert)  # type: ignore[arg-type]


def _server_configuration(
    chain: bytes, key: bytes, client_ca: bytes | None = None
) -> grpc.ServerCertificateConfiguration:
    _check_pair(chain, key)
    if client_ca is not None:
        _certificates(client_ca)
    return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=client_ca)


def server_contexts(settings: ServerTls) -> "reloading.Reloading[ssl.SSLContext]":
    """The same for sockets of this process: `value` is for the next connection. Raises ConfigError."""

    def parse(chain: bytes, key: bytes, client_ca: bytes | None = None) -> ssl.SSLContext:
        _check_pair(chain, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _speak_http2(context)
        _load_pair(context, settings)
        if client_ca is not None:
            _trust(context, client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    ca_files = () if settings.client_ca_file is None else (settings.client_ca_file,)
    return reloading.Reloading(parse, settings.cert_file, settings.key_file, *ca_files, every_s=0.0)


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """For connections of this process to an upstream. Raises ConfigError where the files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _speak_http2(context)
    try:
        if settings.ca_file is None:
            context.load_default_certs()
        else:
            _trust(context, reloading.read(settings.ca_file))
        if settings.cert_file is not None and settings.key_file is not None:
            _check_pair(reloading.read(settings.cert_file), reloading.read(settings.key_file))
            _load_pair(context, settings)
    except (OSError, ValueError) as error:
        raise ConfigError(str(settings.cert_file or settings.ca_file), reloading.why(error)) from None
    return context


def _speak_http2(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])


def _load_pair(context: ssl.SSLContext, settings: ServerTls | ClientTls) -> None:
    """The files are read once more, by OpenSSL: whoever rotates them between makes this fail, or gives the new pair."""
    try:
        context.load_cert_chain(str(settings.cert_file), settings.key_file, password="")
    except ssl.SSLError:
        raise ValueError("the private key does not belong to the certificate") from None


def _trust(context: ssl.SSLContext, pem: bytes) -> None:
    _certificates(pem)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except ssl.SSLError:
        raise ValueError("not a PEM certificate") from None


def credentials(settings: ClientTls) -> grpc.ChannelCredentials:
    """Credentials for one channel. Raises ConfigError where the files cannot be used."""
    try:
        ca = None if settings.ca_file is None else reloading.read(settings.ca_file)
        if ca is not None:
            _certificates(ca)
        if settings.cert_file is None or settings.key_file is None:
            return grpc.ssl_channel_credentials(ca)
        chain, key = reloading.read(settings.cert_file), reloading.read(settings.key_file)
        _check_pair(chain, key)
    except (OSError, ValueError) as error:
        raise ConfigError(str(settings.cert_file or settings.ca_file), reloading.why(error)) from None
    return grpc.ssl_channel_credentials(ca, key, chain)


def channel_options(settings: ClientTls) -> tuple[tuple[str, str], ...]:
    """What the channel needs besides the credentials."""
    return () if settings.server_name is None else (("grpc.ssl_target_name_override", settings.server_name),)


def fingerprint(settings: ClientTls) -> reloading.Fingerprint:
    """Changes when a file does. Raises OSError where one is missing."""
    paths = (settings.ca_file, settings.cert_file, settings.key_file)
    return reloading.fingerprint(*(path for path in paths if path is not None))


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("not a PEM certificate") from None


def _check_pair(chain: bytes, key: bytes) -> None:
    leaf = _certificates(chain)[0]
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise ValueError("not a PEM private key without a password") from None
    if private.public_key() != leaf.public_key():
        raise ValueError("the private key does not belong to the certificate")
