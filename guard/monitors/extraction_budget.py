"""How good a copy of the served model this caller's answered queries could support by now, by a calibrated curve.

Not a test against benign behaviour: a busy benign caller reaches a high agreement too, and no p-value is made of it.
Thresholds on the estimate itself make a caller's level (see `guard.extraction_budget`).

Source:  Knockoff Nets, Orekondy et al. 2019, arXiv:1812.02766 (what a copy is worth after n answered natural images);
         budgets by what queries give away: Dziedzic et al. 2022, arXiv:2201.09243.
Answers: extraction with inputs of the model's own kind, which looks like use. Known bypass: more callers (each has a
         budget of his own); thieves who learn faster than the student at `guard fit` did (pretrained, semi-supervised).
Args:    past: of the caller: answered fresh rows, and recent ones for the share that is not repeated almost unchanged.
         Learns the curve: agreement of small students with the model after 10, 30, 100, ... clean answers. Needs the
         extra `fit` and some minutes of one core, so only where it is asked for.
Returns: (N,) estimated agreement in [0, 1], the rows of this query counted; the same or higher from row to row.
Cost:    0.1 to 1 ms a query (64 to 256 recent rows); no upstream row. Arrays: a few numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.extraction_budget import Curve, Limits, effective_rows, fresh_share
from guard.registry import register
from guard.types import Array, Equipment, Level, Material, Past, Seen

_Share = Annotated[float, Field(gt=0, le=1)]


@register("monitor", "extraction_budget")
@dataclass(frozen=True)
class ExtractionBudget:
    """watch_at, suspect_at, hostile_at: agreement from which a caller has that level; None: never."""

    opt_in: ClassVar[bool] = True
    measures: ClassVar[str] = "agreement"
    free: ClassVar[tuple[str, ...]] = ("watch_at", "suspect_at", "hostile_at")  # the curve is the same for all
    watch_at: _Share | None = 0.5
    suspect_at: _Share | None = 0.7
    hostile_at: _Share | None = None

    def learn(self, material: Material) -> Mapping[str, Array]:
        """The curve. Raises ValueError: too few rows, no torch."""
        try:
            from guard.learning import extraction_curve  # noqa: PLC0415 - only to fit
        except ImportError as error:
            raise ValueError(f"it needs the extra `fit` ({error.name} is not installed)") from None
        counts, agreement = extraction_curve.measure(material, tell=material.tell)
        return {"counts": counts, "agreement": agreement}

    def equip(self, equipment: Equipment) -> "_Working":
        """The monitor at work. Raises ValueError for a curve that is none."""
        curve = Curve.of(equipment.arrays["counts"], equipment.arrays["agreement"])
        return _Working(curve, Limits(self.watch_at, self.suspect_at, self.hostile_at))


@dataclass(frozen=True, eq=False)
class _Working:
    curve: Curve
    limits: Limits
    measures: ClassVar[str] = "agreement"

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        """-> (N,) the agreement once each row is answered."""
        known, share = effective_rows(past.rows, past.recent), fresh_share(past.recent)
        fresh = np.cumsum([not row.match.duplicate for row in rows])
        return np.array([self.curve.at(known + share * float(n)) for n in fresh], dtype=np.float64)

    def level(self, agreement: float) -> Level:
        """What the caller reaches by it."""
        return self.limits.level(agreement)
