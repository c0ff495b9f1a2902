"""The engine's later half: answers held against inputs, rows that are escalated, votes, and the input as it came."""

from typing import Any

import numpy as np
import pytest

from guard.engine import Engine
from guard.profile import Profile, ProfileError
from guard.types import Action, Answer, Conclusion, Decision, Query
from tests.core.helpers import Ballot, BrokenDetector, MeanDetector, Surprise, ViewGap, model_of, profile_of

pytestmark = pytest.mark.usefixtures("stages")

CLEAN = np.linspace(0.0, 0.5, 99)
PROFILE = profile_of(
    {
        ("detector", "test_mean"): (MeanDetector(), CLEAN),
        ("detector", "test_views"): (ViewGap(), CLEAN[::-1]),
        ("detector", "test_surprise"): (Surprise(), CLEAN),
    },
    joint=True,
)
GOOD, UNSURE, BAD = [0.1] * 4, [0.45] * 4, [0.9] * 4
Y = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], np.float32)
SURPRISE, VIEWS, MEAN = ([{"stage": f"test_{name}"}] for name in ("surprise", "views", "mean"))


def engine_of(profile: Profile = PROFILE, **values: Any) -> Engine:
    return Engine(model_of(**values), profile, b"a secret of sixteen bytes")


def decide(engine: Engine, *rows: list[float]) -> Decision:
    return engine.decide(Query(np.array(rows, np.float32), "peer:1", "m", "d1"), None)


def conclude(engine: Engine, decision: Decision, *views: Any, y: Any = Y, standby: Any = None) -> Conclusion:
    return engine.conclude(decision, Answer(y, views, standby))


class TestHeldAgainstTheInput:
    def test_an_answer_that_does_not_fit_the_input_fires(self) -> None:
        engine = engine_of(detectors=SURPRISE)
        assert engine.reads_answers
        assert engine.holds_answers
        decision = decide(engine, GOOD, GOOD)
        assert decision.waits
        assert decision.views == ()
        result = conclude(engine, decision)
        assert result.findings[-1].scores == pytest.approx((0.3, 0.9))
        assert result.action is Action.DENY
        assert conclude(engine, decide(engine, GOOD), y=Y[:1]).action is Action.ALLOW

    @pytest.mark.parametrize("y", [None, Y[:1], np.full((2, 3), np.nan)])
    def test_without_an_answer_it_says_so(self, y: Any) -> None:
        engine = engine_of(detectors=[{"stage": "test_surprise", "on_error": "deny"}])
        result = conclude(engine, decide(engine, GOOD, GOOD), y=y)
        assert result.findings[-1].error == "no answer to look at"
        assert result.action is Action.DENY

    def test_a_standby_waits_for_it(self) -> None:
        engine = engine_of(detectors=SURPRISE, purifiers=[{"stage": "test_halve"}], policy={"on_input": "purify"})
        decision = decide(engine, GOOD, BAD)
        np.testing.assert_allclose(decision.standby, [[0.05] * 4, [0.45] * 4])
        result = conclude(engine, decision, y=Y[::-1], standby=Y)
        assert (result.action, result.use_standby) == (Action.PURIFY, True)

    def test_labels_are_no_answer(self) -> None:
        labels = profile_of({("detector", "test_surprise"): (Surprise(), CLEAN)}, meaning="labels")
        with pytest.raises(ProfileError, match="labels only, which test_surprise cannot work with"):
            engine_of(labels, detectors=SURPRISE)


class TestTheInputAsItCame:
    ALWAYS: tuple[Any, ...] = ({"stage": "test_halve", "when": "always"},)

    def test_it_is_asked_about_where_another_is_forwarded(self) -> None:
        engine = engine_of(detectors=SURPRISE, purifiers=self.ALWAYS)
        decision = decide(engine, GOOD)
        np.testing.assert_allclose(decision.x, [[0.05] * 4])
        np.testing.assert_allclose(decision.views, [[GOOD]])
        assert dict(decision.view_counts) == {"reference": 1}
        fooled = conclude(engine, decision, Y[1:], y=Y[:1])  # the purified input is answered as it should be
        assert fooled.findings[-1].scores == pytest.approx((0.9,))
        assert conclude(engine, decision, Y[:1], y=Y[1:]).action is Action.ALLOW

    def test_where_it_got_no_answer_nothing_is_compared(self) -> None:
        engine = engine_of(detectors=[*SURPRISE, *VIEWS], purifiers=self.ALWAYS)
        decision = decide(engine, GOOD)
        assert dict(decision.view_counts) == {"reference": 1, "detector/test_views": 1}
        result = conclude(engine, decision, None, Y[:1], y=Y[:1])
        assert [f.error for f in result.findings] == ["no answer to look at", "no answer to compare"]

    def test_it_is_not_asked_about_twice(self) -> None:
        assert decide(engine_of(detectors=[*SURPRISE, *VIEWS]), GOOD).view_counts == {"detector/test_views": 1}
        assert decide(engine_of(purifiers=self.ALWAYS), GOOD).views == ()


