"""Good inputs to begin with, by target."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from guard import events
from guard.wire import messages
from tests import forensics
from tests.wire.test_messages import answer, typical

_DOCS = Path(__file__).parents[2]


def _requests() -> Iterator[bytes]:
    for raw in (True, False):
        yield typical(raw).SerializeToString()
        for dtype in (np.float32, np.uint8, np.int64, np.bool_):
            x = np.zeros((2, 3), dtype)
            yield messages.build_request("m", {"x": x, "z": x}, version="1", raw=raw)


def _images() -> Iterator[bytes]:
    for mode, size in (("RGB", (16, 16)), ("L", (16, 16)), ("RGB", (9, 40)), ("P", (16, 16)), ("RGBA", (16, 16))):
        for kind in ("PNG", "JPEG"):
            if kind == "JPEG" and mode in {"P", "RGBA"}:
                continue
            out = io.BytesIO()
            Image.new(mode, size, 7).save(out, kind)
            yield out.getvalue()


def _heads() -> Iterator[bytes]:
    common = ":method=POST\n:scheme=http\n:path=/inference.GRPCInferenceService/ModelInfer\n:authority=a\nte=trailers"
    common += "\ncontent-type=application/grpc"
    yield common.encode()
    for more in ("grpc-timeout=1S", "grpc-encoding=gzip\ngrpc-accept-encoding=identity,gzip", "x-bin=YWJj,ZGVm", "a=b"):
        yield f"{common}\n{more}".encode()


def _forms() -> Iterator[bytes]:
    yield from (b"100m", b"99999999H", b"YWJj", b"YWI=,YQ==", b"a%20b%e4")
    yield b"g1:1:60:1700000000:00ffffffffffffff:00112233445566778899aabbccddeeff:" + b"ab" * 32 + b":1,2,3"


def _who() -> Iterator[bytes]:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIiwiYXVkIjoiYSIsImV4cCI6OTk5OTk5OTk5OX0.AAAA"
    for address in ("ipv4:127.0.0.1:1", "ipv6:%5B::1%5D:1", "unix:/a"):
        yield f"{address}\0spiffe://a/b\0x-user=alice\nx-tenant=t\nauthorization=Bearer {token}".encode()
        yield f"{address}\0\0x-user=bob".encode()


def _settings() -> Iterator[bytes]:
    for file in sorted((_DOCS / "deploy").glob("*.yaml")):
        yield file.read_bytes()
    yield b"upstream: {address: 'a:1'}\nmodels: [{name: m, mode: shadow, policy: {on_hostile: deny}}]\n"
    yield b"history: {store: valkey, valkey: {addresses: ['a:1'], timeout_s: 0.1}}\nlimits: {max_rows: 8}\n"


def _keys() -> Iterator[bytes]:
    yield b"# names\nalice " + b"ab" * 32 + b"\n"
    yield b'{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "x": "AA", "y": "AA"}]}'
    yield b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'


def _recordings() -> Iterator[bytes]:
    yield events.render(events.Forgiven(1_700_000_000.0, "c", "m")).encode()
    for event in forensics.story():
        yield events.render(event).encode()


def _profiles() -> Iterator[bytes]:
    from tests.fuzz import targets

    yield b"0" + targets._DOCUMENT
    out = io.BytesIO()
    np.savez(out, **{"detector/a": np.zeros(3)})
    yield b"1" + out.getvalue()


SEEDS = {
    "request": _requests,
    "division": _requests,
    "answer": lambda: iter([answer(raw).SerializeToString() for raw in (True, False)]),
    "image": _images,
    "head": _heads,
    "forms": _forms,
    "who": _who,
    "settings": _settings,
    "keys": _keys,
    "recording": _recordings,
    "profile": _profiles,
}
