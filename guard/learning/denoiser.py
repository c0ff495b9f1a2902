"""The denoiser: takes perturbations away so that a network's answers become those to the clean input.

A small U-net says what to subtract. It learns on clean inputs and on ones perturbed by one or three signed gradient
steps of many sizes; its loss is the distance of the guide's logits on the denoised input from those on the clean one.
The guide is distilled from the served model as the auxiliary is, but without perturbations: what sways the auxiliary is
another thing than what sways the served model, and that is to be taken away.

Source:       Liao et al. 2018, arXiv:1712.02976 (HGD, its logits-guided form).
Answers:      the profile's network "denoiser": `x`, of its input's shape, in [0, 1].
Known bypass: gradients through denoiser and model (Athalye, Carlini 2018, arXiv:1804.03286).
Cost:         for 45,000 images of 32x32x3 about twelve minutes on one core with AVX512-BF16, half of it the guide.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.learning import Tell, auxiliary
from guard.learning._export import export
from guard.learning._networks import Auxiliary, Convolution, Plan, folded
from guard.learning._training import FEWEST_ROWS, IMAGE_RANK, Pace, Rows, learn, moved, quick, seeded, suited, tensor
from guard.types import Material

OUTPUTS = ("x",)
_DEEPEST = 3  # halvings, at most
_FEWEST = 4  # pixels that a side keeps
_LARGEST = 64  # pixels of a side; of larger images, squares of pixels become channels


@dataclass(frozen=True, slots=True)
class Options:
    """How the denoiser learns.

    eps:     the largest perturbation that it learns to take away, linf in unit form.
    guide:   how the guide learns; None: as its default is.
    pixels:  the weight of the distance in pixels, beside that in logits.
    """

    eps: float
    pace: Pace
    guide: Pace | None = None
    pixels: float = 1.0


def defaults(shape: tuple[int, ...]) -> Options:
    """What suits inputs of this shape, (H, W, C) or (D,)."""
    eps = auxiliary.defaults(shape).foreign
    return Options(eps, suited(Pace(4, least=600, most=2000, batch=128, rate=0.002, average=0.99, adam=True), shape))


def plan_for(shape: Sequence[int]) -> dict[str, Any]:
    """A U-net as deep as the image allows, or two layers for vectors."""
    if len(shape) + 1 != IMAGE_RANK:
        return {"kind": "vectors", "shape": list(shape), "widths": [max(32, min(256, 2 * shape[0]))]}
    fold, side = 1, min(shape[:2])
    while side // fold > _LARGEST and not (shape[0] % (2 * fold) or shape[1] % (2 * fold)):
        fold *= 2
    depth = sum(side // fold >> i >= _FEWEST for i in range(1, _DEEPEST))
    return {"kind": "images", "shape": list(shape), "widths": [24 << i for i in range(depth + 1)], "squares": fold}


def _silence(layer: nn.Conv2d | nn.Linear) -> None:
    """Let a network begin by subtracting nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Unet(nn.Module):
    """(N, C, H, W) -> the same shape: down and up again, what was seen at each size handed across."""

    def __init__(self, channels: int, widths: Sequence[int], *, fold: bool) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.enter = Convolution(channels, widths[0], fold=fold)
        self.down = nn.ModuleList(Convolution(i, o, stride=2, fold=fold) for i, o in pairs)
        self.refine = nn.ModuleList(Convolution(o, o, fold=fold) for _, o in pairs)
        self.up = nn.ModuleList(Convolution(i + o, i, fold=fold) for i, o in reversed(pairs))
        self.leave = nn.Conv2d(widths[0], channels, 3, padding=1)
        _silence(self.leave)

    def forward(self, x: Tensor) -> Tensor:
        """What to subtract."""
        seen = [torch.relu(self.enter(x))]
        for down, refine in zip(self.down, self.refine, strict=True):
            seen.append(torch.relu(refine(torch.relu(down(seen[-1])))))
        deep = seen.pop()
        for up in self.up:
            across = seen.pop()
            larger = functional.interpolate(deep, size=across.shape[2:], mode="nearest")
            deep = torch.relu(up(torch.cat([larger, across], 1)))
        return self.leave(deep)  # type: ignore[no-any-return]


class Denoiser(nn.Module):
    """(N, H, W, C) or (N, D) -> the same shape, in [0, 1]."""

    def __init__(self, plan: Plan, *, fold: bool = True) -> None:
        super().__init__()
        self.image, size, widths = plan["kind"] == "images", plan["shape"][-1], plan["widths"]
        if self.image:
            squares = plan["squares"]
            unet = Unet(size * squares**2, widths, fold=fold)
            self.noise: nn.Module = nn.Sequential(nn.PixelUnshuffle(squares), unet, nn.PixelShuffle(squares))
        else:
            last = nn.Linear(widths[0], size)
            _silence(last)
            self.noise = nn.Sequential(nn.Linear(size, widths[0]), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """The input without its perturbation."""
        noise = self.noise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if self.image else self.noise(x)
        denoised: Tensor = (x - noise).clamp(0.0, 1.0)
        return denoised


def train(material: Material, raw: Mapping[str, bytes], tell: Tell, options: Options | None = None) -> bytes:
    """The denoiser as an ONNX file. Raises ValueError where rows or answers are missing."""
    if len(material.x) < FEWEST_ROWS:
        raise ValueError(f"a denoiser needs {FEWEST_ROWS} clean inputs to learn from; there are {len(material.x)}")
    del raw  # it has a guide of its own
    shape = material.x.shape[1:]
    chosen, plan = options or defaults(shape), plan_for(shape)
    guide = auxiliary.make_guide(material, chosen.guide, tell)
    with seeded(material.seed) as rng:
        model = Denoiser(plan, fold=False)
        if model.image:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss = _loss(model, guide, chosen, rng)

        def backward(rows: Rows) -> None:
            loss(tensor(moved(material.x[rows], rng))).backward()  # type: ignore[no-untyped-call]

        learned = learn(model, backward, chosen.pace, len(material.x), rng=rng, tell=tell, what="denoiser")
        return export(folded(Denoiser(plan), learned), plan, OUTPUTS)


def _loss(model: Denoiser, guide: Auxiliary, options: Options, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """Clean inputs -> what the denoiser costs on a third of them, and on the others perturbed."""

    def logits(x: Tensor) -> Tensor:
        with quick(images=model.image):
            answers: Tensor = guide.logits(x)
        return answers.float()

    def loss(clean: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = logits(clean)
        third, steps = len(clean) // 3, int(rng.choice(auxiliary.FOREIGN_STEPS))
        probs = torch.softmax(wanted[third:], 1)
        given = torch.cat([clean[:third], auxiliary.perturb(guide, clean[third:], probs, options.eps, steps)])
        with quick(images=model.image):
            denoised: Tensor = model(given).float()
        return functional.l1_loss(logits(denoised), wanted) + options.pixels * functional.l1_loss(denoised, clean)

    return loss
