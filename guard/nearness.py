"""How surprising it is that a row lies so near to another, by how many others there are.

`guard fit` saw how near clean rows come to the nearest of as many others as it had. A store holds more or fewer, and
the nearest of more is nearer: if one of n comes so near with probability q, one of N does with 1 - (1 - q)^(N / n).
Where a score is beyond nearly all clean ones, q is what an exponential tail leaves (peaks over a threshold, Pickands
1975, with the mean excess at its upper confidence bound); it stands for scores that are logarithms of distances, whose
tail is exponential where rows fill some dimensions. A p-value is never below what clean rows have shown as they are.
"""

import math
from dataclasses import dataclass

from guard.calibration import Calibration

_TAIL_SHARE = 0.1  # of the rows that score at all
_FEWEST = 20  # scores that a tail is fitted to
_BOUND = 2.0  # standard errors


@dataclass(frozen=True, slots=True, eq=False)
class Nearness:
    """Of one stage whose scores are 0 where a row is near to nothing.

    among: how many others a clean row could be near to. often: how often it is near to one at all.
    start: where the tail begins, infinite without one; share: of clean rows that score more; rate: how fast it falls.
    """

    calibration: Calibration
    among: float
    often: float
    start: float
    share: float
    rate: float

    @classmethod
    def of(cls, calibration: Calibration, among: float) -> "Nearness":
        """From clean scores."""
        scores = calibration.scores
        near = scores[scores > 0.0]
        count = max(_FEWEST, int(_TAIL_SHARE * len(near)))
        often = calibration.p_value(math.nextafter(0.0, 1.0))
        if len(near) <= count or not near[-1] > near[-count - 1]:
            return cls(calibration, among, often, math.inf, 0.0, 0.0)
        start = float(near[-count - 1])
        excess = float((near[-count:] - start).mean()) * (1.0 + _BOUND / math.sqrt(count))
        return cls(calibration, among, often, start, count / len(scores), 1.0 / excess)

    def p_value(self, score: float, entries: int) -> float:
        """How often a clean row comes so near to one of so many."""
        seen = self.calibration.p_value(score)
        if score <= 0.0:
            return seen
        q = seen if score <= self.start else self.share * math.exp(-self.rate * (score - self.start))
        return max(seen, self._of(q, entries))

    def p_near(self, score: float, entries: int) -> float:
        """The same of rows that are near to one at all; never less than with as many others as when it was fitted."""
        seen, now = self.p_value(score, 0) / self.often, self._of(self.often, entries)
        return min(1.0, max(seen, self.p_value(score, entries) / now))

    def _of(self, q: float, entries: int) -> float:
        """At least once among so many, q being of `among`."""
        return 1.0 if q >= 1.0 else -math.expm1(max(1.0, entries / self.among) * math.log1p(-q))
