"""A campaign from end to end: inputs, profiles, endpoints, units of work, what they found. Resumable at any moment."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adversary import inputs, pool, serving, shelf
from adversary.campaign import GUARDED, TARGETS, Campaign, CampaignError, Serve, TargetName, protection
from adversary.data.cache import sha256
from adversary.plan import Fingerprints, Plan
from adversary.pool import Pool
from adversary.progress import Screen
from adversary.serving import Place
from adversary.tls import Tls
from adversary.unit import Task, Unit, budget_of, target_of
from adversary.work import Arrays, Failed

_AFTERWARDS = ("cli", "judge", "page", "progress", "replay", "report", "trace")  # modules that no outcome depends on
_NOT_ASKED = {"onnx", "torch"}  # what of the model no call shows
_OUTSIDE = 20  # a query through the wire costs so much more than a gradient; only the progress display believes it


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One target as it was: its Guard's settings and profile, where the campaign serves it; else how it is reached."""

    settings: Mapping[str, Any] | None
    profile: str
    fresh: bool
    tls: Tls | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """All that a campaign found: arrays by unit; what failed, and why; the seconds of work in it."""

    campaign: Campaign
    plan: Plan
    inputs: inputs.Inputs
    targets: Mapping[TargetName, Served]
    model_sha256: str
    found: Mapping[Unit, Arrays]
    failures: Mapping[Unit, str]
    seconds: float


@dataclass(frozen=True, slots=True)
class How:
    """Who works: so many local processes, or a Ray cluster."""

    jobs: int = 1
    ray: str | None = None

    def pool(self, screen: Screen) -> Pool:
        """Raises RayMissing."""
        if self.ray is not None:
            return pool.on_ray(self.ray)
        return pool.here(screen.at_work) if self.jobs == 1 else pool.local(self.jobs)


class EndpointAway(RuntimeError):
    """An endpoint did not even say what it makes of the victims as they are."""


def everything(_unit: Unit) -> bool:
    """All units of a campaign."""
    return True


def replay(
    campaign: Campaign, directory: Path, how: How, screen: Screen, wanted: Callable[[Unit], bool] = everything
) -> Replayed:
    """Do what is not done yet. Raises Busy, CampaignError, DataUnavailable, ChildFailed, EndpointAway, RayMissing.

    wanted:  which units, beside those that they need. A target of which none is wanted is not served.
    """
    workers = how.pool(screen)
    with shelf.open_shelf(directory) as kept:
        read = inputs.load(campaign.data, screen.say)
        if read.note:
            screen.say(f"Note: {read.note}")
        targets, plan = _prepare(campaign, read, directory, screen, wanted)
        run = _Run(campaign, plan, targets, directory, kept, screen, workers, remote=how.ray is not None)
        phases = _phases(plan, wanted)
        screen.expect({unit: _weight(plan, unit) for units in phases for unit in units})
        for units in phases:
            run.phase(units)
    found = {unit: run.found[unit] for units in phases for unit in units if unit in run.found}
    return Replayed(campaign, plan, read, targets, _model_sha256(campaign), found, run.failures, run.seconds)


def _phases(plan: Plan, wanted: Callable[[Unit], bool]) -> tuple[list[Unit], list[Unit]]:
    second = list(filter(wanted, plan.second()))
    needed = {other for unit in second for other in plan.needs(unit)}
    return [unit for unit in plan.first() if unit in needed or wanted(unit)], second


@dataclass(slots=True)
class _Run:
    """What is done so far."""

    campaign: Campaign
    plan: Plan
    targets: Mapping[TargetName, Served]
    directory: Path
    kept: shelf.Shelf
    screen: Screen
    workers: Pool
    remote: bool
    found: dict[Unit, Arrays] = field(default_factory=dict)
    failures: dict[Unit, str] = field(default_factory=dict)
    seconds: float = 0.0

    def phase(self, units: Sequence[Unit]) -> None:
        """What an earlier run did, then the rest."""
        missing = [unit for unit in units if not self._stored(unit) and not self._hopeless(unit)]
        with _places(self.campaign, self.targets, missing, self.directory, remote=self.remote) as places:
            tasks = [self._task(unit, places) for unit in missing]
            for unit, done in self.workers(tasks) if tasks else ():
                if isinstance(done, Failed):
                    self._fail(unit, done.reason)
                else:
                    self.kept.put(unit.name, done.arrays, {"unit": unit.name, "seconds": done.seconds})
                    self.found[unit], self.seconds = done.arrays, self.seconds + done.seconds
                    self.screen.finished(unit, done.arrays)

    def _stored(self, unit: Unit) -> bool:
        stored = self.kept.get(unit.name)
        if stored is None:
            return False
        self.found[unit], self.seconds = stored[0], self.seconds + stored[1]["seconds"]
        self.screen.finished(unit, stored[0], kept=True)
        return True

    def _hopeless(self, unit: Unit) -> bool:
        lost = [other for other in self.plan.needs(unit) if other in self.failures]
        if lost:
            self._fail(unit, "its crafting failed")
        return bool(lost)

    def _task(self, unit: Unit, places: Mapping[TargetName, Place]) -> Task:
        needed = [self.found[other] for other in self.plan.needs(unit)]
        return self.plan.task(unit, needed, places[target_of(unit)] if unit.target else None)

    def _fail(self, unit: Unit, reason: str) -> None:
        if unit.kind == "clean":
            raise EndpointAway(f"the {unit.target} endpoint: {reason}")
        self.failures[unit] = reason
        self.screen.failed(unit, reason)


