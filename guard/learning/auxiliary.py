"""The auxiliary: a small network that answers like the served model and withstands small perturbations.

It is distilled from the served model's answers on clean inputs (no labels are needed), and trained adversarially: each
step sees the inputs with random noise and with perturbations, and wants the served model's answers to the inputs as
they are. Half of the perturbations are one signed gradient step on the auxiliary itself; half are one or three on a
guide, distilled alike but without perturbations. The first kind makes the auxiliary costly to fool; the second is what
attacks on the served model look like from here, and costs hardly any agreement on clean inputs.

Source:       Wong, Rice, Kolter 2020, arXiv:2001.03994 (FGSM from a random start); Hinton et al. 2015, arXiv:1503.02531
              (distillation); Tramer et al. 2018, arXiv:1705.07204 (perturbations made on another network). The gradient
              at the noisy inputs, which the first step needs, teaches, too.
Answers:      the profile's network "auxiliary": `logits` (N, C), `features` (N, F), `embedding` (N, at most 64) of
              length 1.
Known bypass: gradients through both networks: the table of results has that attack.
Cost:         for 45,000 images of 32x32x3 about twenty minutes on one core with AVX512-BF16, a third of it the guide.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from guard.learning import Tell
from guard.learning._export import export, rebuilt
from guard.learning._networks import EMBEDDING, Auxiliary, Plan, auxiliary_plan, folded
from guard.learning._perturbing import Ball, climb, soft_loss
from guard.learning._training import (
    FEWEST_ROWS,
    IMAGE_RANK,
    Pace,
    Rows,
    in_parts,
    learn,
    moved,
    quick,
    seeded,
    suited,
    tensor,
)
from guard.types import Array, Material

OUTPUTS = ("logits", "features", "embedding")
FOREIGN_STEPS = (1, 3)
_EMBEDDED = 5000  # rows that the embedding's directions come from, at most


@dataclass(frozen=True, slots=True)
class Options:
    """How the auxiliary learns.

    eps:     the largest perturbation, linf in unit form; 0: none, a plain distillation.
    even:    rows of every eps up to that one; else all of that one.
    noisy:   the share of the loss on the noisy inputs; the rest is on the perturbed ones.
    foreign: the largest perturbation of those made on the guide, rows of every eps up to that one; 0: none are.
    guide:   how the guide learns, where there is one; None: as its default is.
    """

    eps: float
    pace: Pace
    even: bool = False
    noisy: float = 0.5
    foreign: float = 0.0
    guide: Pace | None = None


def defaults(shape: tuple[int, ...]) -> Options:
    """What suits inputs of this shape, (H, W, C) or (D,)."""
    if len(shape) + 1 != IMAGE_RANK:
        return Options(0.05, Pace(epochs=20, least=1000, most=8000, batch=128, rate=0.05), foreign=0.1)
    if shape[-1] == 1:
        pace = Pace(epochs=4, least=800, most=4000, batch=128, rate=0.1)
        return Options(0.3, suited(pace, shape), even=True, foreign=0.3)
    pace = Pace(epochs=12, least=800, most=6000, batch=128, rate=0.15)
    return Options(2 / 255, suited(pace, shape), foreign=8 / 255)


def train(material: Material, raw: Mapping[str, bytes], tell: Tell, options: Options | None = None) -> bytes:
    """The auxiliary as an ONNX file. Raises ValueError where rows or answers are missing."""
    del raw  # it is the first network
    probs = answers(material)
    shape = material.x.shape[1:]
    plan = auxiliary_plan(shape, material.classes)
    chosen = options or defaults(shape)
    guide = make_guide(material, chosen.guide, tell) if chosen.eps and chosen.foreign else None
    with seeded(material.seed) as rng:
        model = distil(material.x, probs, plan, chosen, guide, rng=rng, tell=tell)
        embed(model, material.x[rng.permutation(len(material.x))[:_EMBEDDED]])
        return export(model, plan, OUTPUTS)


def load(raw: bytes) -> Auxiliary:
    """The torch module of a file that `train` wrote. Raises ValueError where it is another network."""
    return rebuilt(raw, Auxiliary)


def guide_pace(shape: tuple[int, ...]) -> Pace:
    """As the auxiliary's, two thirds as long."""
    pace = defaults(shape).pace
    return replace(pace, epochs=pace.epochs * 2 // 3, least=pace.least * 2 // 3, most=pace.most * 2 // 3)


def make_guide(material: Material, pace: Pace | None, tell: Tell) -> Auxiliary:
    """A network distilled without perturbations, as easily swayed as the served model: to make perturbations on."""
    probs, shape = answers(material), material.x.shape[1:]
    plan, options = auxiliary_plan(shape, material.classes), Options(0.0, pace or guide_pace(shape))
    with seeded(material.seed) as rng:
        made = distil(material.x, probs, plan, options, rng=rng, tell=tell, what="guide")
    return made.requires_grad_(requires_grad=False)


def answers(material: Material) -> Array:
    """The served model's answers, (N, C). Raises ValueError where an auxiliary cannot learn from them."""
    if material.probs is None:
        raise ValueError("an auxiliary learns from the served model's probabilities, and it answers with labels only")
    if len(material.x) < FEWEST_ROWS:
        raise ValueError(f"an auxiliary needs {FEWEST_ROWS} clean inputs to learn from; there are {len(material.x)}")
    if material.probs.shape != (len(material.x), material.classes):
        raise ValueError(
            f"the answers have the shape {material.probs.shape}, not {(len(material.x), material.classes)}"
        )
    return np.asarray(material.probs, np.float32)


def distil(
    x: Array,
    probs: Array,
    plan: Plan,
    options: Options,
    guide: Auxiliary | None = None,
    *,
    rng: np.random.Generator,
    tell: Tell,
    what: str = "auxiliary",
) -> Auxiliary:
    """A network of this plan that has learned to answer so, folded. Call it within `seeded`."""
    model, images = Auxiliary(plan, fold=False), plan["kind"] == "images"
    _scale(model, x)
    if images:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(some: Tensor, wanted: Tensor) -> Tensor:
        with quick(images=images):
            logits = model.logits(some)
        return soft_loss(logits, wanted)

    def backward(rows: Rows) -> None:
        wanted, clean = torch.from_numpy(probs[rows]), tensor(moved(x[rows], rng))
        if not options.eps:
            loss(clean, wanted).backward()  # type: ignore[no-untyped-call]
            return
        ball = Ball.around(clean, options.eps, even=options.even)
        noisy = ball.start().requires_grad_()
        (options.noisy * loss(noisy, wanted)).backward()  # type: ignore[no-untyped-call]
        assert noisy.grad is not None  # noqa: S101 - for the type checker
        perturbed = ball.step(noisy.detach(), noisy.grad)
        if guide is not None:
            half = len(rows) // 2
            steps = int(rng.choice(FOREIGN_STEPS))
            perturbed[:half] = perturb(guide, clean[:half], wanted[:half], options.foreign, steps)
        ((1.0 - options.noisy) * loss(perturbed, wanted)).backward()  # type: ignore[no-untyped-call]

    learned = learn(model, backward, options.pace, len(x), rng=rng, tell=tell, what=what)
    made = folded(Auxiliary(plan), learned)
    assert isinstance(made, Auxiliary)  # noqa: S101 - for the type checker
    return made


def perturb(guide: Auxiliary, clean: Tensor, wanted: Tensor, eps: float, steps: int) -> Tensor:
    """Perturbed up the guide's loss, each row within an eps of its own up to this one."""

    def loss(some: Tensor) -> Tensor:
        with quick(images=guide.image):
            logits = guide.logits(some)
        return soft_loss(logits, wanted)

    return climb(Ball.around(clean, eps), loss, steps)


def _scale(model: Auxiliary, x: Array) -> None:
    """Each channel or feature to mean 0 and deviation 1; one that hardly varies is not blown up."""
    axes = tuple(range(x.ndim - 1))
    shape = model.mean.shape
    model.mean.copy_(tensor(x.mean(axes, dtype=np.float64)).reshape(shape))
    model.deviation.copy_(tensor(np.maximum(x.std(axes, dtype=np.float64), 0.01)).reshape(shape))


def embed(model: Auxiliary, x: Array) -> None:
    """Let the embedding be the features' directions of largest variance over these rows."""
    features = in_parts(model.features, x).astype(np.float64)
    centre = features.mean(0)
    _, _, directions = np.linalg.svd(features - centre, full_matrices=False)
    size = model.directions.shape[1]
    kept = np.zeros((features.shape[1], size), np.float32)
    kept[:, : min(size, len(directions))] = directions[: min(size, EMBEDDING)].T
    model.centre.copy_(tensor(centre))
    model.directions.copy_(torch.from_numpy(kept))
