import numpy as np
import pytest

from adversary import judge
from adversary.attack import REFUSED
from adversary.runner import NEVER
from adversary.scores import Rate
from tests.adversary.samples import evidence


def test_an_attacks_figures_by_hand():
    """Six victims: 0 is wrong as it is; 1 and 2 fall; 3 falls beyond eps; 4 is refused in the end; 5 stands."""
    found = judge.side(
        evidence(
            [1, 1, 1, 1, REFUSED, 0], n=6, reached=[NEVER, 10, 30, NEVER, 7, NEVER],
            flagged=[NEVER, NEVER, 50, 20, 8, NEVER], clean=np.array([9, 0, 0, 0, 0, 0]),
            size=np.array([0.1, 0.3, 0.2, 0.31, 0.1, 0.1]), sent=np.array([0, 20, 60, 60, 60, 60]),
            flagged_rows=np.array([0, 0, 11, 40, 52, 0]),
        )
    )  # fmt: skip
    assert (found.victims, found.answered_rightly.hits) == (6, 5)
    assert (found.success.hits, found.success.n) == (2, 5)
    assert (found.reached.hits, found.reached.n) == (3, 5)
    assert (found.robust_accuracy.hits, found.robust_accuracy.n) == (3, 6)
    assert (found.noticed.hits, found.noticed.n) == (3, 5)
    assert (found.flagged_queries.hits, found.flagged_queries.n) == (103, 260)
    assert found.queries_to_success.median == 10
    assert found.queries_to_detection.median == 20
    assert found.size.median == pytest.approx(0.25)
    assert found.cost.median == 40
    assert found.success_by_queries.queries == (7, 10, 30)
    assert found.success_by_queries.share == (0.2, 0.4, 0.6)
    assert found.noticed_by_queries.queries == (8, 20, 50)


def test_a_share_has_its_wilson_interval():
    share = judge.share(np.array([True] * 8 + [False] * 2))
    assert (share.hits, share.n, share.rate) == (8, 10, 0.8)
    assert share.interval_95 == pytest.approx((0.4901, 0.9433), abs=1e-4)  # Wilson 1927
    assert share.interval_95 == Rate(8, 10).interval
    nothing = judge.share(np.zeros(0, bool))
    assert (nothing.rate, nothing.interval_95) == (None, (0.0, 1.0))


def test_a_median_repeats_its_bootstrap_interval():
    values = np.random.default_rng(0).exponential(size=200)
    found = judge.median(values)
    assert found == judge.median(values)
    assert found.median == np.median(values)
    low, high = found.interval_95
    assert low < found.median < high
    assert high - low == pytest.approx(2 * 1.96 * 1.0 / np.sqrt(200), rel=0.35)  # 1 / (2 f(m) sqrt n), f(m) = 1/2
    assert judge.median(np.zeros(0)).median is None
    assert judge.median(np.array([3])).interval_95 == (3.0, 3.0)


def test_curves_rise_and_carry_intervals():
    found = judge.curve(np.array([5, NEVER, 2, 5]))
    assert found.queries == (2, 5)
    assert found.share == (0.25, 0.75)
    assert all(low < share < high for low, share, high in zip(found.low, found.share, found.high, strict=True))
    assert judge.curve(np.array([NEVER])).queries == ()


def test_units_are_gathered_in_order():
    one, other = evidence([1], n=2), evidence([0], n=3)
    arrays = [{name: getattr(e, name) for name in e.__dataclass_fields__ if name != "eps"} for e in (one, other)]
    assert judge.gather(arrays, 0.3).adversarial.tolist() == [1, 1, 0, 0, 0]


def test_a_refused_honest_caller_is_answered_wrongly():
    found = judge.honest(np.array([1, 1, 1]), np.array([1, REFUSED, 2]), np.array([0, 1, 0]), np.array([1, 0]))
    assert (found.clean_accuracy.hits, found.refused.hits, found.flagged.hits) == (1, 1, 1)
    assert (found.callers_flagged.hits, found.callers_flagged.n) == (1, 2)
