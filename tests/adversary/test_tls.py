import pytest

from adversary import tls
from adversary.tls import TlsError
from tests.proxy.certs import Authority


@pytest.fixture(scope="module")
def ca():
    return Authority()


@pytest.fixture
def files(tmp_path, ca):
    """What a client needs, and a key that is another's."""
    ca.leaf("client").write(tmp_path, "client")
    ca.leaf("other").write(tmp_path, "other")
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    (tmp_path / "none.crt").write_text("not PEM")
    return tmp_path


def test_files_are_read_once(files, ca):
    made = tls.read(files / "ca.crt", files / "client.crt", files / "client.key", "a.name")
    key = (files / "client.key").read_bytes()
    for file in files.iterdir():
        file.unlink()
    assert (made.ca, made.key, made.server_name) == (ca.pem, key, "a.name")
    assert made.options == (("grpc.ssl_target_name_override", "a.name"),)


def test_a_key_is_never_shown(files):
    made = tls.read(files / "ca.crt", files / "client.crt", files / "client.key")
    assert "PRIVATE" in made.key.decode()
    assert "PRIVATE" not in repr(made)


def test_without_an_authority_it_is_the_systems(files, ca, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.crt"))
    assert tls.read().ca == ca.pem
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "away.crt"))
    assert tls.read().ca != ca.pem


@pytest.mark.parametrize(
    ("names", "name", "message"),
    [
        (("away.crt", None, None), "ca", r"cannot read .*away\.crt: No such file"),
        (("none.crt", None, None), "ca", r"none\.crt holds no PEM certificate"),
        (("ca.crt", "client.crt", None), "key", "go together"),
        (("ca.crt", None, "client.key"), "cert", "go together"),
        (("ca.crt", "away.crt", "client.key"), "cert", "cannot read"),
        (("ca.crt", "none.crt", "client.key"), "cert", "no PEM certificate"),
        (("ca.crt", "client.crt", "away.key"), "key", "cannot read"),
        (("ca.crt", "client.crt", "client.crt"), "key", "no PEM private key"),
        (("ca.crt", "client.crt", "other.key"), "key", r"other\.key does not belong to the certificate .*client\.crt"),
    ],
)
def test_what_cannot_be_used_is_named(files, names, name, message):
    with pytest.raises(TlsError, match=message) as caught:
        tls.read(*(None if file is None else files / file for file in names))
    assert caught.value.name == name
