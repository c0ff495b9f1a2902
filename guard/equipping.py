"""From a stage's options to the stage at work: the networks, the arrays and the secret that it asks for.

A stage that has no `equip` works as it is. `guard fit` equips with what it has just learned, the engine with what the
profile holds; both do it here, so that what is calibrated is what serves.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guard.types import Array, Equipment, FileNetwork, Fitted, Material, Network

NETWORKS = ("auxiliary", "autoencoder", "denoiser")


def needs_of(stage: Any) -> tuple[str, ...]:
    """The networks that a stage works with."""
    return tuple(getattr(stage, "needs", ()))


def learns(stage: Any) -> bool:
    """Whether a stage keeps arrays in the profile."""
    return learner_of(stage) is not None


def learner_of(stage: Any) -> Callable[[Material], Mapping[str, Array]] | None:
    """A stage's `learn`, where it has one to speak of."""
    learn: Callable[[Material], Mapping[str, Array]] | None = getattr(stage, "learn", None)
    return learn


def equip(
    stage: Any,
    key: str,
    networks: Mapping[str, Network],
    arrays: Mapping[str, Array],
    secret: bytes,
    load: Callable[[Path], FileNetwork] | None = None,
) -> Any:
    """The stage at work. `key`: its name in the profile; the secret it gets is its own.

    load: how it gets the network of a file of its own; None: by itself.
    Raises KeyError for a network that is not there, ValueError for what the stage cannot serve.
    """
    if not isinstance(stage, Fitted):
        return stage
    own = hashlib.blake2b(key.encode(), key=hashlib.sha256(secret).digest(), digest_size=32).digest()
    return stage.equip(Equipment({name: networks[name] for name in needs_of(stage)}, arrays, own, load))
