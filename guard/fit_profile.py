"""From clean inputs and a served model to a profile.

Duplicates among the clean inputs are dropped, the others shuffled by the seed and split. From the first part networks
and stages learn, where any has to and no inputs of their own are given for it. The calibration part gives every stage
its distribution of clean scores; on the held-out part the false-positive rate is measured, by the engine that will
serve. No labels are needed, and the model is only ever asked, never changed.

A refresh calibrates an older profile's stages anew, on other clean inputs: what they learned stays as it is.

Errors: FitError for what inputs or flags lack, AskError for a model that does not answer, ConfigError for options.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import guard
from guard import networks
from guard.assembly import AMONG, searches
from guard.calibration import Calibration
from guard.fit_answers import read_output
from guard.fit_clean import Clean, FitError, distinct, sha256_of
from guard.fit_inputs import Choices
from guard.fit_learn import Given, learns_anything, material_of, put_to_work, train
from guard.fit_measure import Measured, measure, shadow
from guard.fit_monitors import others_of
from guard.fit_space import Prepared, prepare
from guard.fit_stages import SECRET, Chosen, Progress, Wanted, calibrate, check_count, choose, monitors_need, with_room
from guard.fit_subject import Positions, Served, Subject
from guard.profile import Profile, StageFit, stage_options
from guard.sketching import Sketcher
from guard.types import KINDS, Array, Material, ModelMetadata

PART, OWN = "a part of the clean inputs", "inputs of its own"
_FIRST = 256  # rows from which the output's meaning is learned


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for.

    stages:  None for every detector and monitor that suits.
    train:   networks that such stages may have trained for them.
    given:   what need not be learned.
    learn:   inputs to learn from; None: a part of the clean ones, `learn_share` of what is not held out.
    maximum: distinct clean inputs to use at most.
    refresh: the profile to calibrate anew; it says which stages.
    """

    choices: Choices = field(default_factory=Choices)
    stages: tuple[Wanted, ...] | None = None
    train: tuple[str, ...] = ()
    given: Given = field(default_factory=Given)
    learn: Clean | None = None
    learn_share: float = 0.5
    refresh: Profile | None = None
    false_positive_rate: float = 0.01
    held_out: float = 0.2
    maximum: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class FitResult:
    """measured: None without a held-out part. skipped: stages left out, and why. duplicates: clean inputs dropped."""

    profile: Profile
    options: Options
    skipped: Mapping[str, str]
    measured: Measured | None
    duplicates: int


def fit(
    served: Served,
    clean: Clean,
    options: Options,
    *,
    progress: Progress = lambda *_: None,
    fitted_at: str = "",
) -> FitResult:
    """Ask, learn, calibrate, measure. `progress` is told what is being done, the rows so far, and of how many."""
    if options.refresh is not None:
        options = _refreshing(options, options.refresh)
    metadata = served.metadata()
    prepared = _prepared(clean, metadata, options)
    x = prepared.inputs[prepared.input.name]
    kept = distinct(x)
    fitted, held_out = _split(kept, options)
    subject, classes = _subject(served, prepared, options.choices, fitted)
    available = {*options.train, *options.given.networks, *(("auxiliary",) if options.given.backbone else ())}
    chosen, skipped = choose(options.stages, subject, available, learning=bool(available) or options.learn is not None)
    learned = _Learned()
    if learns_anything(chosen, options.given):
        learned, fitted = _learning(subject, metadata, fitted, classes, options, progress)
    raw = train(chosen, options.given, learned.material, progress)
    chosen, unsuited = put_to_work(subject, chosen, raw, options.given, learned.material, fitted[:1])
    chosen, roomless = with_room(chosen, len(fitted))
    check_count(chosen, len(fitted), options.false_positive_rate)
    auxiliary = networks.load(raw["auxiliary"]) if monitors_need(chosen, "auxiliary") else None
    sketcher = Sketcher(SECRET, auxiliary)
    scores = calibrate(subject, chosen, fitted, progress, sketcher=sketcher, classes=classes, seed=options.seed)
    profile = Profile(
        metadata=metadata,
        input_name=prepared.input.name,
        datatype=prepared.input.datatype,
        space=prepared.space,
        output_name=subject.output_name,
        meaning=subject.meaning,
        classes=classes,
        stages={stage.wanted.key: _stage_fit(stage, scores.get(stage.wanted.key), len(fitted)) for stage in chosen},
        networks=raw,
        batching=subject.batching,
    )
    settings = shadow(profile, chosen, options.false_positive_rate)
    measured = measure(subject, profile, settings, fitted, held_out, progress=progress) if len(held_out) else None
    notes = _notes(x, fitted, held_out, options, measured) | {**learned.notes, "fitted_at": fitted_at}
    if learned.notes.get("learned_from") == PART:
        notes["clean_count"] += learned.taken
    return FitResult(
        replace(profile, notes=notes), options, {**skipped, **unsuited, **roomless}, measured, len(x) - len(kept)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Learned:
    """The material, how many clean rows it took, and what is noted of it."""

    material: Material | None = None
    taken: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)