class TestEscalation:
    def test_only_unsure_rows_are_asked_about(self) -> None:
        engine = engine_of(detectors=[*MEAN, *VIEWS], escalate_below=0.3)
        decision = decide(engine, GOOD, UNSURE)
        assert decision.looked.tolist() == decision.view_rows.tolist() == [False, True]
        assert [view.shape for view in decision.views] == [(1, 4)]
        result = conclude(engine, decision, Y[1:])
        finding = result.findings[-1]
        assert finding.p_values == (1.0, 1.0)  # nothing moved
        assert np.isnan(finding.scores[0])
        assert finding.scores[1] == 0.0
        moved = conclude(engine, decision, Y[:1])
        assert moved.action is Action.DENY
        assert moved.decision.suspicious.tolist() == [False, True]

    def test_nobody_unsure_nobody_asked(self) -> None:
        engine = engine_of(detectors=[*MEAN, *VIEWS], escalate_below=0.3)
        decision = decide(engine, GOOD, GOOD)
        assert decision.views == ()
        assert not decision.waits
        assert conclude(engine, decision).findings[-1].stage == "test_mean"

    def test_a_share_of_the_others_by_a_keyed_hash(self) -> None:
        engine = engine_of(detectors=[*MEAN, *VIEWS], escalate_below=0.01, escalate_sample=0.25)
        rows = np.random.default_rng(0).uniform(0, 0.3, (800, 4)).tolist()
        decision = decide(engine, *rows)
        assert 0.2 < decision.looked.mean() < 0.3
        assert decide(engine, *rows).looked.tolist() == decision.looked.tolist()
        other = Engine(engine.settings, PROFILE, b"another secret")
        assert decide(other, *rows).looked.tolist() != decision.looked.tolist()

    def test_a_stage_that_failed_leaves_everyone_unsure(self) -> None:
        scores = {
            ("detector", "test_broken"): (BrokenDetector(), CLEAN),
            ("detector", "test_views"): (ViewGap(), CLEAN),
        }
        engine = engine_of(
            profile_of(scores, joint=True), detectors=[{"stage": "test_broken"}, *VIEWS], escalate_below=0.3
        )
        assert decide(engine, GOOD).looked.tolist() == [True]


class TestVotes:
    ALWAYS: tuple[Any, ...] = ({"stage": "test_ballot", "when": "always"},)

    def test_every_answer_is_a_vote(self) -> None:
        engine = engine_of(purifiers=self.ALWAYS)
        decision = decide(engine, GOOD, BAD)
        assert decision.waits
        assert decision.x is None
        np.testing.assert_allclose(decision.views, [[GOOD, BAD], [[0.05] * 4, [0.45] * 4]])
        result = conclude(engine, decision, Y, Y[::-1])
        np.testing.assert_allclose(result.y, [[0.4, 0.2, 0.4]] * 2, rtol=1e-6)
        assert result.y is not None
        assert result.y.dtype == np.float32
        assert result.action is Action.ALLOW

    def test_suspicious_rows_alone(self) -> None:
        engine = engine_of(detectors=MEAN, purifiers=[{"stage": "test_ballot"}], policy={"on_input": "purify"})
        decision = decide(engine, GOOD, BAD)
        assert decision.view_rows.tolist() == [False, True]
        result = conclude(engine, decision, Y[:1], Y[:1])
        assert result.action is Action.PURIFY
        np.testing.assert_allclose(result.y, [Y[0], Y[0]], rtol=1e-6)
        assert conclude(engine, decide(engine, GOOD)).y is None

    def test_rows_of_which_a_later_detector_thinks_so(self) -> None:
        engine = engine_of(detectors=VIEWS, purifiers=[{"stage": "test_ballot"}], policy={"on_input": "purify"})
        decision = decide(engine, GOOD, BAD)
        assert dict(decision.view_counts) == {"detector/test_views": 1, "purifier/test_ballot": 2}
        quiet = conclude(engine, decision, Y, Y[::-1], Y[::-1])
        assert (quiet.action, quiet.y) == (Action.ALLOW, None)
        fired = conclude(engine, decision, np.stack([Y[0], Y[0]]), Y[::-1], Y[::-1])
        assert fired.action is Action.PURIFY
        np.testing.assert_allclose(fired.y, [Y[0], Y[0]], rtol=1e-6)
        denied = engine_of(detectors=VIEWS, purifiers=[{"stage": "test_ballot"}], policy={"on_input": "deny"})
        assert "purifier/test_ballot" not in decide(denied, GOOD).view_counts

    def test_shadow_and_the_canary_get_no_votes(self) -> None:
        for values in ({"mode": "shadow"}, {"canary": 0.0}):
            engine = engine_of(purifiers=self.ALWAYS, **values)
            decision = decide(engine, GOOD)
            assert (decision.views, decision.waits) == ((), False)

    @pytest.mark.parametrize(
        ("broken", "error"),
        [("copies", "returned shape (1, 1) for (1, 4)"), ("vote", "returned rows that are no distribution")],
    )
    @pytest.mark.parametrize(("on_error", "action"), [("allow", Action.ALLOW), ("deny", Action.DENY)])
    def test_a_vote_that_fails(self, broken: str, error: str, on_error: str, action: Action) -> None:
        engine = engine_of(purifiers=[{**self.ALWAYS[0], "options": {"broken": broken}, "on_error": on_error}])
        result = conclude(engine, decide(engine, GOOD), Y[:1], Y[:1], y=Y[:1])
        assert result.findings[-1].error == error
        assert (result.action, result.y) == (action, None)

    def test_copies_without_an_answer(self) -> None:
        engine = engine_of(purifiers=self.ALWAYS)
        result = conclude(engine, decide(engine, GOOD), Y[:1], None, y=Y[:1])
        assert result.findings[-1].error == "no answers to vote on"

    def test_one_at_most(self) -> None:
        with pytest.raises(ProfileError, match="one voting purifier at most, not test_ballot, test_other_ballot"):
            engine_of(purifiers=[*self.ALWAYS, {"stage": "test_other_ballot"}])
        assert Ballot() == Ballot()


def test_a_sample_goes_with_a_bound() -> None:
    with pytest.raises(ValueError, match="escalate_sample goes with escalate_below"):
        model_of(detectors=MEAN, escalate_sample=0.1)
