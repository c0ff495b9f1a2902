"""What `guard fit` learned of one served model: plain data in a directory.

    profile.json      input layout and bounds, output meaning, stages and their options, where it all came from
    calibration.npz   one float64 array a stage: its scores on clean inputs; of detectors in the order of the rows,
                      which are the same for all of them
    learned.npz       what stages learned, STAGE/NAME
    NETWORK.onnx      networks that stages work with

Nothing in it is executable, and arrays are read without pickle. The JSON holds the SHA-256 of every other file, and a
digest of the served model's metadata, so that a profile is refused where it was not made for what is served.
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pydantic

from guard.calibration import Calibration
from guard.types import Array, Batching, InvalidQuery, Kind, ModelMetadata, TensorSpec

FORMAT = 2
MAX_FILE_BYTES = 256 * 1024 * 1024
_OWN_FILE = re.compile(r"[a-z_]{1,64}\.(npz|onnx)")
_BF16 = 256.0
_SLACK = 1e-5
_BELOW = 1.0 - 2.0**-50
CALIBRATION, LEARNED = "calibration.npz", "learned.npz"
Layout = Literal["nchw", "nhwc", "nhw", "flat", "vector", "encoded"]
Meaning = Literal["probabilities", "logits", "labels"]


class ProfileError(ValueError):
    """A profile that cannot be used. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Space:
    """How the inspected input is laid out, and how to reach unit form and back.

    layout:       nchw, nhwc, nhw (grey); flat (images as rows of H*W*C); vector; encoded (JPEG or PNG in BYTES,
                  inspected as uint8 nhwc at `image_shape`).
    image_shape:  (H, W, C); needed by flat and encoded, elsewhere None where sizes are free.
    low, high:    bounds, one value or one a channel (vector: one a feature).
    certain:      the bounds are a fact (given, or a well-known range), so values outside are invalid;
                  otherwise they are what clean data showed, and values outside are merely clipped for inspection.
    """

    layout: Layout
    low: tuple[float, ...]
    high: tuple[float, ...]
    certain: bool
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise ProfileError(f"unknown layout {self.layout!r}")
        if len(self.low) != len(self.high) or not self.low:
            raise ProfileError("bounds: low and high must have the same, non-zero length")
        if not all(
            math.isfinite(lo) and math.isfinite(hi) and lo < hi for lo, hi in zip(self.low, self.high, strict=True)
        ):
            raise ProfileError("bounds: every low must be finite and below its high")
        if self.layout in {"flat", "encoded"} and self.image_shape is None:
            raise ProfileError(f"layout {self.layout} needs image_shape")

    @property
    def is_image(self) -> bool:
        """Whether unit form is (N, H, W, C)."""
        return self.layout != "vector"

    def _channels_last(self, x: Array) -> Array:
        """(N, ...) in the model's layout -> (N, H, W, C) or (N, D). Raises InvalidQuery."""
        rank = {"nchw": 4, "nhwc": 4, "encoded": 4, "nhw": 3, "flat": 2}.get(self.layout)
        if x.ndim < 1 or (rank is not None and x.ndim != rank):
            raise InvalidQuery(f"the input has {x.ndim} dimensions, the model takes {rank}")
        if self.layout == "nchw":
            x = x.transpose(0, 2, 3, 1)
        elif self.layout == "nhw":
            x = x[..., None]
        elif self.layout == "flat":
            shape = self.image_shape or ()
            if x.shape[1] != math.prod(shape):
                raise InvalidQuery(f"the input has {x.shape[1]} features, the model takes {math.prod(shape)}")
            x = x.reshape(len(x), *shape)
        elif self.layout == "vector":
            x = x.reshape(len(x), math.prod(x.shape[1:]))
        if self.image_shape is not None and self.is_image and x.shape[1:] != self.image_shape:
            raise InvalidQuery(
                f"the input's images are {x.shape[1:]} (height, width, channels), not {self.image_shape}"
            )
        if len(self.low) not in {1, x.shape[-1]}:
            raise InvalidQuery(f"the input has {x.shape[-1]} channels, the model takes {len(self.low)}")
        return x

    def check(self, x: Array, *, finite: bool, bounds: bool) -> None:
        """Raises InvalidQuery where a value is NaN, infinite or out of certain bounds."""
        last = self._channels_last(x)
        if last.size == 0:
            return
        bounds = bounds and self.certain
        if not (bounds or (finite and x.dtype.kind == "f")):
            return
        least, most = float(x.min()), float(x.max())  # both are NaN where one is among them
        if finite and not (math.isfinite(least) and math.isfinite(most)):
            raise InvalidQuery("the input holds NaN or infinite values")
        if bounds and self._has_outside(last, least, most):
            raise InvalidQuery(f"the input holds values outside {_show(self.low)} to {_show(self.high)}")

    def _has_outside(self, last: Array, least: float, most: float) -> bool:
        """Whether a value is out of bounds, beyond what float32 arithmetic of honest clients makes."""
        if len(self.low) == 1:
            slack = _SLACK * (self.high[0] - self.low[0])
            return least < self.low[0] - slack or most > self.high[0] + slack
        low, high = np.asarray(self.low), np.asarray(self.high)
        slacks = _SLACK * (high - low)
        axes = tuple(range(last.ndim - 1))
        return bool((last.min(axis=axes) < low - slacks).any() or (last.max(axis=axes) > high + slacks).any())

    def to_unit(self, x: Array) -> Array:
        """The model's layout and bounds -> unit form, float32, clipped to [0, 1], in one piece. Raises InvalidQuery."""
        unit = np.array(self._channels_last(x), dtype=np.float32, order="C")
        if not self._is_unit:
            low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
            unit -= low
            unit /= high - low
        np.maximum(unit, 0.0, out=unit)
        np.minimum(unit, 1.0, out=unit)
        if np.isnan(unit.min(initial=1.0)):
            np.nan_to_num(unit, copy=False, nan=0.0)
        return unit

    def from_unit(self, unit: Array, like: Array) -> Array:
        """Unit form -> the model's layout and bounds, in dtype and shape of `like` (rows may differ in number)."""
        x = unit + np.float32(0.0) if self._is_unit else self._stretched(unit)
        if like.dtype.kind in "iu":
            x = np.rint(x)
        if self.layout == "nchw":
            x = x.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(x.reshape(len(unit), *like.shape[1:]), dtype=like.dtype)

    @property
    def _is_unit(self) -> bool:
        """Whether the bounds are 0 and 1."""
        return not any(self.low) and all(value == 1.0 for value in self.high)

    def _stretched(self, unit: Array) -> Array:
        """To the bounds, in float64."""
        low, high = np.asarray(self.low, np.float64), np.asarray(self.high, np.float64)
        x = unit.astype(np.float64)
        x *= high - low
        x += low
        return x