def _refreshing(options: Options, former: Profile) -> Options:
    """The stages, and all that they learned, of an older profile."""
    wanted = []
    for key, fit in former.stages.items():
        kind, _, name = key.partition("/")
        if kind in KINDS:
            wanted.append(Wanted(kind, name, dict(fit.options)))
    choices = replace(
        options.choices, input=former.input_name, output=former.output_name, meaning=former.meaning, bounds=None
    )
    return replace(options, stages=tuple(wanted), given=Given.of(former), choices=choices)


def _prepared(clean: Clean, metadata: ModelMetadata, options: Options) -> Prepared:
    """The clean inputs in the model's form; of a refresh in the older profile's. Raises FitError."""
    former = options.refresh
    if former is None:
        return prepare(clean, metadata, options.choices)
    try:
        former.check_served(metadata)
    except ValueError as error:
        raise FitError(str(error)) from None
    space = former.space
    told = replace(options.choices, layout=space.layout, image_shape=space.image_shape)
    if space.certain and space.layout != "encoded":
        told = replace(told, bounds=(space.low, space.high))
    return replace(prepare(clean, metadata, told), space=space)


def _split(kept: Positions, options: Options) -> tuple[Positions, Positions]:
    """The rows to learn from and to calibrate with, and those to measure on."""
    order = np.random.default_rng(options.seed).permutation(kept)[: options.maximum]
    count = round(len(order) * options.held_out)
    if len(order) - count < 1:
        raise FitError(f"{len(order)} distinct clean inputs leave none for calibration")
    return order[count:], order[:count]


def _learning(
    subject: Subject,
    metadata: ModelMetadata,
    rows: Positions,
    classes: int,
    options: Options,
    progress: Progress,
) -> tuple[_Learned, Positions]:
    """What is learned from, and the rows that are left to calibrate with."""
    if options.learn is None:
        count = round(len(rows) * options.learn_share)
        if not 0 < count < len(rows):
            raise FitError(f"{len(rows)} clean inputs leave none to learn from, or none to calibrate with")
        own, rows = rows[:count], rows[count:]
        whose = PART
    else:
        told = replace(options.choices, layout=subject.space.layout, image_shape=subject.space.image_shape)
        others = prepare(options.learn, metadata, told)
        subject, whose = replace(subject, inputs=others.inputs), OWN
        own = np.random.default_rng(options.seed).permutation(distinct(others.inputs[subject.input_name]))
    material = material_of(subject, own, classes, options.seed, progress)
    notes = {"learned_from": whose, "learned_rows": len(material.x), "learned_sha256": sha256_of(material.x)}
    return _Learned(material, len(own), notes), rows


def _subject(served: Served, prepared: Prepared, choices: Choices, rows: Positions) -> tuple[Subject, int]:
    """The model with its clean rows, once the first answers tell what it answers; and its number of classes."""
    first = {name: array[rows[:_FIRST]] for name, array in prepared.inputs.items()}
    output, meaning, classes = read_output(served.answer(first), choices)
    batching = served.batching()
    return Subject(served, prepared.input.name, prepared.inputs, prepared.space, output, meaning, batching), classes


def _stage_fit(stage: Chosen, scores: Array | None, rows: int) -> StageFit:
    """rows: that the scores are of."""
    options = stage_options(stage.impl)
    if scores is None:
        return StageFit(options, None, arrays=stage.arrays)
    try:
        calibration = Calibration.of(scores)
    except ValueError as error:
        raise FitError(f"{stage.wanted.key}: {error}") from None
    joint = np.asarray(scores, dtype=np.float64) if stage.wanted.kind == "detector" else None
    among = {AMONG: np.array([float(others_of(rows))])} if searches(stage.impl) else {}
    return StageFit(options, calibration, joint, {**stage.arrays, **among})


def _notes(
    x: Array, fitted: Positions, held_out: Positions, options: Options, measured: Measured | None
) -> dict[str, Any]:
    """Where the profile comes from."""
    return {
        "clean_count": len(fitted) + len(held_out),
        "clean_sha256": sha256_of(x),
        "calibration": len(fitted),
        "held_out": len(held_out),
        "seed": options.seed,
        "false_positive_rate": options.false_positive_rate,
        "held_out_false_positive_rate": measured.total.rate if measured else None,
        "held_out_interval": list(measured.total.interval) if measured else None,
        "guard_version": guard.__version__,
    }
