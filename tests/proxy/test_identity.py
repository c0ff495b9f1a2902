"""Who is taken for whom, and above all who is not."""

import base64
import hashlib
import hmac
import json
import time
from collections import Counter
from functools import partial

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from guard.proxy import identity, jwt_keys
from guard.proxy.identity import MAX_IDENTITY, Caller, Chain
from guard.proxy.jwt_keys import InvalidToken, Tokens, parse_keys
from guard.proxy.peers import Peers, ip_of, is_unix
from guard.proxy.seam import Call, Peer
from guard.settings import ConfigError, Identity, JwtIdentity

SECRET = b"0123456789abcdef"
EC = ec.generate_private_key(ec.SECP256R1())
EC_OTHER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()


def call(*metadata, peer: str = "ipv4:10.0.0.1:4711", **auth) -> Call:
    return Call("/a/B", tuple(metadata), None, Peer(peer, auth))


def chain(*sources, secret: bytes = SECRET) -> tuple[Chain, Counter]:
    counts: Counter[str] = Counter()
    return Chain(Identity(chain=sources), secret, lambda word: counts.update([word])), counts


def who(source: dict, *args, **kwargs) -> tuple[str | None, dict[str, int]]:
    """The identity that one source gives, and what was counted."""
    made, counts = chain(source)
    caller = made.caller(call(*args, **kwargs))
    return caller and caller.id, dict(counts)


