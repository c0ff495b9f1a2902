"""What stages learn before they are calibrated: networks, arrays, and what it takes to put them to work.

Nothing that is learned from calibrates anything: the rows come from a part of their own, or from inputs of their own
(`guard fit --learn`), which may be those that the served model itself has learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from guard import networks
from guard.equipping import NETWORKS, equip, learner_of, needs_of
from guard.fit_clean import FitError
from guard.fit_monitors import DRAWS
from guard.fit_stages import SECRET, Chosen, Progress, chunks, trial
from guard.fit_subject import Positions, Subject
from guard.profile import Profile
from guard.sketching import Sketcher
from guard.types import Array, Floats, Material, Network

MAX_MATERIAL_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What need not be learned.

    networks: ONNX files by name.
    backbone: an ONNX file that gives features, to make an auxiliary of.
    arrays:   by stage.
    """

    networks: Mapping[str, bytes] = field(default_factory=dict)
    backbone: bytes | None = None
    arrays: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile) -> "Given":
        """All that a profile holds."""
        return cls(profile.networks, None, {key: fit.arrays for key, fit in profile.stages.items()})


def wanted_networks(chosen: Sequence[Chosen], given: Given) -> tuple[str, ...]:
    """The networks to train, in their order; the denoiser is trained with the auxiliary."""
    needed = {name for stage in chosen for name in needs_of(stage.impl)}
    if "denoiser" in needed - set(given.networks):
        needed.add("auxiliary")
    return tuple(name for name in NETWORKS if name in needed and name not in given.networks)


def learns_anything(chosen: Sequence[Chosen], given: Given) -> bool:
    """Whether rows to learn from are needed."""
    taught = any(learner_of(stage.impl) and stage.wanted.key not in given.arrays for stage in chosen)
    return taught or bool(wanted_networks(chosen, given))


def material_of(subject: Subject, rows: Positions, classes: int, seed: int, progress: Progress) -> Material:
    """The rows in unit form with the model's answers; as many of them as fit into MAX_MATERIAL_BYTES."""
    first = subject.space.to_unit(subject.seen(rows[:1])[0])
    rows = rows[: max(1, MAX_MATERIAL_BYTES // max(1, first.nbytes))]
    x = np.empty((len(rows), *first.shape[1:]), dtype=np.float32)
    probs, done = [], 0
    for some in chunks(rows):
        x[done : done + len(some)] = subject.space.to_unit(subject.seen(some)[0])
        if subject.meaning != "labels":
            probs.append(subject.probabilities(some))
        done += len(some)
        progress("asking about the inputs to learn from", done, len(rows))
    return Material(x, np.concatenate(probs) if probs else None, classes, {}, seed, progress)


def train(chosen: Sequence[Chosen], given: Given, material: Material | None, progress: Progress) -> dict[str, bytes]:
    """The networks that the stages need, those given among them. Raises FitError."""
    raw = dict(given.networks)
    from guard import learning  # noqa: PLC0415 - only where something is trained

    for name in wanted_networks(chosen, given):
        if material is None:
            raise FitError(
                f"the network {name!r} is neither given nor can it be learned: there is nothing to learn from"
            )
        try:
            if name == "auxiliary" and given.backbone is not None:
                raw[name] = learning.adopt_backbone(given.backbone, material, progress)
            else:
                raw[name] = learning.train(name, material, raw, progress)
        except ImportError as error:
            raise FitError(f"training {name!r} needs the extra `fit` ({error.name} is not installed)") from None
        except ValueError as error:
            raise FitError(f"the network {name!r} cannot be trained: {error}") from None
    needed = {name for stage in chosen for name in needs_of(stage.impl)}
    return {name: file for name, file in raw.items() if name in needed}


def put_to_work(
    subject: Subject,
    chosen: Sequence[Chosen],
    raw: Mapping[str, bytes],
    given: Given,
    material: Material | None,
    row: Positions,
) -> tuple[tuple[Chosen, ...], dict[str, str]]:
    """The stages equipped with what they learned; and why some that nobody asked for are left out. Raises FitError."""
    loaded = {name: networks.load(file) for name, file in raw.items()}
    working, skipped = [], {}
    for stage in chosen:
        try:
            arrays = _arrays(stage, loaded, given, material)
            made = equip(stage.impl, stage.wanted.key, loaded, arrays, SECRET)
            trial(made, subject, row)
        except ValueError as error:
            if stage.asked:
                raise FitError(f"{stage.wanted.key} cannot serve this model: {error}") from None
            skipped[stage.wanted.key] = str(error)
            continue
        working.append(replace(stage, working=made, arrays=arrays))
    return tuple(working), skipped


def _arrays(
    stage: Chosen, loaded: Mapping[str, Network], given: Given, material: Material | None
) -> Mapping[str, Array]:
    learn = learner_of(stage.impl)
    if stage.wanted.key in given.arrays:
        return given.arrays[stage.wanted.key]
    if learn is None:
        return {}
    if material is None:
        raise ValueError("it learns, and there is nothing to learn from")
    own = {name: loaded[name] for name in needs_of(stage.impl)}
    given_to = replace(material, networks=own, positions=_positions)
    return {name: np.asarray(array) for name, array in learn(given_to).items()}


def _positions(unit: Array) -> tuple[Floats, ...]:
    """(N, ...) -> (N, D) for each of the secrets by which windows are judged, too."""
    return tuple(Sketcher(bytes([i])).positions(unit) for i in range(DRAWS))
