"""The demo from end to end: prepare, serve twice, send everything to both, read what Guard wrote, make the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adversary import processes
from adversary.attack import Array
from adversary.data import mnist
from adversary.data.cache import write_atomic
from demo import caching, document, gallery, measure, page, prepare, verdicts
from demo import processes as guards
from demo.document import Duel
from demo.measure import Attacked
from demo.plan import CRAFTED, WALK, Plan
from demo.prepare import Images
from demo.screen import Screen

SECRET = "the demo's own secret: its runs repeat themselves"  # noqa: S105 - guards nothing


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    out: Path
    data: Path | None
    train: bool
    plan: Plan
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """What is there before anything is attacked."""

    data: mnist.Mnist
    plan: Plan
    images: Images
    file: Path
    profile: Path
    crafted: tuple[tuple[Array, Array], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """What came back from both endpoints."""

    clean_bare: measure.Clean
    clean_guarded: measure.Clean
    duels: tuple[Duel, ...]
    purified: tuple[Array, ...]
    latency: measure.Latency


def run(options: Options, screen: Screen) -> Mapping[str, Any]:
    """Everything; returns the document that lies in results.json."""
    env = processes.environment(SECRET)
    ready = _prepare(options, env, screen)
    audit = options.out / "audit.jsonl"
    audit.unlink(missing_ok=True)
    bare = _settings(options.out / "bare.yaml", ready.file, None, audit)
    guarded = _settings(options.out / "guard.yaml", ready.file, ready.profile, audit)
    with (
        processes.serving(bare, options.out / "bare.log", env) as bare_address,
        processes.serving(guarded, options.out / "guard.log", env) as guarded_address,
    ):
        sent = _send(bare_address, guarded_address, ready, screen)
    with screen.step("the report") as tell:
        told = _report(options, ready, sent, verdicts.read(audit), guarded)
        tell(1, str(options.out / "index.html"))
    return told


def _settings(path: Path, file: Path, profile: Path | None, audit: Path) -> Path:
    text = yaml.safe_dump(guards.settings(file, profile, audit), sort_keys=False)
    write_atomic(path, text.encode())
    return path


def _prepare(options: Options, env: dict[str, str], screen: Screen) -> _Ready:
    with screen.step("MNIST") as tell:
        data = mnist.load(options.data, screen.say)
        tell(1, f"{len(data.train) + len(data.test):,} images ({data.source})")
        if data.note:
            screen.say(f"Note: {data.note}")
    plan = options.plan.scaled_to(len(data.clean), len(data.test))
    images = prepare.part(data, plan)
    with screen.step("the victim") as tell:
        file = prepare.victim(data, plan, train=options.train, say=lambda word: tell(0, word))
        tell(1, file.name)
    with screen.step(f"guard fit, {plan.fit:,} clean images") as tell:
        profile = prepare.profile(data, plan, file, log=options.out / "fit.log", env=env, tell=tell)
    crafted: list[tuple[Array, Array]] = []
    with screen.step("crafting on the victim", len(CRAFTED)) as tell:
        for attack in CRAFTED:
            tell(len(crafted), attack.title)
            crafted.append(prepare.craft(attack, file, images, plan))
    return _Ready(data, plan, images, file, profile, tuple(crafted))


def _send(bare: str, guarded: str, ready: _Ready, screen: Screen) -> _Sent:
    plan, images = ready.plan, ready.images
    n = len(images.clean_x)
    with screen.step("clean traffic, bare", n) as tell:
        clean_bare = measure.clean(bare, images, plan, tell)
    with screen.step("clean traffic, guarded", n) as tell:
        clean_guarded = measure.clean(guarded, images, plan, tell)
    pairs: list[tuple[Attacked, Attacked]] = []
    with screen.step("what was crafted, to both", len(CRAFTED)) as tell:
        for attack, made in zip(CRAFTED, ready.crafted, strict=True):
            tell(len(pairs), attack.title)
            control = measure.crafted(bare, attack, images, made, None)
            pairs.append((control, measure.crafted(guarded, attack, images, made, control.outcome.clean)))
    with screen.step("HopSkipJump, bare", plan.walkers) as tell:
        control = measure.walk(bare, images, plan, tell)
    with screen.step("HopSkipJump, guarded", plan.walkers) as tell:
        pairs.append((control, measure.walk(guarded, images, plan, tell)))
    with screen.step("latency, interleaved", plan.pairs) as tell:
        latency = measure.latency(bare, guarded, images.clean_x[: plan.pairs], tell)
    purified = tuple(gallery.purify(control.outcome.x_adv) for control, _ in pairs)
    duels = _duels(pairs, [measure.answers(bare, x) for x in purified], plan)
    return _Sent(clean_bare, clean_guarded, duels, purified, latency)


def _duels(pairs: Sequence[tuple[Attacked, Attacked]], purified: Sequence[Array], plan: Plan) -> tuple[Duel, ...]:
    crafted = [
        Duel(attack.title, document.crafted_access(attack), attack.budget, *pair, labels, attack.like_paper)
        for attack, pair, labels in zip(CRAFTED, pairs, purified, strict=False)
    ]
    walk = Duel(
        "HopSkipJump", f"through the wire, {WALK.access} only, {plan.walk_budget:,} queries, {plan.walk_batch} a call",
        plan.walk_budget, *pairs[-1], purified[-1],
    )  # fmt: skip
    return (*crafted, walk)


def _report(
    options: Options, ready: _Ready, sent: _Sent, said: Mapping[str, verdicts.Verdict], settings: Path
) -> Mapping[str, Any]:
    told = {
        "data": {"source": ready.data.source, "note": ready.data.note},
        "clean": document.clean_part(sent.clean_bare, sent.clean_guarded, ready.images.clean_y, said),
        "attacks": [document.attack_part(duel, said) for duel in sent.duels],
        "paper": document.paper_part(sent.clean_guarded, sent.duels, said),
        "latency": document.latency_part(sent.latency),
        "provenance": document.provenance(
            ready.plan, options.command, data=ready.data.digest, victim=caching.file_digest(ready.file),
            profile=caching.file_digest(ready.profile / "profile.json"),
        ),
    }  # fmt: skip
    galleries = {
        duel.title: gallery.cards(duel, _started_from(duel, ready.images), purified, said)
        for duel, purified in zip(sent.duels, sent.purified, strict=True)
    }
    write_atomic(options.out / "results.json", (json.dumps(told, indent=2, allow_nan=False) + "\n").encode())
    html = page.render(told, galleries, settings.read_text(encoding="utf-8"))
    write_atomic(options.out / "index.html", html.encode())
    return told


def _started_from(duel: Duel, images: Images) -> Array:
    return images.walkers_x if duel.guarded.records else images.victims_x