def _show(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values[:4])


def to_probabilities(y: Array, meaning: Meaning) -> Array:
    """(N, C) outputs -> float64 rows that sum to 1. Raises ValueError for labels and for rows that are no answer.

    A class that is below the largest stays below it by some steps, so that no later rounding makes them equal.
    """
    if meaning == "labels":
        raise ValueError("the model answers with labels only")
    y = np.asarray(y, dtype=np.float64)
    if y.ndim != 2 or not np.isfinite(y).all():  # noqa: PLR2004 - rows and classes
        raise ValueError("the model's answer is not a finite (N, C) array")
    best = y.max(axis=1, keepdims=True, initial=-np.inf)
    odds = np.exp(y - best) if meaning == "logits" else np.maximum(y, 0.0)
    total = odds.sum(axis=1, keepdims=True)
    if (total <= 0).any():
        raise ValueError("the model's answer has a row without probability")
    probs = np.asarray(odds / total)
    below = probs.max(axis=1, keepdims=True, initial=0.0) * _BELOW
    np.minimum(probs, below, out=probs, where=y < best)
    return probs


def as_probabilities(y: Array, meaning: Meaning, classes: int) -> Array:
    """The same, of labels as well: (N,) or (N, 1) -> float64 rows of 0 and 1. Raises ValueError."""
    if meaning != "labels":
        return to_probabilities(y, meaning)
    labels = np.asarray(y, dtype=np.float64).reshape(len(y), -1)[:, 0] if len(y) else np.zeros(0)
    if not ((labels >= 0) & (labels < classes)).all():
        raise ValueError("the model's answer is no label")
    return np.asarray(np.eye(classes)[labels.astype(np.int64)])


