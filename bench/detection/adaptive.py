"""Attackers who know Guard's weights: through PID and feature squeezing, and through every purifier.

Against detectors: PGD towards one wrong class, and towards all networks agreeing on it: its log-probability by the
victim, plus lambda times that by the auxiliary (rebuilt in torch from its ONNX file), which is PID's score, plus lambda
times the mean of those by the victim on squeezed versions of the input, with the identity for the squeezers' derivative
(BPDA). The class is the one that they give together most, and stays from a quarter of the steps on. Of all iterates
that fool the model, the one is kept whose p-values are largest, by the profile itself. What he does not know is the
secret. Several lambdas are tried, against PID alone and against both.

One more attacker goes for the chosen combination: PID, the learned denoiser and `input_statistics` are all in his loss
with their true derivatives (bench.detection.differentiable), the statistics' score where it is above a usual clean
input's. Roughness is what the statistics see, so he starts at the image itself and moves by gradients that are blurred
over BLUR pixels, not by their signs: signs, and Adam, were tried on 50 images, and are noticed.

Against purifiers: the adversary's BPDA, averaged over draws of his own where the purifier is random (EOT). Through
those that are networks he goes with their own derivative: the identity in its place flatters them.

Sources: Athalye, Carlini, Wagner 2018, arXiv:1802.00420; Carlini, Wagner 2017, arXiv:1705.07263 (detectors fall to an
         attacker who has them in his loss); Tramer, Carlini, Brendel, Madry 2020, arXiv:2002.08347.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adversary.adaptive import bpda
from adversary.attack import Array
from adversary.gradients import one_thread
from adversary.tensors import CLEAR, classes, each, margin, rows
from bench.detection import differentiable, fitted, purify, stagework
from bench.detection.subjects import Subject
from guard.assembly import Stage
from guard.learning import autoencoder, auxiliary, denoiser
from guard.learning._export import rebuilt

EPS = {"mnist": 0.3, "cifar10": 8 / 255}
STEPS = 80
LAMBDAS = (0.3, 1.0, 3.0)
DRAWS = 5
_PART = 100
_STAGES = {
    "PID": "pid", "squeezing": "feature_squeezing", "denoiser": "purified_answer", "statistics": "input_statistics",
}  # fmt: skip
COMBINED = ("PID", "denoiser", "statistics")
COMBINED_STEPS = 200
BLUR = 1.0
_CHOOSING = 0.25  # of the steps
NETWORKS: Mapping[str, tuple[str, Callable[[dict[str, Any]], nn.Module]]] = {
    "learned_denoiser": ("denoiser", denoiser.Denoiser), "magnet_reformer": ("autoencoder", autoencoder.Autoencoder),
}  # fmt: skip
"""Purifiers that are networks of the profile: which one, and how it is rebuilt in torch."""


@dataclass(frozen=True, slots=True)
class Aware:
    """Who knows what: `through` are the detectors in the loss, `weight` is lambda."""

    through: tuple[str, ...]
    weight: float

    @property
    def name(self) -> str:
        """As the table calls it."""
        return f"{' + '.join(self.through)}, lambda {self.weight:g}" if self.through else "PGD, unaware"


def variants(data: str) -> tuple[Aware, ...]:
    """All attackers of the table."""
    alone = Aware(("squeezing",), 1.0)
    if "auxiliary" not in fitted.networks_of(data):
        return (Aware((), 0.0), alone)
    through: list[tuple[str, ...]] = [("PID",), ("PID", "squeezing")]
    if "denoiser" in fitted.networks_of(data):
        through.append(COMBINED)
    return (Aware((), 0.0), alone, *(Aware(names, weight) for names in through for weight in LAMBDAS))


def attack(
    on: Subject, aware: Aware, stages: Mapping[str, Stage], x: Array, y: Array, *, eps: float, seed: int,
    steps: int | None = None,
) -> Array:  # fmt: skip
    """(N, C, H, W), (N,) -> (N, C, H, W) within eps. stages: the profile's detectors, by name."""
    files, smooth = fitted.networks_of(on.name), "statistics" in aware.through
    known = auxiliary.load(files["auxiliary"]) if "PID" in aware.through else None
    cleans = rebuilt(files["denoiser"], denoiser.Denoiser) if "denoiser" in aware.through else None
    judges = {name: stages[_STAGES[name]] for name in aware.through}
    steps = steps or (COMBINED_STEPS if smooth else STEPS)
    rng, parts = np.random.default_rng(seed), []
    with one_thread():
        for at in range(0, len(x), _PART):
            part, reach = slice(at, at + _PART), 0.0 if smooth else eps
            start = np.asarray(x[part] + rng.uniform(-reach, reach, x[part].shape), np.float32)
            loss = _Loss(on.model, known, cleans, judges, classes(y[part]), aware.weight)
            move = _smooth(eps, steps, x.shape[1]) if smooth else _signed(eps, steps)
            parts.append(_ascend(loss, rows(x[part]), rows(start), eps, steps, move).numpy())
    return np.concatenate(parts)


