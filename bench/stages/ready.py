"""Every stage at work on images of one size, with networks of the shapes that `guard fit` makes.

The networks are trained for a single step: what they cost does not depend on what they know.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array
from bench.stages.inputs import Images
from guard import filters, networks, registry
from guard.equipping import equip, learner_of, needs_of
from guard.learning import NAMES, train
from guard.profile import stage_key
from guard.settings import build_stage
from guard.types import KINDS, AnswerDetector, KeyedOutput, Kind, Material, Network, ViewDetector, VotingPurifier

SECRET = b"bench.stages: what is random is drawn from this"
_SEED = 0
_FEW = 256  # rows that a network is trained on
_SMALL = 64
_OWN = "denoiser.onnx"


@dataclass(frozen=True, slots=True)
class Ready:
    """One thing to time. use: of (N, ...) images; further: upstream rows an input costs beyond its own."""

    key: str
    use: Callable[[Array], Any]
    further: int = 0


@dataclass(frozen=True, slots=True)
class Unserved:
    """A stage that takes no such images, and why."""

    key: str
    why: str


def stages(images: Images, directory: Path, only: tuple[str, ...] = ()) -> list[Ready | Unserved]:
    """Every registered stage, and filters beside them; `only`: those whose key has one of these words."""
    registry.load()
    answers = _answers(len(images.learn), images.classes)
    material = Material(images.learn, answers, images.classes, seed=_SEED)
    kinds = (kind for kind in KINDS if kind != "monitor")  # what they cost with their history: `bench.scale costs`
    wanted = [(kind, name) for kind in kinds for name in registry.names(kind) if _asked(f"{kind} {name}", only)]
    trained = _trained(material, {need for kind, name in wanted for need in _needs(kind, name, directory)})
    if "denoiser" in trained:
        (directory / _OWN).write_bytes(trained["denoiser"])
    loaded = {name: networks.load(raw) for name, raw in trained.items()}
    made: list[Ready | Unserved] = [_stage(kind, name, images, material, loaded, directory) for kind, name in wanted]
    return made + [one for one in _filters(images) if _asked(one.key, only)]


def _asked(key: str, only: tuple[str, ...]) -> bool:
    return not only or any(word in key for word in only)


def _filters(images: Images) -> list[Ready]:
    """What feature squeezing has beyond the purifiers."""
    search, patch, strength = (13, 3, 2) if max(images.clean.shape[1:3]) <= _SMALL else (11, 3, 4)
    return [
        Ready("filter median_2", lambda x: filters.median(x, 2)),
        Ready(
            f"filter non_local_means_{search}_{patch}_{strength}",
            lambda x: filters.non_local_means(x, search, patch, strength),
        ),
    ]


def _options(kind: Kind, name: str, directory: Path) -> dict[str, Any]:
    """The defaults; for a file of the user's own, the denoiser."""
    own = (kind, name) == ("purifier", "onnx_denoiser")
    return {"file": directory / _OWN, "layout": "NHWC"} if own else {}


def _needs(kind: Kind, name: str, directory: Path) -> tuple[str, ...]:
    options = _options(kind, name, directory)
    return ("denoiser",) if options else needs_of(build_stage(kind, name, options))


def _trained(material: Material, needs: set[str]) -> dict[str, bytes]:
    """The networks needed, and those that their training needs."""
    few = replace(material, x=material.x[:_FEW], probs=None if material.probs is None else material.probs[:_FEW])
    raw: dict[str, bytes] = {}
    for name in NAMES:
        if name in needs or (name == "auxiliary" and "denoiser" in needs):
            raw[name] = train(name, few, raw, options=_hasty(name, few.x.shape[1:]))
    return raw


def _hasty(name: str, shape: tuple[int, ...]) -> Any:
    """One step on a few rows."""
    from importlib import import_module  # noqa: PLC0415 - torch comes with it

    usual = import_module(f"guard.learning.{name}").defaults(shape)
    return replace(usual, pace=replace(usual.pace, epochs=1, least=1, most=1, batch=4))


def _stage(
    kind: Kind, name: str, images: Images, material: Material, loaded: Mapping[str, Network], directory: Path
) -> Ready | Unserved:
    key, options = f"{kind} {name}", _options(kind, name, directory)
    try:
        stage = build_stage(kind, name, options)
        learn = learner_of(stage)
        known = replace(material, networks=loaded)
        working = equip(stage, stage_key(kind, name), loaded, {} if learn is None else learn(known), SECRET)
        use, further = _use(kind, working, images)
        use(images.noisy[:1])
    except ValueError as error:
        return Unserved(key, str(error))
    return Ready(key, use, further)


def _use(kind: Kind, stage: Any, images: Images) -> tuple[Callable[[Array], Any], int]:
    """What the engine asks of a stage for one query, all of it, and the further rows; the model's part is not in it."""
    classes, one = images.classes, images.noisy[:1]
    if isinstance(stage, ViewDetector):
        return lambda x: stage.score_views(*_beside(stage.views(x), len(x), classes)), len(stage.views(one))
    if isinstance(stage, VotingPurifier):
        return lambda x: stage.vote(_beside(stage.copies(x), len(x), classes)[1]), len(stage.copies(one))
    if isinstance(stage, AnswerDetector):
        return lambda x: stage.score_answer(x, _answers(len(x), classes)), 0
    return _plain(kind, stage, classes), 0


def _plain(kind: Kind, stage: Any, classes: int) -> Callable[[Array], Any]:
    match kind:
        case "detector":
            return stage.score  # type: ignore[no-any-return]
        case "purifier":
            return stage.purify  # type: ignore[no-any-return]
    if isinstance(stage, KeyedOutput):
        return lambda x: stage.protect_keyed(x, _answers(len(x), classes), np.ones(len(x), np.bool_))
    return lambda x: stage.protect(_answers(len(x), classes), np.ones(len(x), np.bool_))


def _beside(views: tuple[Array, ...], n: int, classes: int) -> tuple[Array, tuple[Array, ...]]:
    """Answers to the inputs and to each view of them."""
    return _answers(n, classes), tuple(_answers(n, classes) for _ in views)


_kept: dict[tuple[int, int], Array] = {}


def _answers(n: int, classes: int) -> Array:
    """(n, classes) rows that sum to 1, the same each time, and made once: they are no part of what is timed."""
    if (n, classes) not in _kept:
        odds = np.random.default_rng(_SEED).dirichlet(np.ones(classes), n)
        odds.flags.writeable = False
        _kept[n, classes] = odds
    return _kept[n, classes]
