"""Victims and what protects their answers: the engine that the proxy has, every row chosen, in this process.

A victim answers in one meaning (logits, or probabilities: their softmax in float32) and one datatype. What learns
learns from rows that `Subject.own` gives, which no figure is measured on, as `guard fit --learn FILE` would.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from adversary import victims
from adversary.attack import Array
from adversary.data import cifar10, mnist, photos
from adversary.victims import cifar10 as cifar10_victim
from adversary.victims import cifar10_overfit, efficientnet
from bench.monitors.ground import Model, softmax
from guard import registry
from guard.engine import Engine
from guard.equipping import learner_of
from guard.profile import Profile, Space, StageFit, stage_key, stage_options
from guard.settings import Model as Settings
from guard.settings import build_stage
from guard.types import Answer, Conclusion, Decision, Material, ModelMetadata, Query, TensorSpec

Meaning = Literal["logits", "probabilities"]
SECRET = b"bench.answers: what is random is drawn from this"
LEARNED_FROM = 2000
PART = 500
"""Rows a call."""
INPUT, OUTPUT = "image", "answer"
DTYPES: Mapping[str, Any] = {"FP16": np.float16, "BF16": np.float32, "FP32": np.float32, "FP64": np.float64}
SPACE = Space("nchw", (0.0,), (1.0,), certain=True)
_OWN_CROPS, _TEST_CROPS = (15, 5), (10, 6)  # of each photograph; the seed


@dataclass(frozen=True, slots=True)
class Way:
    """One output protection with its options; no name: none."""

    name: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name or "none", *(f"{key} {value}" for key, value in self.options)])


def way(name: str, **options: Any) -> Way:
    """For short."""
    return Way(name, tuple(options.items()))


BARE = Way()


@dataclass(frozen=True, eq=False)
class Subject:
    """A victim, test images (N, C, H, W) with their labels, and rows of its kind to learn from."""

    name: str
    model: Model
    x: Array
    y: Array
    own: Array
    classes: int

    def part(self, rows: slice) -> "Subject":
        """With these test images alone."""
        return replace(self, x=self.x[rows], y=self.y[rows])


def subject(name: str) -> Subject:
    """mnist, cifar10 or photos. Raises DataUnavailable."""
    registry.load()
    return _SUBJECTS[name]()


def _mnist() -> Subject:
    data = mnist.load()
    model = Model(Path(victims.__file__).with_name("mnist_cnn.onnx"))
    return _of("mnist", model, data, mnist.unit)


def _cifar10() -> Subject:
    return _of("cifar10", Model(cifar10_victim.CHECKPOINT), cifar10.load(), cifar10.unit)


def _of(name: str, model: Model, data: Any, unit: Callable[[Any], Array]) -> Subject:
    labels = data.test.labels.astype(np.int64)
    return Subject(name, model, unit(data.test.images), labels, unit(data.clean.images[:LEARNED_FROM]), 10)


def _photos() -> Subject:
    images, labels = photos.load()
    own = photos.crops(images, labels, *_OWN_CROPS)
    test = photos.crops(images, labels, *_TEST_CROPS)
    x, mine = (cifar10.unit(part.images) for part in (test, own))
    return Subject("photos", Model(efficientnet.onnx_file()), x, test.labels, mine, efficientnet.CLASSES)


_SUBJECTS: Mapping[str, Callable[[], Subject]] = {"mnist": _mnist, "cifar10": _cifar10, "photos": _photos}


def overfitted() -> Subject:
    """The victim that remembers: its members, then as many test images. Raises DataUnavailable."""
    registry.load()
    data, many = cifar10.load(), cifar10_overfit.MEMBERS
    seen = data.learn.part(slice(0, many))
    x = cifar10.unit(np.concatenate([seen.images, data.test.images[:many]]))
    y = np.concatenate([seen.labels, data.test.labels[:many]]).astype(np.int64)
    own = cifar10.unit(data.clean.images[:LEARNED_FROM])
    return Subject("cifar10_overfit", Model(cifar10_overfit.CHECKPOINT), x, y, own, 10)


def said(logits: Array, meaning: Meaning, datatype: str = "FP32") -> Array:
    """(N, C) -> what a server of this kind says, in its dtype; BF16: float32, still to be rounded by who sends it.

    A softmax is taken in float32, as networks take it, but for FP64.
    """
    wide = np.asarray(logits, np.float64 if datatype == "FP64" else np.float32)
    if meaning == "probabilities":
        odds = np.exp(wide - wide.max(axis=1, keepdims=True))
        wide = odds / odds.sum(axis=1, keepdims=True)
    return np.asarray(wide.astype(DTYPES[datatype]))


@lru_cache(maxsize=64)
def learned(on: Subject, way: Way) -> Mapping[str, StageFit]:
    """What the protection learned from the bare probabilities of the subject's own rows, where it learns."""
    stage = build_stage("output", way.name, dict(way.options))
    learn = learner_of(stage)
    if learn is None:
        return {}
    material = Material(np.moveaxis(on.own, 1, -1), own_answers(on), on.classes, seed=0)
    return {stage_key("output", way.name): StageFit(stage_options(stage), None, arrays=learn(material))}