Move = Callable[[Tensor, int], Tensor]
"""(a gradient, which step) -> how far to go."""


def _signed(eps: float, steps: int) -> Move:
    """Signed steps that shrink."""
    return lambda gradient, step: 2.5 * eps / steps * (1.5 - step / steps) * gradient.sign()


def _smooth(eps: float, steps: int, channels: int) -> Move:
    """Blurred gradients with momentum, the largest value a seventh of eps at first, that fall to nothing."""
    at = torch.arange(-round(3 * BLUR), round(3 * BLUR) + 1).float()
    line = torch.exp(-(at**2) / (2 * BLUR**2))
    kernel = (line[:, None] * line / line.sum() ** 2).expand(channels, 1, -1, -1)
    momentum: Tensor | float = 0.0

    def move(gradient: Tensor, step: int) -> Tensor:
        nonlocal momentum
        wide = functional.pad(gradient, (len(at) // 2,) * 4, mode="reflect")
        blurred = functional.conv2d(wide, kernel, groups=channels)
        momentum = 0.9 * momentum + blurred / each(blurred.abs().flatten(1).mean(1) + 1e-12, blurred)
        way = momentum / each(momentum.abs().flatten(1).amax(1) + 1e-12, momentum)
        return eps / 7.0 * (1.0 - step / (steps + 1)) * way

    return move


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """One look at x. answers: log-probabilities (N, C) by the victim, then by each network or view in the loss.

    fine: (N,) what the statistics take off.
    """

    answers: tuple[Tensor, ...]
    lead: Tensor
    said: Tensor
    fine: Tensor

    def total(self, weights: Sequence[float]) -> Tensor:
        """(N, C) what they give together."""
        return torch.stack([weight * answer for weight, answer in zip(weights, self.answers, strict=True)]).sum(0)


@dataclass(frozen=True, slots=True, eq=False)
class _Loss:
    victim: Any
    known: Any
    cleans: Any
    judges: Mapping[str, Stage]
    y: Tensor
    weight: float

    def look(self, x: Tensor) -> tuple[_Seen, list[float]]:
        """(N, ...) -> what all of them say, and their weights."""
        logits, unit = self.victim(x), stagework.unit(x.detach().numpy())
        answers, weights, said = [logits.log_softmax(1)], [1.0], np.zeros(len(x))
        probs = _probabilities(answers[0])
        if self.known is not None:
            answers.append(self.known.logits(x.permute(0, 2, 3, 1)).log_softmax(1))
            weights.append(self.weight)
            said += _alarm(self.judges["PID"], self.judges["PID"].impl.score_answer(unit, probs))
        if "squeezing" in self.judges:
            judge = self.judges["squeezing"]
            views = [self.victim(_straight(x, view)).log_softmax(1) for view in judge.impl.views(unit)]
            answers += views
            weights += [self.weight / len(views)] * len(views)
            said += _alarm(judge, judge.impl.score_views(probs, tuple(map(_probabilities, views))))
        if self.cleans is not None:
            judge = self.judges["denoiser"]
            answers.append(self.victim(self.cleans(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)).log_softmax(1))
            weights.append(self.weight)
            said += _alarm(judge, judge.impl.score_views(probs, (_probabilities(answers[-1]),)))
        fine = torch.zeros(len(x))
        if "statistics" in self.judges:
            judge = self.judges["statistics"]
            found = differentiable.score(x, judge.impl.arrays)
            fine = found.clamp(min=0.0).float()
            said += _alarm(judge, found.detach().numpy())
        seen = _Seen(tuple(answers), margin(logits.detach(), self.y), torch.from_numpy(said).float(), fine)
        return seen, weights


def _probabilities(answer: Tensor) -> Array:
    """(N, C) log-probabilities -> float64 rows that sum to 1."""
    return np.asarray(answer.detach().double().exp().numpy())


def _alarm(judge: Stage, scores: Array) -> Array:
    """(N,) -> (N,) minus the logarithm of the p-values."""
    return np.asarray(-np.log(judge.calibration.p_values(scores)))


def _straight(x: Tensor, view: Array) -> Tensor:
    """The view, its derivative taken for the identity's."""
    return x + (torch.from_numpy(stagework.planar(view)) - x).detach()


def _ascend(loss: _Loss, x: Tensor, start: Tensor, eps: float, steps: int, move: Move) -> Tensor:
    """Steps, projected; the best winner of each row, else where the margin was largest."""
    low, high = (x - eps).clamp(min=0.0), (x + eps).clamp(max=1.0)
    now = torch.minimum(torch.maximum(start, low), high)
    best, worth = now.clone(), torch.full((len(x),), -torch.inf)
    goal = loss.y
    for step in range(steps + 1):
        now = now.detach().requires_grad_()
        seen, weights = loss.look(now)
        total = seen.total(weights)
        if step <= steps * _CHOOSING:
            own = functional.one_hot(loss.y, total.shape[1]).bool()
            goal = total.detach().masked_fill(own, -torch.inf).argmax(1)
        gradient = torch.autograd.grad((total.gather(1, goal[:, None])[:, 0] - seen.fine).sum(), now)[0]
        value = torch.where(seen.lead > CLEAR, 1e3 - seen.said, seen.lead)
        better = value > worth
        best[better], worth[better] = now.detach()[better], value[better]
        now = torch.minimum(torch.maximum(now.detach() + move(gradient, step), low), high)
    return best


class _Behind(nn.Module):
    """The victim behind a network, as one network."""

    def __init__(self, cleans: nn.Module, victim: nn.Module) -> None:
        super().__init__()
        self.cleans, self.victim = cleans, victim

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the victim's logits."""
        seen = self.cleans(x.permute(0, 2, 3, 1)).clamp(0.0, 1.0)
        return self.victim(seen.permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def _itself(rows_: Array) -> Array:
    return rows_


def through_purifier(on: Subject, name: str, x: Array, y: Array, *, eps: float, seed: int, steps: int = 40) -> Array:
    """Through a purifier whose secret the attacker lacks: he draws his own, DRAWS of them a step."""
    purified: Callable[[Array], Array] = _itself
    rng, victim, draws = np.random.default_rng(seed), on.model, 1
    if name in NETWORKS:
        network, build = NETWORKS[name]
        victim = _Behind(rebuilt(fitted.networks_of(on.name)[network], build), on.model).eval()
    else:
        purified, draws = _drawn(on, name, rng)
    with one_thread():
        found = bpda.attack(
            victim, x, y, eps=eps, budget=steps * draws, rng=np.random.default_rng(seed), purify=purified,
            samples=draws,
        )  # fmt: skip
    return np.clip(found.x_adv, 0.0, 1.0)


def _drawn(on: Subject, name: str, rng: np.random.Generator) -> tuple[Callable[[Array], Array], int]:
    """The purifier under secrets of the attacker's own, a new one each time where it makes a difference."""
    upstream = stagework.Upstream(on.onnx)
    draws = DRAWS if purify.randomised(on, upstream, name) else 1
    ready = [purify.at_work(on, upstream, name, f"the attacker's {i}".encode().ljust(32)) for i in range(8 * draws)]

    def purified(rows_: Array) -> Array:
        stage = ready[int(rng.integers(len(ready)))].stage if draws > 1 else ready[0].stage
        seen = stagework.unit(rows_)
        return stagework.planar(stage.copies(seen)[0] if hasattr(stage, "copies") else stage.purify(seen))

    return purified, draws