def from_probabilities(probs: Array, meaning: Meaning, like: Array, datatype: str = "") -> Array:
    """Rows that sum to 1 -> the output's own meaning and dtype; probability 0: a logit 30 below the largest.

    datatype: the output's on the wire: BF16 is float32 here, and loses more digits there. Where rounding would lift a
    class to the largest, it goes one step below instead.
    """
    best = probs.max(axis=1, keepdims=True)
    made = np.log(np.maximum(probs, best * np.exp(-30.0))) if meaning == "logits" else np.asarray(probs)
    made = _rounded_to_bf16(made) if datatype == "BF16" else made
    made = np.asarray(made.astype(like.dtype))
    if made.dtype.kind != "f":
        return made
    top = made[np.arange(len(made)), probs.argmax(axis=1)][:, None]
    below = _rounded_to_bf16(top, -1) if datatype == "BF16" else np.nextafter(top, made.dtype.type(-np.inf))
    return np.asarray(np.where((made >= top) & (probs < best), below.astype(made.dtype), made))


def _rounded_to_bf16(values: Array, steps: int = 0) -> Array:
    """The nearest values of 8 significant bits, or so many steps above."""
    significand, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(significand * _BF16) + steps, exponent) / _BF16)


def metadata_digest(metadata: ModelMetadata) -> str:
    """SHA-256 of what the served model says of itself, independent of the order of tensors."""
    plain = {
        "name": metadata.name,
        "versions": sorted(metadata.versions),
        "platform": metadata.platform,
        "inputs": sorted([t.name, t.datatype, list(t.shape)] for t in metadata.inputs),
        "outputs": sorted([t.name, t.datatype, list(t.shape)] for t in metadata.outputs),
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StageFit:
    """What was made for one stage.

    options:     what it was made with, defaults filled in.
    calibration: its scores on clean rows; None for a stage that does not score.
    joint:       (n,) the same in the order of the rows, which are the same for every detector; None: not known.
    arrays:      what it learned.
    """

    options: Mapping[str, Any]
    calibration: Calibration | None
    joint: Array | None = None
    arrays: Mapping[str, Array] = field(default_factory=dict)


def stage_key(kind: Kind, name: str) -> str:
    """How a stage is called in a profile."""
    return f"{kind}/{name}"


def stage_options(stage: Any) -> dict[str, Any]:
    """A stage's options as plain JSON data, defaults filled in."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(stage), default=str))
    return plain


@dataclass(frozen=True, slots=True)
class Profile:
    """One model's profile. `notes` says how it was made (counts, seed, held-out rates); nothing reads it to decide.

    batching: None where `guard fit` did not ask (older profiles).
    """

    metadata: ModelMetadata
    input_name: str
    datatype: str
    space: Space
    output_name: str
    meaning: Meaning
    classes: int
    stages: Mapping[str, StageFit]
    notes: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    networks: Mapping[str, bytes] = field(default_factory=dict)
    batching: Batching | None = None

    @property
    def output_datatype(self) -> str:
        """The classification output's, as the model describes it; FP32 where it does not."""
        return next((spec.datatype for spec in self.metadata.outputs if spec.name == self.output_name), "FP32")

    def fitted(self, kind: Kind, name: str, stage: Any) -> StageFit:
        """What was made for the stage. Raises ProfileError where there is nothing for these options.

        Those that it calls `free` do not matter: what was made is the same for all of them.
        """
        fit = self.stages.get(stage_key(kind, name))
        if fit is None:
            raise ProfileError(f"the profile has nothing for {kind} {name!r}; run `guard fit` with this stage")
        free = getattr(stage, "free", ())
        made, wanted = ({k: v for k, v in o.items() if k not in free} for o in (fit.options, stage_options(stage)))
        if made != wanted:
            raise ProfileError(
                f"{kind} {name!r} is set to {stage_options(stage)}, but the profile was fitted with {dict(fit.options)}"
            )
        return fit

    def calibration(self, kind: Kind, name: str, stage: Any) -> Calibration:
        """The stage's calibration. Raises ProfileError where there is none for exactly these options."""
        calibration = self.fitted(kind, name, stage).calibration
        if calibration is None:
            raise ProfileError(f"the profile has no calibration for {kind} {name!r}; run `guard fit` with this stage")
        return calibration

    def network(self, name: str) -> bytes:
        """One network's file. Raises ProfileError where it is not there."""
        if name not in self.networks:
            raise ProfileError(f"the profile has no network {name!r}; run `guard fit` with the stages that need it")
        return self.networks[name]

    def check_served(self, metadata: ModelMetadata) -> None:
        """Raises ProfileError where what is served is not what the profile was made for."""
        if metadata_digest(metadata) == metadata_digest(self.metadata):
            return
        fitted, served = asdict(self.metadata), asdict(metadata)
        differing = [
            f"{key}: fitted {fitted[key]}, served {served[key]}" for key in fitted if fitted[key] != served[key]
        ]
        raise ProfileError("the profile was made for another model: " + "; ".join(differing))


def save_profile(profile: Profile, directory: Path) -> str:
    """Write a profile; returns its digest. The directory is made; files of an older profile are replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    files = _packed_files(profile)
    for stale in _files_of_former(directory) - files.keys():
        (directory / stale).unlink(missing_ok=True)
    for name, raw in files.items():
        (directory / name).write_bytes(raw)
    document = {
        "format": FORMAT,
        "model": asdict(profile.metadata),
        "metadata_digest": metadata_digest(profile.metadata),
        "input": {"name": profile.input_name, "datatype": profile.datatype, **asdict(profile.space)},
        "output": {"name": profile.output_name, "meaning": profile.meaning, "classes": profile.classes},
        "stages": {
            key: {"options": dict(fit.options), "joint": fit.joint is not None} for key, fit in profile.stages.items()
        },
        "networks": sorted(profile.networks),
        "notes": dict(profile.notes),
        "batching": None if profile.batching is None else asdict(profile.batching),
        "files": {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()},
    }
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    (directory / "profile.json").write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _files_of_former(directory: Path) -> set[str]:
    """The files of a profile that is being replaced; nothing else in the directory is touched."""
    try:
        document = _Document.model_validate_json(_read(directory / "profile.json"))
    except (ProfileError, pydantic.ValidationError):
        return set()
    return {name for name in document.files if _OWN_FILE.fullmatch(name)}


def _packed_files(profile: Profile) -> dict[str, bytes]:
    """Every file but profile.json."""
    stages = profile.stages.items()
    scores = {key: fit.calibration.scores for key, fit in stages if fit.calibration is not None}
    scores |= {key: fit.joint for key, fit in stages if fit.joint is not None}
    learned = {f"{key}/{name}": array for key, fit in stages for name, array in fit.arrays.items()}
    files = {CALIBRATION: _pack(scores)} | ({LEARNED: _pack(learned)} if learned else {})
    return files | {f"{name}.onnx": raw for name, raw in profile.networks.items()}


def _pack(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


class _Tensor(pydantic.BaseModel, extra="forbid"):
    name: str
    datatype: str
    shape: tuple[int, ...]


class _Model(pydantic.BaseModel, extra="forbid"):
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]


class _Input(pydantic.BaseModel, extra="forbid"):
    name: str
    datatype: str
    layout: Layout
    low: tuple[float, ...]
    high: tuple[float, ...]
    certain: bool
    image_shape: tuple[int, int, int] | None


class _Output(pydantic.BaseModel, extra="forbid"):
    name: str
    meaning: Meaning
    classes: int = pydantic.Field(ge=1)


class _Batching(pydantic.BaseModel, extra="forbid"):
    max_rows: int | None = pydantic.Field(ge=0)
    stateful: bool
    decoupled: bool


class _Stage(pydantic.BaseModel, extra="forbid"):
    options: dict[str, Any]
    joint: bool = False


class _Document(pydantic.BaseModel, extra="forbid"):
    format: Literal[1, 2]
    model: _Model
    metadata_digest: str
    input: _Input
    output: _Output
    stages: dict[str, _Stage]
    networks: tuple[Annotated[str, pydantic.Field(pattern="^[a-z_]{1,64}$")], ...] = ()
    notes: dict[str, Any]
    files: dict[str, str]
    batching: _Batching | None = None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ProfileError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}") from None


def _verified(directory: Path, name: str, document: _Document) -> bytes:
    raw = _read(directory / name)
    if hashlib.sha256(raw).hexdigest() != document.files.get(name):
        raise ProfileError(f"{directory / name} is not the file that profile.json was written with")
    return raw


def _arrays(directory: Path, name: str, document: _Document) -> dict[str, Array]:
    """An .npz file's arrays; none where the profile lacks one that it may lack."""
    if name != CALIBRATION and name not in document.files:
        return {}
    raw = _verified(directory, name, document)
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except Exception as error:  # noqa: BLE001 - numpy and zipfile raise half a dozen types on a broken archive
        raise ProfileError(f"{directory / name} is not a readable .npz file: {type(error).__name__}") from None


def _stage_of(key: str, stage: _Stage, arrays: Mapping[str, Mapping[str, Array]], directory: Path) -> StageFit:
    scores = arrays[CALIBRATION].get(key)
    if scores is None and key.startswith(("detector/", "monitor/")):
        raise ProfileError(f"{directory / CALIBRATION} lacks {key}")
    learned = {name[len(key) + 1 :]: array for name, array in arrays[LEARNED].items() if name.startswith(f"{key}/")}
    try:
        calibration = None if scores is None else Calibration.of(scores)
    except (ValueError, TypeError) as error:
        raise ProfileError(f"{directory / CALIBRATION}: {key}: {error}") from None
    joint = None if scores is None or not stage.joint else np.asarray(scores, dtype=np.float64).ravel()
    return StageFit(stage.options, calibration, joint, learned)


def _specs(tensors: tuple[_Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(t.name, t.datatype, t.shape) for t in tensors)


def load_profile(directory: Path | str, vouch: Callable[[Path, bytes], None] | None = None) -> Profile:
    """Read and check a profile. Raises ProfileError.

    vouch: looks at profile.json, which names all else by digest, before it is read; raises ValueError to refuse it.
    """
    directory = Path(directory)
    raw = _read(directory / "profile.json")
    if vouch is not None:
        try:
            vouch(directory / "profile.json", raw)
        except ValueError as error:
            raise ProfileError(str(error)) from None
    try:
        document = _Document.model_validate_json(raw)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ProfileError(
            f"{directory / 'profile.json'}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    arrays = {name: _arrays(directory, name, document) for name in (CALIBRATION, LEARNED)}
    stages = {key: _stage_of(key, stage, arrays, directory) for key, stage in document.stages.items()}
    if len({len(fit.joint) for fit in stages.values() if fit.joint is not None}) > 1:
        raise ProfileError(f"{directory / CALIBRATION}: the detectors' rows are not the same")
    model, source = document.model, document.input
    metadata = ModelMetadata(model.name, model.versions, model.platform, _specs(model.inputs), _specs(model.outputs))
    if metadata_digest(metadata) != document.metadata_digest:
        raise ProfileError(f"{directory / 'profile.json'}: metadata_digest does not match the metadata beside it")
    return Profile(
        metadata=metadata,
        input_name=source.name,
        datatype=source.datatype,
        space=Space(source.layout, source.low, source.high, source.certain, source.image_shape),
        output_name=document.output.name,
        meaning=document.output.meaning,
        classes=document.output.classes,
        stages=stages,
        notes=document.notes,
        digest=hashlib.sha256(raw).hexdigest(),
        networks={name: _verified(directory, f"{name}.onnx", document) for name in document.networks},
        batching=None if document.batching is None else Batching(**document.batching.model_dump()),
    )
