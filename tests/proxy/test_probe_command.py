"""`guard probe` against a running Guard: what it says, how it ends, and over TLS with certificates both ways."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from guard import cli
from guard.proxy import tls
from guard.settings import ServerTls
from tests.proxy.certs import Authority
from tests.servers import guard
from tests.servers.process import free_port


def probe(*arguments: str) -> int:
    return cli.main(["probe", *arguments])


def test_what_serves_and_what_does_not(digits_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    away = {"name": "away", "upstream": {"address": f"127.0.0.1:{free_port()}"}}
    here = {"name": "digits", "embedded": {"file": str(digits_file)}}
    with guard.start(tmp_path, {"models": [here, away]}) as served:
        at = ("--address", served.address, "--timeout-s", "60")
        assert probe(*at, "--model", "digits") == 0
        assert capsys.readouterr().out == "SERVING\n"
        assert probe(*at, "--model", "away") == 1
        assert capsys.readouterr().out == "NOT_SERVING\n"
        assert probe(*at) == 1  # all of it
        assert probe(*at, "--model", "no such model") == 1
        assert capsys.readouterr().err == f"guard probe: {served.address}: NOT_FOUND\n"


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert probe("--address", address) == 1
    assert capsys.readouterr().err == f"guard probe: {address}: UNAVAILABLE\n"


def test_with_certificates_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TLS as Guard's listener has it; that a probe is answered is tested above."""
    ca = Authority()
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    cert, key = ca.leaf("guard", dns=("guard.example",)).write(tmp_path, "guard")
    own = [str(file) for file in ca.leaf("prober").write(tmp_path, "prober")]
    settings = ServerTls(cert_file=cert, key_file=key, client_ca_file=tmp_path / "ca.pem", require_client_cert=True)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(settings))
    server.start()
    try:
        at = ["--address", f"127.0.0.1:{port}", "--timeout-s", "60", "--ca", str(tmp_path / "ca.pem")]
        named = [*at, "--server-name", "guard.example"]
        assert probe(*named, "--cert", own[0], "--key", own[1]) == 0
        assert capsys.readouterr().out == "SERVING\n"
        assert probe(*named) == 1  # no certificate of its own
        assert probe(*at, "--cert", own[0], "--key", own[1]) == 1  # not the name that was asked for
        assert capsys.readouterr().err.count("UNAVAILABLE") == 2
    finally:
        server.stop(None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cert", "a.pem", "--key", "b.pem"], "--ca: is needed for TLS"),
        (["--server-name", "guard"], "--ca: is needed for TLS"),
        (["--ca", "a.pem", "--cert", "b.pem"], "--cert: and --key go together"),
        (["--ca", "gone.pem"], "gone.pem: cannot be read: No such file or directory"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe(*arguments) == 2
    assert said in capsys.readouterr().err
