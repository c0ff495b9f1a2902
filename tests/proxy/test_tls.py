"""TLS over real connections: who is let in, who is known, and what a rotation changes."""

import os

import grpc
import pytest
from cryptography import x509
from grpc import aio

from guard.proxy import tls
from guard.proxy.identity import Chain
from guard.proxy.seam import Call, Peer
from guard.settings import ClientTls, ConfigError, Identity, ServerTls
from tests.proxy.certs import Authority, Pair

SERVED = {"dns": ("localhost",)}
SPIFFE = "spiffe://example.org/app"


@pytest.fixture(scope="module")
def ca():
    return Authority()


@pytest.fixture(scope="module")
def stranger():
    return Authority("another authority")


class Served:
    """A server that says who called, and with what its own certificate was made."""

    def __init__(self, settings: ServerTls) -> None:
        self.server = aio.server()
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_secure_port("localhost:0", tls.server_credentials(settings))
        self.auth: dict[str, tuple[bytes, ...]] = {}

    def service(self, details):
        async def answer(body, context):
            self.auth = {key: tuple(values) for key, values in context.auth_context().items()}
            return body

        return grpc.unary_unary_rpc_method_handler(answer)

    async def call(self, credentials: grpc.ChannelCredentials, *options) -> None:
        """One call on a connection of its own."""
        everything = (("grpc.use_local_subchannel_pool", 1), *options)
        async with aio.secure_channel(f"localhost:{self.port}", credentials, everything) as channel:
            await channel.unary_unary("/a/B")(b"", timeout=10)


@pytest.fixture
async def serve(tmp_path, ca):
    """Start servers from `server.crt` and `server.key`."""
    ca.leaf("first", **SERVED).write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    started = []

    async def start(**settings) -> Served:
        files = {"cert_file": tmp_path / "server.crt", "key_file": tmp_path / "server.key"}
        served = Served(ServerTls(**files, **settings))
        await served.server.start()
        started.append(served)
        return served

    yield start
    for served in started:
        await served.server.stop(0)


def mutual(tmp_path):
    return {"client_ca_file": tmp_path / "ca.crt", "require_client_cert": True}


def client(ca: Authority, pair: Pair | None = None) -> grpc.ChannelCredentials:
    if pair is None:
        return grpc.ssl_channel_credentials(ca.pem)
    return grpc.ssl_channel_credentials(ca.pem, pair.key, pair.cert)


async def refused(served: Served, credentials: grpc.ChannelCredentials, *options) -> bool:
    served.auth = {}
    with pytest.raises(aio.AioRpcError) as error:
        await served.call(credentials, *options)
    return error.value.code() is grpc.StatusCode.UNAVAILABLE and not served.auth