@lru_cache(maxsize=4)
def own_answers(on: Subject) -> Array:
    """(N, C) the bare probabilities of what stages learn from."""
    return softmax(on.model.logits(on.own))


def profile(on: Subject, way: Way, meaning: Meaning, datatype: str = "FP32", name: str = "") -> Profile:
    """Of a model of this name; none: the subject's."""
    shape = on.x.shape[1:]
    metadata = ModelMetadata(
        name or on.name, ("1",), "bench", (TensorSpec(INPUT, "FP32", (-1, *shape)),),
        (TensorSpec(OUTPUT, datatype, (-1, on.classes)),),
    )  # fmt: skip
    stages = learned(on, way) if way.name else {}
    return Profile(metadata, INPUT, "FP32", SPACE, OUTPUT, meaning, on.classes, stages)


def settings(name: str, way: Way) -> dict[str, Any]:
    """Of the model, as they stand in a settings file, without where it is served."""
    outputs = [{"stage": way.name, "when": "always", "options": dict(way.options)}] if way.name else []
    return {"name": name, "mode": "enforce", "profile": "profile", "outputs": outputs}


@dataclass(frozen=True, slots=True, eq=False)
class Guarded:
    """One victim's answers behind the engine. Raises RuntimeError where the protection failed."""

    engine: Engine
    profile: Profile

    @classmethod
    def of(cls, made: Profile, way: Way, secret: bytes = SECRET) -> "Guarded":
        """Its own engine, of nothing but the profile, the settings and the secret."""
        tree = {**settings(made.metadata.name, way), "embedded": {"file": "model.onnx"}}
        return cls(Engine(Settings.model_validate(tree), made, secret), made)

    def decision(self, x: Array, unit: Array | None = None) -> Decision:
        """On a query, before the model has answered. unit: x in unit form, where it is at hand."""
        return self.engine.decide(Query(x, "a caller", self.profile.metadata.name, "", unit=unit), None)

    def told(self, x: Array, y: Array) -> Array:
        """(N, ...) and the model's (N, C) answers, in its own dtype -> what the caller is told."""
        conclusion = sound(self.engine.conclude(self.decision(x), Answer(y)))
        return y if conclusion.y is None else conclusion.y

    def many(self, x: Array, y: Array) -> Array:
        """The same, in parts."""
        parts = [slice(at, at + PART) for at in range(0, len(x), PART)]
        return np.concatenate([self.told(x[rows], y[rows]) for rows in parts])


def sound(conclusion: Conclusion) -> Conclusion:
    """The same. Raises RuntimeError."""
    for finding in conclusion.findings:
        if finding.error is not None:
            raise RuntimeError(f"{finding.stage}: {finding.error}")
    return conclusion


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """Answers in FP32 probabilities, protected in one way: what an attacker asks."""

    on: Subject
    guarded: Guarded

    @classmethod
    def of(cls, on: Subject, way: Way) -> "Victim":
        """Behind an engine of its own."""
        return cls(on, Guarded.of(profile(on, way, "probabilities"), way))

    def bare(self, x: Array) -> Array:
        """(N, ...) -> (N, C) float32, not protected."""
        return said(self.on.model.logits(x), "probabilities")

    def __call__(self, x: Array) -> Array:
        """(N, ...) -> (N, C) float32."""
        x = np.asarray(x, np.float32)
        return self.guarded.told(x, self.bare(x))
