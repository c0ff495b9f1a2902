"""What a library's attack is, what it is told, and what it is set upon."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adversary.attack import Array

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """What the campaign gives ours. own: the options of our attack, its defaults included."""

    eps: float
    budget: int
    own: Options


@dataclass(frozen=True, slots=True, eq=False)
class Prey:
    """What a library is set upon.

    x, y:   (N, ...) float32 in [0, 1], (N,) labels; an attack that asks has one victim at a time.
    start:  (N, ...) images of another class that are answered otherwise than y; None: the attack finds its own.
    """

    x: Array
    y: Array
    eps: float
    seed: int
    classes: int
    start: Array | None = None


Sees = Literal["model", "labels", "log-probabilities", "probabilities"]
Run = Callable[[Any, Prey, Options], Array]
"""(a torch module, or a Gauge where the attack sees answers only; prey; options) -> x_adv (N, ...)."""


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """A library's attack.

    attack:   the name of ours in the catalogue.
    library:  the distribution it comes from, and `name` what it is called there.
    options:  the keywords it is made with: ours, where it has them.
    differs:  from ours, by design.
    """

    attack: str
    library: str
    name: str
    sees: Sees
    options: Callable[[Given], dict[str, Any]]
    run: Run
    differs: str
