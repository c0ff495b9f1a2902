"""What is fuzzed. A target takes bytes, and raises only where Guard does what it must not.

Any bytes end in a value or in the error that the function names. What was read must hold what its readers rely on.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from guard import config, kernels, puzzles, recorded
from guard.profile import ProfileError, load_profile, metadata_digest
from guard.proxy import headers
from guard.proxy.challenges import purse_of
from guard.proxy.fast import codec, heads
from guard.proxy.identity import Chain, Cohorts, parse_known_keys
from guard.proxy.jwt_keys import parse_keys
from guard.proxy.seam import Call, Metadata, Peer
from guard.settings import ConfigError, Identity
from guard.types import InvalidQuery, ModelMetadata, TensorSpec
from guard.wire import classes, images, messages, scan
from guard.wire.messages import Inference, InvalidAnswer

Target = Callable[[bytes], None]
MAX_ROWS, MAX_ELEMENTS = 8, 4096
MAX_PIXELS, MAX_BYTES = 64 * 64, 4096
LONGEST_ERROR = 400


class Wrong(AssertionError):
    """Guard did what it must not."""


def _hold(condition: object, what: str) -> None:
    if not condition:
        raise Wrong(what)


def _fit_to_be_seen(error: ValueError) -> None:
    text = str(error)
    _hold(text.isprintable() and 0 < len(text) < LONGEST_ERROR, f"no text for a caller: {text!r:.300}")


# --- the wire


def request(data: bytes) -> None:
    """An inference request, read both ways, and written again."""
    try:
        read: Inference | None = messages.parse_request(data, max_rows=MAX_ROWS, max_elements=MAX_ELEMENTS)
    except InvalidQuery as error:
        _fit_to_be_seen(error)
        read = None
    try:
        light = messages.parse_light(data, max_rows=MAX_ROWS, max_elements=MAX_ELEMENTS)
    except InvalidQuery:
        light = None
        _hold(read is None, "only the short way finds it invalid")
    _hold(light is None or read is not None, "only the long way finds it invalid")
    if read is None:
        return
    messages.hidden_parameters(read)
    messages.request_id(data)
    _hold(read.rows is None or read.rows <= MAX_ROWS, "too many rows")
    for name, x in read.tensors.items():
        _hold(x.size <= MAX_ELEMENTS, "too many elements")
        _hold(light is None or _same(light.tensors[name], x), "two ways, two tensors")
        again = messages.replace_input(read, name, x)
        reread = messages.parse_request(again, max_rows=MAX_ROWS, max_elements=MAX_ELEMENTS)
        _hold(_same(reread.tensors[name], x), "what was written is not what was read")
    try:
        classes.widen(read, "y", 10)
        messages.want_output(data, "y")
    except InvalidQuery as error:
        _fit_to_be_seen(error)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() if a.dtype != object else _eq(a, b)


def _eq(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.ravel().tolist() == b.ravel().tolist()


def division(data: bytes) -> None:
    """Fields, found by the kernel and by its twin; the message, divided by either."""
    _hold(kernels.compiled is not None, "there is no kernel to compare with")
    _hold(_found(data) == _without_kernel(_found, data), "the kernel finds other fields than its twin")
    _hold(_divided(data) == _without_kernel(_divided, data), "the kernel divides otherwise than its twin")


def _found(data: bytes) -> object:
    try:
        return [tuple(field) for field in scan.fields(data, 0, len(data))]
    except InvalidQuery as error:
        return str(error)


def _divided(data: bytes) -> object:
    try:
        rest, contents = scan.divide(data)
    except InvalidQuery as error:
        return str(error)
    return bytes(rest), [bytes(one) for one in contents]


def _without_kernel(read: Callable[[bytes], object], data: bytes) -> object:
    compiled, kernels.compiled = kernels.compiled, None
    try:
        return read(data)
    finally:
        kernels.compiled = compiled


def answer(data: bytes) -> None:
    """An upstream's answer, read and written again; its metadata; its stream."""
    for parse in (messages.parse_metadata, _unwrap):
        with contextlib.suppress(InvalidAnswer):
            parse(data)
    try:
        outputs = messages.parse_response(data)
    except InvalidAnswer:
        return
    for name, y in outputs.items():
        again = messages.replace_output(data, name, y)
        _hold(_same(messages.parse_response(again)[name], y), "what was written is not what was read")


def _unwrap(data: bytes) -> None:
    for dialect in ("triton", "mlserver"):
        messages.unwrap_stream(data, dialect)  # type: ignore[arg-type]


def image(data: bytes) -> None:
    """A JPEG or PNG."""
    try:
        decoded, formats = images.decode_images([data], (16, 16, 3), MAX_PIXELS, MAX_BYTES)
    except InvalidQuery as error:
        _fit_to_be_seen(error)
        return
    _hold(decoded.shape == (1, 16, 16, 3) and len(formats) == 1, "no image of this shape")


# --- what comes with a call


