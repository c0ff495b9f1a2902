"""What a query costs of a caller's token buckets, and how long a delay is: the arithmetic of budgets, without I/O."""

from guard.settings import Budget, Policy
from guard.types import Bucket

_DAY_S = 86_400.0


def of_budget(budget: Budget, rows: int, bits: float) -> tuple[Bucket, ...]:
    """One bucket for each limit that is set."""
    found = []
    if budget.rows_per_s is not None:
        found.append(Bucket("rows_per_s", budget.rows_per_s, budget.burst_rows, float(rows)))
    if budget.rows_per_day is not None:
        found.append(Bucket("rows_per_day", budget.rows_per_day / _DAY_S, budget.rows_per_day, float(rows)))
    if budget.bits_per_day is not None:
        found.append(of_bits(budget.bits_per_day, bits))
    return tuple(found)


def of_bits(per_day: float, bits: float) -> Bucket:
    """What an answer tells."""
    return Bucket("bits_per_day", per_day / _DAY_S, per_day, bits)


def of_throttle(policy: Policy, rows: int) -> Bucket:
    """Of a caller whom the policy throttles."""
    return Bucket("throttle", policy.throttle_rows_per_s, policy.throttle_burst_rows, float(rows))


def delay_s(policy: Policy, draw: float) -> float:
    """Between half of `delay_s` and all of it, by a draw in [0, 1]."""
    return policy.delay_s * (0.5 + draw / 2.0)
