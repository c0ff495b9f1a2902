"""Perturbations made while a network learns. Every row has its own eps, drawn evenly from nothing to the largest."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_OVERSHOOT = 1.25  # of eps: Wong et al. 2020's step


def soft_loss(logits: Tensor, probs: Tensor) -> Tensor:
    """The mean cross-entropy of the answers with those of the served model."""
    return -(probs * functional.log_softmax(logits.float(), 1)).sum(1).mean()


@dataclass(frozen=True, slots=True)
class Ball:
    """The linf ball around each row: eps broadcasts against x."""

    x: Tensor
    eps: Tensor

    @classmethod
    def around(cls, x: Tensor, eps: float, *, even: bool = True) -> "Ball":
        """Even: rows of every eps up to this one; else this one for all."""
        shape = (len(x),) + (1,) * (x.ndim - 1)
        return cls(x, eps * torch.rand(shape) if even else torch.full(shape, eps))

    def start(self) -> Tensor:
        """Anywhere in it."""
        return ((2.0 * torch.rand_like(self.x) - 1.0) * self.eps + self.x).clamp(0.0, 1.0)

    def step(self, x: Tensor, gradient: Tensor, length: float = _OVERSHOOT) -> Tensor:
        """From x up the gradient by `length` * eps, and back into the ball and the bounds."""
        moved = x + length * self.eps * gradient.sign()
        return torch.maximum(torch.minimum(moved, self.x + self.eps), self.x - self.eps).clamp(0.0, 1.0).detach()


def climb(ball: Ball, loss: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """`steps` signed steps up the loss from a random start: one is FGSM's, more are PGD's."""
    x = ball.start()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x)
        x = ball.step(x, gradient, _OVERSHOOT if steps == 1 else 2.5 / steps)
    return x.detach()
