"""The contract, and TLS, on a real Redis 7 or later: what the settings call a Valkey may be one."""

import asyncio
import subprocess
import time

import pytest

from guard.stores.client import Server, StoreAway
from guard.stores.valkey import ValkeyStore
from tests.servers import install, valkey
from tests.stores.contract import *  # noqa: F403
from tests.stores.contract import ask, row
from tests.stores.relay import relayed
from tests.stores.test_valkey import (  # noqa: F401 - fixtures, and tests to run here, too
    PATIENT,
    empty,
    make,
    store,
    test_buckets_expire_once_they_are_full,
    test_every_key_expires_and_says_its_version,
    test_known_recent_rows_do_not_travel_again,
    test_old_rows_and_callers_are_forgotten,
    test_past_max_callers_the_longest_unseen_goes,
    test_past_max_entries_the_first_seen_goes,
    test_recent_rows_are_bounded_over_all_callers,
    test_two_workers_see_one_history,
    test_two_workers_share_a_bucket,
)


@pytest.fixture(scope="module")
def program():
    return install.redis() or pytest.skip("there is no redis-server, and it is not ours to install one")


@pytest.fixture(scope="module")
def port(program, tmp_path_factory):
    with valkey.start(tmp_path_factory.mktemp("redis"), program=program) as port:
        yield port


def test_it_is_a_redis(empty):  # noqa: F811
    told = empty.info("server")
    assert "valkey_version" not in told
    assert int(told["redis_version"].split(".")[0]) >= 7


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """ca, and certificates that it signed: a server's, a client's, one of a server elsewhere; and another authority."""
    home = tmp_path_factory.mktemp("pki")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=home, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        openssl("req", "-x509", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    names = {"server": "IP:127.0.0.1", "client": "DNS:guard", "elsewhere": "DNS:elsewhere.example"}
    for name, told in names.items():
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName={told}")
        openssl(
            "req", "-x509", *curve, "-subj", f"/CN={name}", *signed, "-keyout", f"{name}.key", "-out", f"{name}.pem"
        )
    return home


@pytest.fixture
def tls(program, pki, tmp_path):
    """-> a context in which a server with this certificate runs."""

    def start(name, *options):
        port = valkey.free_port()
        files = {"--tls-cert-file": f"{name}.pem", "--tls-key-file": f"{name}.key", "--tls-ca-cert-file": "ca.pem"}
        words = [word for option, file in files.items() for word in (option, str(pki / file))]
        return valkey.start(
            tmp_path, "--port", "0", "--tls-port", str(port), *words, *options, port=port, program=program
        )

    return start


def over_tls(port, **words):
    return ValkeyStore(Server((f"127.0.0.1:{port}",), **({"tls": True} | words)), timeout_s=1.0)


async def refused(store):  # noqa: F811
    """How the store says that it is away."""
    with pytest.raises(StoreAway) as said:
        await ask(store, row(1))
    await store.close()
    return str(said.value)


async def test_mutual_tls(tls, pki):
    with tls("server") as port:
        known = {"ca_file": pki / "ca.pem", "cert_file": pki / "client.pem", "key_file": pki / "client.key"}
        good = over_tls(port, **known)
        assert await ask(good, row(1)) == [(0, False)]
        await good.close()
        await refused(over_tls(port, ca_file=pki / "ca.pem"))  # no certificate of its own
        assert "its certificate is not good" in await refused(over_tls(port, **{**known, "ca_file": pki / "other.pem"}))
        assert "its certificate is not good" in await refused(
            over_tls(port, cert_file=known["cert_file"], key_file=known["key_file"])
        )
        await refused(over_tls(port, tls=False))


async def test_the_systems_authorities_count_only_without_others(tls, pki, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(pki / "ca.pem"))
    with tls("server", "--tls-auth-clients", "no") as port:
        good = over_tls(port)
        assert await ask(good, row(1)) == [(0, False)]
        await good.close()
        assert "its certificate is not good" in await refused(over_tls(port, ca_file=pki / "other.pem"))


async def test_rotated_authorities_are_picked_up(tls, pki, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_bytes((pki / "other.pem").read_bytes())
    with tls("server", "--tls-auth-clients", "no") as port:
        store = over_tls(port, ca_file=file)
        with pytest.raises(StoreAway):
            await ask(store, row(1))
        file.write_bytes((pki / "ca.pem").read_bytes())
        assert await ask(store, row(1)) == [(0, False)]
        await store.close()


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_files_that_cannot_be_used(pki, tmp_path, name):
    (tmp_path / "empty.pem").touch()
    for file in (tmp_path / "empty.pem", tmp_path / "none.pem"):
        with pytest.raises(ValueError, match="ca_file, cert_file or key_file cannot be used"):
            over_tls(1, **{name: file})


async def test_a_certificate_for_another_host(tls, pki):
    with tls("elsewhere", "--tls-auth-clients", "no") as port:
        assert "its certificate is not good" in await refused(over_tls(port, ca_file=pki / "ca.pem"))


async def test_a_server_that_falls_silent_under_tls_holds_nobody_up(tls, pki):
    with tls("server", "--tls-auth-clients", "no") as port:
        async with relayed(port) as relay:
            store = over_tls(relay.port, ca_file=pki / "ca.pem")  # 1 s
            assert await ask(store, row(1)) == [(0, False)]
            relay.silent = True
            for _ in range(2):  # by a connection that there is, and by a new one
                began = time.monotonic()
                with pytest.raises(StoreAway, match="no answer in time"):
                    await ask(store, row(1))
                assert time.monotonic() - began < 2.0
            await store.close()
            assert time.monotonic() - began < 3.5


async def test_tls_and_a_password(tls, pki, monkeypatch):
    monkeypatch.setenv("STORE_PASSWORD", "open sesame")
    with tls("server", "--tls-auth-clients", "no", "--requirepass", "open sesame") as port:
        good = over_tls(port, ca_file=pki / "ca.pem", password_env="STORE_PASSWORD")
        got = await asyncio.gather(*(ask(good, row(1, 1000 + n), caller=str(n)) for n in range(100)))
        assert sorted(overlap for ((overlap, _),) in got) == [0] + [1] * 99
        await good.close()
        assert "password" in await refused(over_tls(port, ca_file=pki / "ca.pem"))