def _pairs(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("latin-1").split("\n")[:64]:
        key, _, value = line.partition("=")
        yield key, value


def head(data: bytes) -> None:
    """The headers of a call on the fast plane."""
    try:
        read = heads.read(_pairs(data))
    except heads.Refused:
        return
    try:
        metadata = headers.to_upstream(read.metadata)
    except InvalidQuery as error:
        _fit_to_be_seen(error)
        return
    _hold(not any(key.startswith((":", "grpc-timeout")) for key, _ in metadata), "a header of the hop travels on")
    purse_of(read.metadata, streams=False)
    _hold(read.timeout_s is None or read.timeout_s >= 0, "a negative deadline")


def forms(data: bytes) -> None:
    """gRPC's forms in headers, and proofs of work."""
    text = data.decode("latin-1")
    for read in (codec.timeout_s, codec.binary):
        with contextlib.suppress(ValueError):
            read(text)
    codec.unquoted(text)
    puzzles.read_puzzle(text)
    puzzles.read_proof(text)
    purse_of((("guard-proof", text),), streams=False)


def _chain() -> tuple[Chain, Cohorts]:
    directory = Path(tempfile.mkdtemp(prefix="guard-fuzz-"))
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    (directory / "key.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    chain = (
        {"kind": "spiffe"},
        {"kind": "mtls_subject"},
        {"kind": "jwt", "keys_file": str(directory / "key.pem"), "algorithms": ["ES256"], "audience": "a"},
        {"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.0/8"]},
        {"kind": "peer"},
    )
    groups = ({"kind": "network"}, {"kind": "header", "header": "x-tenant", "trusted_peers": ["127.0.0.0/8"]})
    settings = Identity.model_validate({"chain": chain, "cohorts": groups})
    return Chain(settings, b"0123456789abcdef0123456789abcdef"), Cohorts(settings)


@dataclass
class Who:
    """Who calls: by a certificate, a token, a forwarded header, an address."""

    made: tuple[Chain, Cohorts] | None = None

    def __call__(self, data: bytes) -> None:
        """The parts of the data stand for address, certificate names, and metadata."""
        if self.made is None:
            self.made = _chain()
        chain, cohorts = self.made
        address, _, rest = data.partition(b"\0")
        names, _, lines = rest.partition(b"\0")
        auth = {"x509_subject_alternative_name": (names,), "x509_common_name": (names,), "security_level": (b"x",)}
        metadata: Metadata = tuple(_pairs(lines))
        call = Call("/a/B", metadata, None, Peer(address.decode("latin-1"), auth if names else {}))
        found = chain.caller(call)
        _hold(found is None or (found.id and len(found.id) <= 400), f"an endless name: {found!r:.200}")
        _hold(found is None or found.source != "jwt", "a token that nobody has signed")
        _hold(all(len(group) < 400 for group in cohorts.of(call)), "an endless group")


# --- files of operators


def settings(data: bytes) -> None:
    """The settings' file."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    with contextlib.suppress(ConfigError):
        config.validate(config._parse(text))


def keys(data: bytes) -> None:
    """Keys of tokens, and of callers."""
    for parse in (parse_keys, parse_known_keys):
        with contextlib.suppress(ValueError):
            parse(data)


def recording(data: bytes) -> None:
    """A line of the audit log, as `guard backtest` and `guard explain` read it."""
    with contextlib.suppress(ValueError):
        recorded.parse(data)


@dataclass
class ProfileFile:
    """A profile: its document, and an archive beside it of which the document knows the digest."""

    directory: Path | None = None

    def __call__(self, data: bytes) -> None:
        """The first byte says which of the two is fuzzed."""
        if self.directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="guard-fuzz-", dir=_memory()))
        document, archive = (data[1:], b"") if data[:1] == b"0" else (_DOCUMENT, data[1:])
        if data[:1] != b"0":
            digest = hashlib.sha256(archive).hexdigest()
            document = json.dumps({**json.loads(_DOCUMENT), "files": {"calibration.npz": digest}}).encode()
        (self.directory / "profile.json").write_bytes(document)
        (self.directory / "calibration.npz").write_bytes(archive)
        with contextlib.suppress(ProfileError):
            load_profile(self.directory)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


_METADATA = ModelMetadata("m", ("1",), "", (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),))
_SPEC = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
_MODEL = {"name": "m", "versions": ["1"], "platform": "", "inputs": [_SPEC], "outputs": [{**_SPEC, "name": "y"}]}
_DOCUMENT = json.dumps(
    {
        "format": 2,
        "model": _MODEL,
        "metadata_digest": metadata_digest(_METADATA),
        "input": {"name": "x", "datatype": "FP32", "layout": "vector", "low": [0.0], "high": [1.0], "certain": True,
                  "image_shape": None},
        "output": {"name": "y", "meaning": "probabilities", "classes": 3},
        "stages": {},
        "networks": [],
        "notes": {},
        "files": {},
    }
).encode()  # fmt: skip

TARGETS: dict[str, Target] = {
    "request": request,
    "division": division,
    "answer": answer,
    "image": image,
    "head": head,
    "forms": forms,
    "who": Who(),
    "settings": settings,
    "keys": keys,
    "recording": recording,
    "profile": ProfileFile(),
}
