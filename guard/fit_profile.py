"""From clean inputs and a served model to a profile.

Duplicates among the clean inputs are dropped, the others shuffled by the seed and split. The calibration part gives
every stage its distribution of clean scores; on the held-out part the false-positive rate is measured, by the engine
that will serve. No labels are needed, and the model is only ever asked, never changed.

Errors: FitError for what inputs or flags lack, AskError for a model that does not answer, ConfigError for options.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import guard
from guard.calibration import Calibration
from guard.fit_answers import read_output
from guard.fit_clean import Clean, FitError, distinct, sha256_of
from guard.fit_inputs import Choices
from guard.fit_measure import Measured, measure, shadow
from guard.fit_space import Prepared, prepare
from guard.fit_stages import Chosen, Progress, Wanted, calibrate, check_count, choose
from guard.fit_subject import Positions, Served, Subject
from guard.profile import Profile, StageFit, stage_options
from guard.types import Array

_FIRST = 256  # rows from which the output's meaning is learned


@dataclass(frozen=True, slots=True)
class Options:
    """stages: None for every detector and monitor that suits. maximum: distinct clean inputs to use at most."""

    choices: Choices = field(default_factory=Choices)
    stages: tuple[Wanted, ...] | None = None
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
    """Ask, calibrate, measure. `progress` is told what is being done, the rows so far, and of how many."""
    metadata = served.metadata()
    prepared = prepare(clean, metadata, options.choices)
    x = prepared.inputs[prepared.input.name]
    kept = distinct(x)
    fitted, held_out = _split(kept, options)
    subject, classes = _subject(served, prepared, options.choices, fitted)
    chosen, skipped = choose(options.stages, subject, fitted[:1])
    check_count(chosen, len(fitted), options.false_positive_rate)
    scores = calibrate(subject, chosen, fitted, progress)
    profile = Profile(
        metadata=metadata,
        input_name=prepared.input.name,
        datatype=prepared.input.datatype,
        space=prepared.space,
        output_name=subject.output_name,
        meaning=subject.meaning,
        classes=classes,
        stages={stage.wanted.key: _stage_fit(stage, scores[stage.wanted.key]) for stage in chosen},
    )
    settings = shadow(profile, chosen, options.false_positive_rate)
    measured = measure(subject, profile, settings, fitted, held_out, progress=progress) if len(held_out) else None
    notes = _notes(x, fitted, held_out, options, measured) | {"fitted_at": fitted_at}
    return FitResult(replace(profile, notes=notes), options, skipped, measured, len(x) - len(kept))


def _split(kept: Positions, options: Options) -> tuple[Positions, Positions]:
    """The rows to calibrate with, and those to measure on."""
    order = np.random.default_rng(options.seed).permutation(kept)[: options.maximum]
    count = round(len(order) * options.held_out)
    if len(order) - count < 1:
        raise FitError(f"{len(order)} distinct clean inputs leave none for calibration")
    return order[count:], order[:count]


def _subject(served: Served, prepared: Prepared, choices: Choices, rows: Positions) -> tuple[Subject, int]:
    """The model with its clean rows, once the first answers tell what it answers; and its number of classes."""
    first = {name: array[rows[:_FIRST]] for name, array in prepared.inputs.items()}
    output, meaning, classes = read_output(served.answer(first), choices)
    return Subject(served, prepared.input.name, prepared.inputs, prepared.space, output, meaning), classes


def _stage_fit(stage: Chosen, scores: Array) -> StageFit:
    try:
        return StageFit(stage_options(stage.impl), Calibration.of(scores))
    except ValueError as error:
        raise FitError(f"{stage.wanted.key}: {error}") from None


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