def pem(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


# --- peers


@pytest.mark.parametrize(
    ("address", "ip"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:[::1]:4711", "::1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:%5B2001:db8::1%5D:1", "2001:db8::1"),
        ("ipv6:[fe80::1%eth0]:1", "fe80::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::1"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:1", "10.0.0.1"),
        ("unix:/run/guard.sock", None),
        ("unix:", None),
        ("ipv4:nonsense:1", None),
        ("ipv4:", None),
        ("", None),
    ],
)
def test_ip_of(address, ip):
    found = ip_of(address)
    assert (found and str(found)) == ip


@given(st.text())
def test_ip_of_takes_anything(address):
    ip_of(address)
    ip_of("ipv6:" + address)
    assert "x" not in Peers(("10.0.0.0/8",)) or address


def test_peers():
    peers = Peers(("10.0.0.0/8", "2001:db8::/32"))
    assert "ipv4:10.1.2.3:1" in peers
    assert "ipv6:%5B2001:db8::7%5D:1" in peers
    assert "ipv6:%5B::ffff:10.1.2.3%5D:1" in peers
    assert "ipv4:11.0.0.1:1" not in peers
    assert "unix:/run/x" not in peers
    assert 7 not in peers
    assert "unix:/run/x" in Peers(("unix",))
    assert "unix-abstract:x" in Peers(("unix",))
    assert "ipv4:10.0.0.1:1" not in Peers(("unix",))
    assert not is_unix("ipv4:10.0.0.1:1")


@pytest.mark.parametrize(
    ("address", "prefix", "identity"),
    [
        ("ipv4:10.0.0.1:4711", 64, "peer:10.0.0.1"),
        ("ipv6:%5B2001:db8::1:2%5D:4711", 64, "peer:2001:db8::/64"),
        ("ipv6:%5B2001:db8::ffff:9%5D:1", 64, "peer:2001:db8::/64"),
        ("ipv6:%5B2001:db8::1%5D:1", 128, "peer:2001:db8::1/128"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:1", 64, "peer:10.0.0.1"),
        ("unix:/run/guard.sock", 64, "peer:unix"),
        ("unknown", 64, None),
    ],
)
def test_peer(address, prefix, identity):
    found, _ = who({"kind": "peer", "ipv6_prefix": prefix}, peer=address)
    assert found == identity


# --- certificates


@pytest.mark.parametrize(
    ("ids", "identity"),
    [
        ((b"spiffe://example.org/ns/prod/sa/app",), "spiffe:spiffe://example.org/ns/prod/sa/app"),
        ((b"spiffe://example.org/a", b"spiffe://example.org/b"), None),
        ((b"spiffe://example.org",), None),
        ((b"spiffe://example.org/",), None),
        ((b"spiffe://EXAMPLE.org/a",), None),
        ((b"spiffe://example.org/a b",), None),
        ((b"spiffe://example.org/a\n",), None),
        ((b"https://example.org/a",), None),
        ((b"spiffe://example.org/\xff",), None),
    ],
)
def test_spiffe(ids, identity):
    found, counts = who({"kind": "spiffe"}, peer_spiffe_id=ids)
    assert found == identity
    assert counts == ({"spiffe": 1} if identity else {"spiffe_invalid": 1, "none": 1})


def test_spiffe_trusts_one_domain():
    source = {"kind": "spiffe", "trust_domain": "example.org"}
    assert who(source, peer_spiffe_id=(b"spiffe://example.org/a",))[0] == "spiffe:spiffe://example.org/a"
    assert who(source, peer_spiffe_id=(b"spiffe://example.org.evil.com/a",))[0] is None
    assert who(source, peer_spiffe_id=(b"spiffe://evil.com/example.org",))[0] is None


def test_spiffe_does_not_believe_other_names():
    names = {"x509_subject_alternative_name": (b"spiffe://example.org/a",), "peer_dns": (b"spiffe://example.org/a",)}
    assert who({"kind": "spiffe"}, **names) == (None, {"none": 1})


def test_subject():
    source = {"kind": "mtls_subject"}
    assert who(source, x509_common_name=(b"alice",))[0] == "cn:alice"
    assert who(source, x509_common_name=(b"alice", b"bob"))[0] is None
    assert who(source, x509_common_name=(b"",))[0] is None
    assert who(source)[0] is None


# --- API keys


def test_api_key_is_hashed_with_the_secret():
    source, header = {"kind": "api_key"}, ("x-api-key", "key-1")
    first, _ = who(source, header)
    assert first is not None
    assert first.startswith("key:")
    assert "key-1" not in first
    assert who(source, header)[0] == first
    assert who(source, ("x-api-key", "key-2"))[0] != first
    other, _ = chain(source, secret=b"another secret 16")
    assert other.caller(call(header)).id != first


def test_api_key_with_a_secret_of_any_length():
    made, _ = chain({"kind": "api_key"}, secret=b"x" * 1000)
    assert made.caller(call(("x-api-key", "k"))) is not None


def known_keys(tmp_path, **keys: str):
    path = tmp_path / "keys"
    lines = ["# the keys", "", *(f"{name}  {hashlib.sha256(key.encode()).hexdigest()}" for name, key in keys.items())]
    path.write_text("\n".join(lines))
    return path


def test_known_api_keys(tmp_path):
    source = {"kind": "api_key", "known_file": known_keys(tmp_path, alice="a-key", bob="b-key")}
    assert who(source, ("x-api-key", "b-key")) == ("key:bob", {"api_key": 1})
    assert who(source, ("x-api-key", "c-key")) == (None, {"api_key_unknown": 1, "none": 1})
    digest = hashlib.sha256(b"a-key").hexdigest()
    assert who(source, ("x-api-key", digest))[0] is None, "the stored digest is no key"


def test_every_entry_is_compared(tmp_path, monkeypatch):
    source = {"kind": "api_key", "known_file": known_keys(tmp_path, a="1", b="2", c="3")}
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(1) or real(a, b))
    assert who(source, ("x-api-key", "1"))[0] == "key:a"
    assert len(compared) == 3


def test_a_withdrawn_api_key_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "Reloading", partial(identity.Reloading, every_s=0.0))
    made, _ = chain({"kind": "api_key", "known_file": known_keys(tmp_path, alice="a-key")})
    assert made.caller(call(("x-api-key", "a-key"))).id == "key:alice"
    known_keys(tmp_path, bob="b-key")
    assert made.caller(call(("x-api-key", "a-key"))) is None
    assert made.caller(call(("x-api-key", "b-key"))).id == "key:bob"


@pytest.mark.parametrize("line", ["alice", "alice abc", "alice " + "0" * 63, "a b " + "0" * 64, "alice " + "g" * 64])
def test_a_bad_line_of_known_keys_is_named_by_its_number(tmp_path, line):
    path = tmp_path / "keys"
    path.write_text(f"# keys\n{line}\n")
    with pytest.raises(ConfigError, match="line 2") as error:
        chain({"kind": "api_key", "known_file": path})
    assert line not in str(error.value)


# --- headers


HEADER = {"kind": "header", "header": "X-Forwarded-User", "trusted_peers": ("10.0.0.0/8", "unix")}


def test_header_from_a_trusted_peer():
    assert who(HEADER, ("x-forwarded-user", " alice ")) == ("header:alice", {"header": 1})
    assert who(HEADER, ("x-forwarded-user", "alice"), peer="unix:")[0] == "header:alice"


def test_header_from_anyone_else_is_not_believed():
    found, counts = who(HEADER, ("x-forwarded-user", "alice"), peer="ipv4:192.0.2.1:1")
    assert (found, counts) == (None, {"header_untrusted": 1, "none": 1})


def test_bad_range_is_a_config_error():
    with pytest.raises(ConfigError, match=r"identity\.chain\.1\.trusted_peers"):
        chain({"kind": "peer"}, {"kind": "header", "header": "x", "trusted_peers": ("10.0.0.1/8",)})


@pytest.mark.parametrize("value", ["", "  ", b"alice"])
def test_a_header_without_text_is_absent(value):
    assert who(HEADER, ("x-forwarded-user", value)) == (None, {"none": 1})


@pytest.mark.parametrize(
    ("source", "key", "word"),
    [
        (HEADER, "x-forwarded-user", "header_ambiguous"),
        ({"kind": "api_key"}, "x-api-key", "api_key_ambiguous"),
    ],
)
def test_several_values_are_ambiguous(source, key, word):
    assert who(source, (key, "alice"), (key, "alice"))[1] == {word: 1, "none": 1}


def test_long_identities_are_hashed():
    longest, _ = who(HEADER, ("x-forwarded-user", "a" * MAX_IDENTITY))
    assert longest == "header:" + "a" * MAX_IDENTITY
    hashed, _ = who(HEADER, ("x-forwarded-user", "a" * (MAX_IDENTITY + 1)))
    assert hashed == "header:sha256:" + hashlib.sha256(b"a" * (MAX_IDENTITY + 1)).hexdigest()


# --- JWT


def jwk(key, kid: str | None, **extra) -> dict:
    name = {ec.EllipticCurvePrivateKey: "ES256", rsa.RSAPrivateKey: "RS256", ed25519.Ed25519PrivateKey: "EdDSA"}
    algorithm = next(alg for kind, alg in name.items() if isinstance(key, kind))
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    public = {k: v for k, v in public.items() if k != "key_ops"}
    return {**public, **({} if kid is None else {"kid": kid}), **extra}


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(EC, "ec"), jwk(RSA, "rsa"), jwk(ED, "ed", alg="EdDSA", use="sig")]}))
    return path