async def common_name(served: Served, ca: Authority) -> str:
    """Of the certificate that the server shows to a new connection."""
    import asyncio
    import ssl

    context = ssl.create_default_context(cadata=ca.pem.decode())
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("localhost", served.port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


def caller(served: Served, kind: str, **options):
    call = Call("/a/B", (), None, Peer("ipv4:127.0.0.1:1", served.auth))
    return Chain(Identity(chain=({"kind": kind, **options},)), b"0123456789abcdef").caller(call)


# --- towards callers


async def test_a_caller_that_trusts_the_authority_is_served(serve, ca, stranger):
    served = await serve()
    await served.call(client(ca))
    assert await refused(served, client(stranger))


async def test_without_mutual_tls_nobody_is_known(serve, ca):
    served = await serve()
    await served.call(client(ca, ca.leaf("alice", uris=(SPIFFE,))))
    assert served.auth
    assert caller(served, "spiffe") is None
    assert caller(served, "mtls_subject") is None


async def test_mutual_tls_refuses_callers_without_a_good_certificate(serve, ca, stranger, tmp_path):
    served = await serve(**mutual(tmp_path))
    assert await refused(served, client(ca))
    assert await refused(served, client(ca, stranger.leaf("alice", uris=(SPIFFE,))))
    await served.call(client(ca, ca.leaf("alice")))


async def test_mutual_tls_makes_callers_known(serve, ca, tmp_path):
    served = await serve(**mutual(tmp_path))
    await served.call(client(ca, ca.leaf("alice", uris=(SPIFFE,), dns=("alice.example.org",))))
    assert caller(served, "spiffe").id == f"spiffe:{SPIFFE}"
    assert caller(served, "mtls_subject").id == "cn:alice"


@pytest.mark.parametrize(
    "names",
    [
        {"dns": (SPIFFE,)},
        {"uris": ("https://example.org/app",)},
        {"uris": (SPIFFE, "spiffe://example.org/other")},
    ],
)
async def test_what_only_looks_like_a_spiffe_id_is_none(serve, ca, tmp_path, names):
    served = await serve(**mutual(tmp_path))
    await served.call(client(ca, ca.leaf("alice", **names)))
    assert served.auth["x509_subject_alternative_name"]
    assert caller(served, "spiffe") is None


async def test_a_rotated_certificate_is_shown_to_new_connections(serve, ca, tmp_path):
    served = await serve()
    assert await common_name(served, ca) == "CN=first"
    async with aio.secure_channel(f"localhost:{served.port}", client(ca)) as old:
        await old.unary_unary("/a/B")(b"", timeout=10)
        ca.leaf("second", **SERVED).write(tmp_path, "server")
        assert await common_name(served, ca) == "CN=second"
        await served.call(client(ca))
        await old.unary_unary("/a/B")(b"", timeout=10)  # the open connection lives on


async def test_grpc_is_told_of_new_certificates_once(serve, ca, tmp_path, monkeypatch):
    """What it is told of is new to it, and frees what handshakes that just begin may hold."""
    told, real = [], grpc.dynamic_ssl_server_credentials

    def keep(first, fetch, require):
        def fetched():
            told.append(fetch())
            return told[-1]

        return real(first, fetched, require)

    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", keep)
    served = await serve()
    for _ in range(3):
        await served.call(grpc.ssl_channel_credentials(ca.pem))
    ca.leaf("second", **SERVED).write(tmp_path, "server")
    for _ in range(3):
        await served.call(grpc.ssl_channel_credentials(ca.pem))
    assert [one is not None for one in told] == [False] * 3 + [True] + [False] * 2


async def test_a_rotated_client_authority_counts(serve, ca, stranger, tmp_path):
    served = await serve(**mutual(tmp_path))
    alice, bob = ca.leaf("alice"), stranger.leaf("bob")
    await served.call(client(ca, alice))
    assert await refused(served, client(ca, bob))
    (tmp_path / "ca.crt").write_bytes(stranger.pem)
    assert await refused(served, client(ca, alice))
    await served.call(client(ca, bob))


async def test_files_swapped_as_a_kubernetes_secret_are(serve, ca, tmp_path):
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        ca.leaf(version, **SERVED).write(tmp_path / version, "server")
    data = tmp_path / "..data"
    data.symlink_to("v1")
    for name in ("server.crt", "server.key"):
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(f"..data/{name}")
    served = await serve()
    assert await common_name(served, ca) == "CN=v1"
    (tmp_path / "..new").symlink_to("v2")
    os.replace(tmp_path / "..new", data)  # noqa: PTH105
    assert await common_name(served, ca) == "CN=v2"


@pytest.mark.parametrize("broken", ["half written", "only the certificate", "gone", "not PEM"])
async def test_broken_new_files_keep_the_old_certificate(serve, ca, tmp_path, caplog, broken):
    served = await serve()
    cert = tmp_path / "server.crt"
    new = ca.leaf("second", **SERVED)
    match broken:
        case "half written":
            cert.write_bytes(new.cert[:100])
        case "only the certificate":
            cert.write_bytes(new.cert)
        case "gone":
            cert.unlink()
        case "not PEM":
            (tmp_path / "server.key").write_bytes(b"-----BEGIN nothing")
    for _ in range(3):
        assert await common_name(served, ca) == "CN=first"
    assert len([record for record in caplog.records if "kept the old version" in record.message]) == 1
    assert "PRIVATE" not in caplog.text
    new.write(tmp_path, "server")
    assert await common_name(served, ca) == "CN=second"


@pytest.mark.parametrize("wrong", ["server.crt", "server.key", "ca.crt"])
async def test_files_that_cannot_be_used_at_the_start(serve, tmp_path, wrong):
    (tmp_path / wrong).write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="PEM"):
        await serve(**mutual(tmp_path))


