"""The profile of a victim, by `guard fit`'s own function, with every detector on: made once and kept.

The networks are those of `python -m bench.profiles`, which makes them as `guard fit` does. Where one is missing, the
stages that need it are left out, and the table says so.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from adversary import serving, shelf
from adversary.data.cache import sha256
from bench import profiles
from bench.detection import craft
from bench.detection.subjects import subject
from guard import calibration, equipping, filters, fit_learn, fit_stages, keyed, registry
from guard.fit_clean import Clean
from guard.fit_learn import Given
from guard.fit_profile import Options, fit
from guard.fit_stages import Wanted
from guard.profile import Profile, load_profile, save_profile
from guard.proxy.ask import ServedModel
from guard.settings import Embedded, build_stage

BUDGET = 0.01
AGAINST_TRIGGERS = ("strip", "scale_up")
"""Detectors of backdoors: no part of the combination against adversarial inputs, but of `all stages on`."""
CHOSEN: Mapping[str, float] = {"pid": 1.0, "purified_answer": 1.0, "input_statistics": 0.5}
"""A few detectors with their weights, as an operator would set them: chosen by `python -m bench.detection.choosing`."""
_MODULES = (calibration, equipping, filters, fit_learn, fit_stages, keyed)
_OPTIONS: Mapping[str, Mapping[str, Any]] = {"purified_answer": {"purifier": "learned_denoiser"}}


def networks_of(data: str) -> dict[str, bytes]:
    """The ONNX files there are for a victim, by name."""
    found = {}
    for name in equipping.NETWORKS:
        with suppress(FileNotFoundError):
            found[name] = profiles.kept(data, name).read_bytes()
    return found


def wanted(available: Mapping[str, bytes]) -> tuple[Wanted, ...]:
    """Every detector whose networks there are."""
    registry.load()
    made = [Wanted("detector", name, _OPTIONS.get(name, {})) for name in registry.names("detector")]
    return tuple(one for one in made if set(_needs(one)) <= set(available))


def _needs(one: Wanted) -> tuple[str, ...]:
    return equipping.needs_of(build_stage(one.kind, one.name, one.options))


def place(data: str, most: int | None = None) -> Path:
    """Where the profile lies: by the victim, the networks, Guard's own code, and how many clean rows it may use."""
    name = shelf.key(
        victim=subject(data).sha256,
        networks={name: sha256(raw) for name, raw in networks_of(data).items()},
        code=_code(),
        most=most,
    )
    return craft.home() / "profiles" / f"{data}-{name}"


@lru_cache(maxsize=1)
def _code() -> list[str]:
    """Digests of what decides a stage's scores: the stages themselves, and what they and their fit are made of."""
    packages = [serving.code_digest(f"guard.{name}") for name in ("detectors", "purifiers")]
    return packages + [sha256(Path(module.__file__ or "").read_bytes()) for module in _MODULES]


def make(data: str, most: int | None = None) -> None:
    """Fit the profile, where it is not there yet."""
    directory = place(data, most)
    if (directory / "profile.json").is_file():
        return
    on, available = subject(data), networks_of(data)
    options = Options(
        stages=wanted(available),
        given=Given(networks=available),
        learn=Clean(arrays={"image": on.learn_x[:most]}),
        false_positive_rate=BUDGET,
        held_out=0.0,
        maximum=most,
    )
    served = Embedded(file=on.onnx, max_batch_rows=256)
    with ServedModel.embedded(served, data, batch=128) as model:
        result = fit(model, Clean(arrays={"image": on.clean_x}), options)
    save_profile(result.profile, directory)


@lru_cache(maxsize=2)
def profile(data: str, most: int | None = None) -> Profile:
    """The profile, fitted where it is missing; a process loads each once."""
    make(data, most)
    return load_profile(place(data, most))