def token(key=EC, algorithm="ES256", kid: str | None = "ec", **claims) -> str:
    payload = {"sub": "alice", "exp": time.time() + 600, **claims}
    payload = {k: v for k, v in payload.items() if v is not None}
    return jwt.encode(payload, key, algorithm, {} if kid is None else {"kid": kid})


def by_jwt(keys, text: str, **options) -> tuple[str | None, dict[str, int]]:
    return who({"kind": "jwt", "keys_file": keys, **options}, ("authorization", text))


REFUSED = (None, {"jwt_invalid": 1, "none": 1})


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(EC, "ES256", "ec"), (RSA, "RS256", "rsa"), (ED, "EdDSA", "ed")])
def test_jwt(keys, key, algorithm, kid):
    assert by_jwt(keys, f"Bearer {token(key, algorithm, kid)}") == ("jwt:alice", {"jwt": 1})


def test_jwt_without_the_prefix_and_in_another_header(keys):
    source = {"kind": "jwt", "keys_file": keys, "header": "X-Jwt"}
    assert who(source, ("x-jwt", token()))[0] == "jwt:alice"
    assert who(source, ("authorization", token()))[0] is None


def forged_with_public_key_as_hmac_secret() -> str:
    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps({"sub": "a", "exp": 2**40}).encode())
    return (head + b"." + part(hmac.digest(pem(EC), head, "sha256"))).decode()


