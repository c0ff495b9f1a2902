"""PID: prediction inconsistency: how unlikely the auxiliary network finds what the served model answers.

Adversarial examples made for one network seldom move an adversarially trained other one the same way.

Source:  Han, Lin, Zhao, Wang, He, Li, Wang, Wang, Shen 2025, arXiv:2506.03765 (an auxiliary gives the primary
         model's label a low confidence); the choice among the measures below is this project's.
Answers: static and transferred evasion of any norm. Known bypass: attacks that fool both networks at once; an
         adversarially trained auxiliary makes those dear, not impossible.
Args:    x: (N, ...) unit form, probs: (N, C), rows sum to 1.
Returns: (N,), higher = more suspicious.
Cost:    one pass of the auxiliary network; no upstream row.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.detectors._answers import jensen_shannon, log_of, log_softmax
from guard.detectors._features import AUXILIARY, logits_of
from guard.registry import register
from guard.types import Array, Equipment, Network

Measure = Literal["log_probability", "margin", "cross_entropy", "divergence"]


@register("detector", "pid")
@dataclass(frozen=True)
class Pid:
    """measure: of the inconsistency; temperature: of the auxiliary's softmax.

    log_probability: minus the auxiliary's log-probability of the served model's label, in [0, inf).
    margin:          the auxiliary's log-probability of its own label less that of the served model's, in [0, inf).
    cross_entropy:   of the served model's whole answer in the auxiliary's, [0, inf).
    divergence:      Jensen-Shannon, of the two answers, in [0, ln 2].
    """

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    measure: Measure = "log_probability"
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        return _Working(self.measure, self.temperature, equipment.networks[AUXILIARY])


@dataclass(frozen=True, eq=False)
class _Working:
    measure: Measure
    temperature: float
    auxiliary: Network

    def score_answer(self, x: Array, probs: Array) -> Array:
        """(N, ...) unit form, (N, C) -> (N,). Raises ValueError where the networks disagree about the classes."""
        logits = logits_of(self.auxiliary, x)
        if logits.shape != probs.shape:
            raise ValueError(f"the auxiliary network has {logits.shape[1]} classes, the model {probs.shape[1]}")
        log_probs = log_softmax(logits, self.temperature)
        if self.measure == "cross_entropy":
            return np.asarray(-(probs * log_probs).sum(axis=1))
        if self.measure == "divergence":
            return jensen_shannon(log_probs, log_of(probs))
        of_label = log_probs[np.arange(len(x)), probs.argmax(axis=1)]
        return np.asarray(log_probs.max(axis=1) - of_label if self.measure == "margin" else -of_label)
