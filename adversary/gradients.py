"""Gradients of a torch model, in and out as numpy arrays: what white-box attacks share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from adversary.attack import Array

Model = Callable[[Tensor], Tensor]
BATCH = 256


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch and numpy on one thread: small arrays gain nothing by more, and crawl beside busy neighbours."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def loss_gradient(model: Model, x: Array, y: Array) -> Array:
    """(N, ...), (N,) -> the gradient of each row's cross-entropy in that row."""
    parts = []
    for start in range(0, len(x), BATCH):
        rows = torch.from_numpy(np.ascontiguousarray(x[start : start + BATCH], np.float32)).requires_grad_()
        labels = torch.from_numpy(np.asarray(y[start : start + BATCH], np.int64))
        loss = functional.cross_entropy(model(rows), labels, reduction="sum")
        parts.append(torch.autograd.grad(loss, rows)[0].numpy())
    return np.concatenate(parts) if parts else np.zeros_like(x)


def predict(model: Model, x: Array) -> Array:
    """(N, ...) -> (N,) labels."""
    with torch.no_grad():
        parts = [
            model(torch.from_numpy(np.ascontiguousarray(x[start : start + BATCH], np.float32))).argmax(1).numpy()
            for start in range(0, len(x), BATCH)
        ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def within_linf(x: Array, x_adv: Array, eps: float) -> Array:
    """Project onto the linf ball around x, and onto [0, 1]."""
    return np.asarray(np.clip(np.clip(x_adv, x - eps, x + eps), 0.0, 1.0), np.float32)