def unsigned() -> str:
    return jwt.encode({"sub": "alice", "exp": 2**40}, None, "none")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "a.b.c",
        "Bearer ",
        unsigned(),
        forged_with_public_key_as_hmac_secret(),
        token(EC_OTHER),
        token(kid="unknown"),
        token(kid=None),
        token(kid="rsa"),
        token(RSA, "RS512", "rsa"),
        token(RSA, "PS256", "rsa"),
        token(exp=None),
        token(exp=time.time() - 60),
        token(exp="soon"),
        token(nbf=time.time() + 600),
        token(sub=None),
        token(sub=""),
        token(sub=["alice"]),
        token(sub="x" * jwt_keys.MAX_TOKEN),
        token()[:-4] + "AAAA",
        "x" * (jwt_keys.MAX_TOKEN + 1),
        "\ud800",
    ],
)
def test_jwt_that_proves_nothing(keys, text):
    found, counts = by_jwt(keys, text)
    assert found is None
    assert counts in ({"jwt_invalid": 1, "none": 1}, {"none": 1})


def test_several_tokens_are_ambiguous(keys):
    header = ("authorization", token())
    assert who({"kind": "jwt", "keys_file": keys}, header, header)[1] == {"jwt_ambiguous": 1, "none": 1}


def test_issuer_and_audience(keys):
    asked = {"issuer": "https://idp", "audience": "guard"}
    assert by_jwt(keys, token(iss="https://idp", aud=["x", "guard"]), **asked)[0] == "jwt:alice"
    for claims in ({"iss": "https://evil", "aud": "guard"}, {"iss": "https://idp", "aud": "x"}, {"aud": "guard"}, {}):
        assert by_jwt(keys, token(**claims), **asked) == REFUSED
    assert by_jwt(keys, token(aud="whatever"))[0] == "jwt:alice", "nothing was asked of the audience"


def nested(depth: int) -> str:
    """A token whose head is JSON in JSON in JSON."""
    return base64.urlsafe_b64encode(b"[" * depth).decode() + ".e30.AA"


@pytest.mark.parametrize("text", [nested(10_000), token(exp=10**400), token(nbf=10**400), token(exp=True)])
def test_tokens_that_break_parsers(keys, text):
    assert by_jwt(keys, text) == REFUSED


def test_another_claim(keys):
    assert by_jwt(keys, token(client_id="c1"), claim="client_id")[0] == "jwt:c1"
    assert by_jwt(keys, token(client_id=7), claim="client_id") == REFUSED
    assert by_jwt(keys, token(), claim="client_id") == REFUSED


def test_a_single_pem_key(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(pem(EC))
    assert by_jwt(path, token(kid=None))[0] == "jwt:alice"
    assert by_jwt(path, token(kid="any"))[0] == "jwt:alice"
    assert by_jwt(path, token(EC_OTHER, kid=None)) == REFUSED
    assert by_jwt(path, forged_with_public_key_as_hmac_secret()) == REFUSED


def test_a_key_is_for_its_own_algorithm_only(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(RSA, "rsa", alg="RS256")]}))
    both = {"algorithms": ("RS256", "PS256")}
    assert by_jwt(path, token(RSA, "RS256", "rsa"), **both)[0] == "jwt:alice"
    assert by_jwt(path, token(RSA, "PS256", "rsa"), **both) == REFUSED


