"""TLS and mutual TLS to a real Guard, from the oracle, the command line and a campaign; each with what must fail."""

import json

import numpy as np
import pytest
import yaml

from adversary import campaign, cli, tls, trace
from adversary.campaign import CampaignError
from adversary.oracle import Answered, Endpoint, Oracle, OracleError
from tests.proxy.certs import Authority
from tests.servers import guard
from tests.servers.models import digits_onnx, images

X = images(3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Certificates, as files: of an authority, a stranger, a server, a client, and a client of the stranger's."""
    directory = tmp_path_factory.mktemp("pki")
    ca, stranger = Authority(), Authority("stranger")
    (directory / "ca.crt").write_bytes(ca.pem)
    (directory / "stranger.crt").write_bytes(stranger.pem)
    ca.leaf("server", dns=("localhost",)).write(directory, "server")
    ca.leaf("client").write(directory, "client")
    stranger.leaf("client").write(directory, "other")
    return directory


def served(directory, files, **more):
    """A bare Guard with a model inside, behind TLS."""
    directory.mkdir()
    own = {"cert_file": str(files / "server.crt"), "key_file": str(files / "server.key"), **more}
    return guard.start(
        directory,
        {
            "listen": {"address": "localhost:0", "tls": own},
            "models": [{"name": "digits", "embedded": {"file": str(digits_onnx(directory / "digits.onnx"))}}],
            "identity": {"chain": [{"kind": "mtls_subject"}, {"kind": "peer"}]},
        },
    )


@pytest.fixture(scope="module")
def one_sided(files, tmp_path_factory):
    with served(tmp_path_factory.mktemp("guard") / "tls", files) as guarded:
        yield guarded


@pytest.fixture(scope="module")
def mutual(files, tmp_path_factory):
    more = {"client_ca_file": str(files / "ca.crt"), "require_client_cert": True}
    with served(tmp_path_factory.mktemp("guard") / "mtls", files, **more) as guarded:
        yield guarded


def by_number(guarded):
    """The address without the name that stands in the server's certificate."""
    return guarded.address.replace("localhost", "127.0.0.1")


def ask(address, protection):
    return Oracle(Endpoint(address, "digits", tls=protection, timeout_s=1.0), 10)


def answers(address, protection):
    with ask(address, protection) as oracle:
        return isinstance(oracle.query(X), Answered)


def fails(address, protection, message):
    with pytest.raises(OracleError, match=f"gave no metadata of 'digits': UNAVAILABLE: {message}"):
        ask(address, protection).__enter__()
    return True


def test_tls(one_sided, files):
    assert answers(one_sided.address, tls.read(files / "ca.crt"))
    assert answers(by_number(one_sided), tls.read(files / "ca.crt", server_name="localhost"))


def test_what_tls_must_refuse(one_sided, files):
    assert fails(one_sided.address, None, "")
    assert fails(one_sided.address, tls.read(files / "stranger.crt"), ".*CERTIFICATE_VERIFY_FAILED")
    assert fails(by_number(one_sided), tls.read(files / "ca.crt", server_name="elsewhere"), ".*Hostname Verification")


def test_the_systems_authorities(one_sided, files, monkeypatch):
    assert fails(one_sided.address, tls.read(), ".*CERTIFICATE_VERIFY_FAILED")
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.crt"))
    assert answers(one_sided.address, tls.read())


def client(files, name="client"):
    return tls.read(files / "ca.crt", files / f"{name}.crt", files / f"{name}.key")


def test_mutual_tls(mutual, files):
    assert answers(mutual.address, client(files))


def test_what_mutual_tls_must_refuse(mutual, files):
    assert fails(mutual.address, None, "")
    assert fails(mutual.address, tls.read(files / "ca.crt"), "")
    assert fails(mutual.address, client(files, "other"), "")


def flags(files, **more):
    given = {"ca": files / "ca.crt", "cert": files / "client.crt", "key": files / "client.key", **more}
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]


def test_the_command_line(mutual, files, tmp_path, capsys):
    """Both commands have the options; `trace` needs no data. Refused, it says why and not a word of the key."""
    recorder = trace.Recorder()
    with ask(mutual.address, client(files)) as oracle:
        oracle.listeners.append(recorder)
        oracle.query(X)
    trace.save(recorder.trace(), tmp_path / "t.jsonl")
    command = ["trace", str(tmp_path / "t.jsonl"), "--model-name", "digits", "--json", "--target"]
    assert cli.main([*command, mutual.address, *flags(files)]) == 0
    assert json.loads(capsys.readouterr().out)["refused_now"]["hits"] == 0
    assert cli.main([*command, by_number(mutual), *flags(files), "--server-name", "localhost"]) == 0
    capsys.readouterr()
    assert cli.main([*command, mutual.address, *flags(files, key=None)]) == 2
    assert "go together" in capsys.readouterr().err
    assert cli.main([*command, mutual.address, *flags(files, cert=files / "away.crt")]) == 2
    assert "--cert: cannot read" in capsys.readouterr().err
    assert cli.main([*command, mutual.address, *flags(files, cert=files / "other.crt")]) == 2
    said = capsys.readouterr().err
    assert "--key: " in said
    assert "PRIVATE" not in said


@pytest.fixture
def victims(mutual, files, tmp_path):
    """Images, and what the model makes of them."""
    x = images(24, seed=5)
    with Oracle(Endpoint(mutual.address, "digits", tls=client(files)), len(x)) as oracle:
        np.savez(tmp_path / "x.npz", x=x, y=oracle.labels(x))
    return tmp_path / "x.npz"


def written(tmp_path, mutual, data, **protection):
    target = {"address": mutual.address, "tls": protection}
    tree = {
        "name": "mutual",
        "victims": 2,
        "data": {"kind": "npz", "file": str(data)},
        "model": {"name": "digits"},
        "targets": {"guarded": target, "control": target},
        "benign": {"images": 4, "callers": 2, "every": 0},
        "attacks": [{"attack": "square", "budget": 20}],
    }
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_campaign(mutual, files, victims, tmp_path, capsys):
    """Its files lie beside it, and no key is in its report."""
    for name in ("ca.crt", "client.crt", "client.key"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    path = written(tmp_path, mutual, victims, ca="ca.crt", cert="client.crt", key="client.key")
    assert cli.main(["replay", str(path), "--out", str(tmp_path / "out"), "--jobs", "2"]) == 0
    made = json.loads((tmp_path / "out" / "report.json").read_text())
    assert made["attacks"][0]["guarded"]["success"]["n"] == 2
    body = (tmp_path / "client.key").read_text().splitlines()[1]
    written_to = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(written_to) > 5
    assert not any(body.encode() in file.read_bytes() for file in written_to)


def test_a_campaign_whose_files_are_away(mutual, files, victims, tmp_path, capsys):
    path = written(tmp_path, mutual, victims, ca="away.crt")
    assert cli.main(["replay", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "targets.control.tls.ca: cannot read" in capsys.readouterr().err


def test_a_campaigns_bad_certificate_is_named(files):
    pair = {"cert": files / "client.key", "key": files / "client.key"}
    target = campaign.Target(address="a:1", tls={"ca": files / "ca.crt", **pair})
    with pytest.raises(CampaignError, match="no PEM certificate") as caught:
        campaign.protection("guarded", target)
    assert caught.value.path == "targets.guarded.tls.cert"