def _prepare(
    campaign: Campaign, read: inputs.Inputs, directory: Path, screen: Screen, wanted: Callable[[Unit], bool]
) -> tuple[Mapping[TargetName, Served], Plan]:
    """The targets' settings and profiles, and the plan, whose keys know both."""
    drawn = Plan(campaign, read, Fingerprints("", "", dict.fromkeys(TARGETS, "")))
    asked = {unit.target for unit in (*drawn.first(), *drawn.second()) if wanted(unit)}
    targets, prints = {}, {}
    for name in TARGETS:
        target = campaign.target(name)
        if name not in asked:
            targets[name], prints[name] = Served(None, "", fresh=False), ""
        elif target.serve is None:
            targets[name] = Served(None, "", fresh=False, tls=protection(name, target))
            prints[name] = shelf.key(address=target.address, headers=sorted(target.headers), tls=_print(targets[name]))
        else:
            targets[name], prints[name] = _served(name, campaign, target.serve, drawn, directory, screen)
        prints[name] = shelf.key(of=prints[name], asked=campaign.model.model_dump(mode="json", exclude=_NOT_ASKED))
    code = serving.code_digest("adversary", _AFTERWARDS)
    print_of = Fingerprints(code, shelf.key(file=_model_sha256(campaign), torch=campaign.model.torch), prints)
    return targets, Plan(campaign, read, print_of)


def _print(target: Served) -> str:
    """What its calls show of the caller."""
    tls = target.tls
    return "" if tls is None else f"{sha256(tls.cert or b'')} {tls.server_name}"


def _model_sha256(campaign: Campaign) -> str:
    return "" if campaign.model.onnx is None else sha256(_read(campaign.model.onnx))


def _served(
    name: TargetName, campaign: Campaign, serve: Serve, plan: Plan, directory: Path, screen: Screen
) -> tuple[Served, str]:
    profile, learned = None, ""
    if serve.fit:
        clean = plan.drawn.clean(serve.fit)
        profile, learned = serving.fitted(serve, campaign.model, clean, directory, screen.say)
    settings = serving.settings_of(serve, campaign.model, profile)
    fresh = name == GUARDED if serve.fresh is None else serve.fresh
    plain = yaml.safe_dump(serving.without_paths(settings), sort_keys=True)
    return Served(settings, learned, fresh), shelf.key(
        settings=plain, learned=learned, fresh=fresh, guard=serving.code_digest("guard"), profile=_profile(settings)
    )


def _profile(settings: Mapping[str, Any]) -> str:
    """A digest of the profile that the settings name."""
    named = settings["models"][0].get("profile")
    return "" if named is None else sha256(_read(Path(named) / "profile.json"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CampaignError("", f"cannot read {path}: {error}") from None


@contextmanager
def _places(
    campaign: Campaign, targets: Mapping[TargetName, Served], units: Sequence[Unit], directory: Path, *, remote: bool
) -> Iterator[Mapping[TargetName, Place]]:
    """Where the units' endpoints are; what need not be fresh is served here, once, while the block runs."""
    secret = hashlib.sha256(f"{campaign.name} {campaign.seeds}".encode()).hexdigest()
    keys = _keys(campaign)
    with ExitStack() as stack:
        places = {}
        for name in {target_of(unit) for unit in units if unit.target}:
            target, served = campaign.target(name), targets[name]
            address, settings = target.address or "", served.settings
            if settings is not None and not served.fresh and not remote:
                place = directory / "served" / name
                address, _ = stack.enter_context(serving.served(settings, secret, place))
                settings = None
            headers = tuple((key.lower(), value) for key, value in sorted(target.headers.items()))
            places[name] = Place(address, settings, secret, headers, keys, served.tls)
        yield places


def _keys(campaign: Campaign) -> tuple[str, ...]:
    path = campaign.identities.keys_file
    if path is None:
        return ()
    keys = tuple(line.strip() for line in _read(path).decode().splitlines() if line.strip())
    if not keys:
        raise CampaignError("identities.keys_file", f"{path} has no keys")
    return keys


def _weight(plan: Plan, unit: Unit) -> int:
    n = unit.stop - unit.start
    if not unit.attack or unit.kind == "send":
        return n * _OUTSIDE
    attack = plan.attack(unit.attack)
    if unit.kind == "steal" or attack.entry.joint:
        n = 1  # its budget is for all of it
    return n * budget_of(attack) * (1 if unit.kind == "craft" else _OUTSIDE)