def test_a_single_jwk_needs_no_id(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(EC, "one"), jwk(RSA, "two", use="enc")]}))
    assert by_jwt(path, token(kid=None))[0] == "jwt:alice"
    assert by_jwt(path, token(kid="other")) == REFUSED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "neither"),
        ("[]", "neither"),
        ('{"keys": 7}', "neither"),
        ('{"keys": [7]}', "neither"),
        ('{"keys": []}', "0 signing keys"),
        (json.dumps({"keys": [{}] * 101}), "101 signing keys"),
        (json.dumps({"keys": [jwk(EC, "a"), jwk(RSA, "a")]}), "the same"),
        (json.dumps({"keys": [jwk(EC, None), jwk(RSA, None)]}), "or none"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "secret key"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "d": "x"}]}', "secret key"),
        ('{"keys": [{"kty": "RSA"}]}', "cannot be used"),
        ('{"keys": [{"kty": "EC", "crv": "P-9", "x": "AA", "y": "AA"}]}', "cannot be used"),
        ("-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----", "PEM"),
    ],
)
def test_bad_keys(tmp_path, text, complaint):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        chain({"kind": "jwt", "keys_file": path})
    with pytest.raises(ValueError):
        parse_keys(text.encode())


class Wall:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def verified(monkeypatch):
    """Counts real verifications."""
    counted = []
    real = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *a, **k: counted.append(1) or real(*a, **k))
    return counted


def tokens_of(keys, now) -> Tokens:
    return Tokens(JwtIdentity(kind="jwt", keys_file=keys), now)


def test_a_verified_token_is_verified_once(keys, verified):
    wall = Wall()
    tokens, text = tokens_of(keys, wall), token()
    assert [tokens.claim(text) for _ in range(3)] == ["alice"] * 3
    assert len(verified) == 1


def test_a_kept_token_expires(keys, verified):
    wall = Wall()
    tokens, text = tokens_of(keys, wall), token(exp=time.time() + 100)
    tokens.claim(text)
    wall.now += 100 + jwt_keys.LEEWAY_S + 1
    tokens.claim(text)  # jwt has its own clock, for which it is still good
    assert len(verified) == 2


def test_bad_tokens_are_not_kept(keys, verified):
    tokens, text = tokens_of(keys, Wall()), token(EC_OTHER)
    for _ in range(2):
        with pytest.raises(InvalidToken):
            tokens.claim(text)
    assert len(verified) == 2


def test_kept_tokens_are_bounded(keys, verified, monkeypatch):
    monkeypatch.setattr(jwt_keys, "MAX_CACHED", 2)
    tokens = tokens_of(keys, Wall())
    texts = [token(sub=name) for name in "abc"]
    assert [tokens.claim(text) for text in texts] == ["a", "b", "c"]
    tokens.claim(texts[1])
    tokens.claim(texts[2])
    assert len(verified) == 3
    tokens.claim(texts[0])
    assert len(verified) == 4


def test_what_a_withdrawn_key_signed_counts_no_more(keys, tmp_path):
    tokens, text = tokens_of(keys, Wall()), token()
    assert tokens.claim(text) == "alice"
    keys.write_text(json.dumps({"keys": [jwk(EC_OTHER, "ec")]}))
    tokens._file._next = 0.0
    with pytest.raises(InvalidToken):
        tokens.claim(text)
    assert tokens.claim(token(EC_OTHER)) == "alice"


# --- the chain


def test_the_first_source_that_knows_wins():
    made, counts = chain({"kind": "spiffe"}, {"kind": "api_key"}, {"kind": "peer"})
    key = ("x-api-key", "k")
    assert made.caller(call(key, peer_spiffe_id=(b"spiffe://td/a",))) == Caller("spiffe:spiffe://td/a", "spiffe")
    assert made.caller(call(key)).source == "api_key"
    assert made.caller(call()) == Caller("peer:10.0.0.1", "peer")
    assert counts == {"spiffe": 1, "api_key": 1, "peer": 1}


def test_a_bad_credential_falls_to_the_next_source(keys):
    made, counts = chain({"kind": "jwt", "keys_file": keys}, {"kind": "peer"})
    assert made.caller(call(("authorization", token(EC_OTHER)))).id == "peer:10.0.0.1"
    assert counts == {"jwt_invalid": 1, "peer": 1}


def test_nobody_knows():
    made, counts = chain({"kind": "mtls_subject"})
    assert made.caller(call()) is None
    assert counts == {"none": 1}


def test_sources_cannot_be_taken_for_each_other():
    header = who(HEADER, ("x-forwarded-user", "10.0.0.1"))[0]
    assert header != who({"kind": "peer"})[0]