async def test_files_of_two_pairs_at_the_start(serve, ca, tmp_path):
    (tmp_path / "server.key").write_bytes(ca.leaf("other").key)
    with pytest.raises(ConfigError, match="does not belong"):
        await serve()


async def test_a_missing_file_at_the_start_is_named(serve, tmp_path):
    (tmp_path / "server.key").unlink()
    with pytest.raises(ConfigError, match=r"server\.key"):
        await serve()


def test_an_authority_for_callers_that_are_not_asked_is_a_mistake(tmp_path):
    files = {"cert_file": tmp_path / "a", "key_file": tmp_path / "b"}
    with pytest.raises(ValueError, match="go together"):
        ServerTls(**files, client_ca_file=tmp_path / "ca.crt")
    with pytest.raises(ValueError, match="go together"):
        ServerTls(**files, require_client_cert=True)


# --- towards the upstream


@pytest.fixture
def mine(ca, tmp_path) -> ClientTls:
    cert, key = ca.leaf("guard", uris=("spiffe://example.org/guard",)).write(tmp_path, "guard")
    return ClientTls(ca_file=tmp_path / "ca.crt", cert_file=cert, key_file=key)


async def test_guard_shows_its_certificate(serve, mine, tmp_path):
    served = await serve(**mutual(tmp_path))
    await served.call(tls.credentials(mine))
    assert caller(served, "mtls_subject").id == "cn:guard"


async def test_without_a_certificate_of_its_own(serve, mine, tmp_path):
    one_way = mine.model_copy(update={"cert_file": None, "key_file": None})
    await (await serve()).call(tls.credentials(one_way))
    assert await refused(await serve(**mutual(tmp_path)), tls.credentials(one_way))


async def test_the_upstream_is_verified(serve, mine, stranger, tmp_path):
    served = await serve()
    (tmp_path / "ca.crt").write_bytes(stranger.pem)
    assert await refused(served, tls.credentials(mine))


async def test_the_upstream_may_have_another_name(serve, ca, mine, tmp_path):
    ca.leaf("m", dns=("model.internal",)).write(tmp_path, "server")
    served = await serve()
    assert tls.channel_options(mine) == ()
    assert await refused(served, tls.credentials(mine))
    named = mine.model_copy(update={"server_name": "model.internal"})
    await served.call(tls.credentials(named), *tls.channel_options(named))


def test_the_fingerprint_changes_with_each_file(mine, ca, tmp_path):
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    seen = {tls.fingerprint(mine)}
    assert tls.fingerprint(mine) in seen
    for path in (mine.ca_file, mine.cert_file, mine.key_file):
        path.write_bytes(path.read_bytes() + b"\n")
        seen.add(tls.fingerprint(mine))
    assert len(seen) == 4
    assert tls.fingerprint(ClientTls()) == ()


@pytest.mark.parametrize("wrong", ["ca.crt", "guard.crt", "guard.key"])
def test_files_for_the_upstream_that_cannot_be_used(mine, ca, tmp_path, wrong):
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    (tmp_path / wrong).write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="PEM"):
        tls.credentials(mine)


def test_a_large_file_is_not_read(mine, tmp_path):
    (tmp_path / "ca.crt").write_bytes(b"x" * 2_000_000)
    with pytest.raises(ConfigError, match="larger than"):
        tls.credentials(mine)
