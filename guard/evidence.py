"""P-values over time to evidence: an anytime-valid test of one caller, one cohort, or one cluster of similar queries.

A p-value becomes an e-value (expectation at most 1 under the null) by the mixture calibrator of Vovk and Wang 2021
(arXiv:1912.06116): e(p) = (1 - p + p ln p) / (p ln(p)^2), the average of k p^(k-1) over k in (0, 1). What is bet on it
is a fraction b: 1 - b + b e(p). Large fractions are quick; small ones survive where few queries of many are hostile,
since a benign query costs them little. A caller turns hostile at an unknown time, so for each fraction the e-process is
a mixture over the start k with weights w_k = 1 / (k (k + 1)), which sum to 1:

    S_n = (S_{n-1} + w_n) (1 - b + b e_n),        M_n = mean over b of S_n + 1 / (n + 1)

M is a non-negative supermartingale with M_0 = 1 where the p-values are valid given the past; by Ville's inequality
P(exists n: M_n >= 1/alpha) <= alpha. Waiting n queries before turning hostile costs only a factor n^2 of evidence, and
that there are several fractions costs their number.

Not covered: the calibration set is finite and used again and again, so p-values of one caller share its luck (the rate
a caller sees is alpha only on average over calibration sets); retries and video frames are not exchangeable with it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

FRACTIONS = (1.0, 0.2, 0.04, 0.008)
_LEAST_P = 1e-300
_NEARLY_ONE = -1e-4
_NOTHING = (-math.inf,) * len(FRACTIONS)


def log_e_value(p: float) -> float:
    """The logarithm of the mixture calibrator at p in (0, 1]: +large for small p, ln(1/2) at 1."""
    p = max(p, _LEAST_P)
    log_p = math.log(p)
    if log_p > _NEARLY_ONE:  # the quotient is 0/0 at 1; its series there is 1/2 - ln(p)/6
        return math.log(0.5 - log_p / 6.0)
    return math.log(1.0 - p + p * log_p) - log_p - 2.0 * math.log(-log_p)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The state of one e-process: log S_n for each fraction, and n. Starts as Evidence()."""

    count: int = 0
    log_sums: tuple[float, ...] = _NOTHING

    def add(self, p_values: Iterable[float]) -> "Evidence":
        """One step a p-value."""
        steps = tuple(p_values)
        return Evidence(self.count + len(steps), _stepped(self.count, self.log_sums, steps)) if steps else self

    @property
    def log_value(self) -> float:
        """The logarithm of M_n: 0 at the start."""
        return _log_value(self.count, self.log_sums)

    @property
    def p_value(self) -> float:
        """min(1, 1 / M_n): at most alpha, ever, with probability at most alpha."""
        return math.exp(-max(0.0, self.log_value))


# One query's evidence is added to what is known, and read, by the monitors and by the store alike.


@lru_cache(maxsize=1024)
def _stepped(count: int, log_sums: tuple[float, ...], p_values: tuple[float, ...]) -> tuple[float, ...]:
    sums = list(log_sums)
    for p in p_values:
        count += 1
        log_weight, log_e = -math.log(count * (count + 1.0)), log_e_value(p)
        gain = math.expm1(log_e)  # a p-value is at least _LEAST_P, so this is finite
        for i, fraction in enumerate(FRACTIONS):
            high, low = (sums[i], log_weight) if sums[i] >= log_weight else (log_weight, sums[i])
            bet = log_e if fraction == 1.0 else math.log1p(fraction * gain)
            sums[i] = high + math.log1p(math.exp(low - high)) + bet
    return tuple(sums)


@lru_cache(maxsize=1024)
def _log_value(count: int, log_sums: tuple[float, ...]) -> float:
    rest = math.log(len(FRACTIONS) / (count + 1.0))
    high = max(*log_sums, rest)
    total = math.fsum([math.exp(value - high) for value in (*log_sums, rest)])
    return high + math.log(total / len(FRACTIONS))
