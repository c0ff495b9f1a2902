"""Traffic and counting by hand; a small slice of the figures in earnest, beside the undefended victim."""

from dataclasses import replace

import numpy as np
import pytest

from adversary.attack import REFUSED, Refused
from adversary.runner import NEVER
from bench.monitors import __main__ as command
from bench.monitors import attacks, bars, benign, document, guarded, hunts, kept, table, traffic, video
from bench.monitors.client import Aim, Bare, Client, Enough, Told
from bench.monitors.document import Scale
from bench.monitors.ground import ground
from bench.monitors.guarded import Defence
from bench.monitors.planned import OARS, PLAIN, planned


class Wall:
    """Answers with label 1 until so many rows were asked, then refuses."""

    def __init__(self, after):
        self.after, self.asked, self.callers = after, 0, []

    def answer(self, x, caller):
        numbers = self.asked + np.arange(len(x))
        self.asked += len(x)
        self.callers += [caller] * len(x)
        refused = numbers >= self.after
        p = np.tile([0.25, 0.75], (len(x), 1))
        p[refused] = np.nan
        return Told(p, np.where(refused, 3, 0), refused, np.zeros(len(x), bool))


def rows(n):
    return np.full((n, 1, 2, 2), 0.5, np.float32)


def test_a_client_counts_rows_until_it_is_refused():
    asked = Client(Wall(5), None)
    assert asked.labels(rows(3)).tolist() == [1, 1, 1]
    assert asked.labels(rows(3)).tolist() == [1, 1, REFUSED]
    assert isinstance(asked.probabilities(rows(1)), Refused)
    tally = asked.tally
    assert (tally.rows, tally.answered, tally.refused, tally.flagged) == (7, 5, 6, 6)
    assert tally.levels == [6, 6, 6]
    assert tally.reached == NEVER


def test_refusals_of_rows_for_themselves_are_no_alarms():
    class Picky(Wall):
        def answer(self, x, caller):
            told = super().answer(x, caller)
            return replace(told, own=np.asarray(told.refused & (self.asked <= 4)))

    asked = Client(Picky(2), None, until=1, alarms=True)
    asked.labels(rows(1))
    asked.labels(rows(3))
    assert (asked.tally.refused, asked.tally.answered) == (NEVER, 2)
    with pytest.raises(Enough):
        asked.labels(rows(1))
    assert asked.tally.refused == 5


def test_an_attack_ends_with_what_it_wants():
    asked = Client(Wall(9), Aim(rows(1)[0], 0, "linf", 0.1))
    with pytest.raises(Enough):
        asked.labels(np.concatenate([rows(1) + 0.4, rows(1) + 0.05]))
    assert asked.tally.reached == 2  # the first is answered wrongly, and too far


def test_a_fresh_account_is_used_after_each_refusal():
    wall = Wall(1)
    asked = Client(wall, None, accounts=2, fresh=True)
    asked.labels(rows(4))
    assert wall.callers == ["attacker-0", "attacker-0", "attacker-1", "attacker-0"]


@pytest.fixture(scope="module")
def digits():
    return ground("mnist")


def test_no_two_callers_of_a_block_send_the_same_image(digits):
    block = traffic.natural(digits, np.random.default_rng(0))
    sent = np.concatenate([caller.rows.reshape(len(caller.rows), -1) for caller in block])
    assert len(np.unique(sent, axis=0)) == len(sent) > 4900
    assert min(len(caller.rows) for caller in block) >= traffic.SHORTEST


def test_a_fifth_of_the_queries_are_retries(digits):
    block = traffic.retries(digits, np.random.default_rng(0))
    sent = sum(len(caller.rows) for caller in block)
    distinct = sum(len(np.unique(caller.rows.reshape(len(caller.rows), -1), axis=0)) for caller in block)
    assert 1.0 - distinct / sent == pytest.approx(0.2, abs=0.02)


def test_one_class_is_one_class(digits):
    caller = traffic.one_class(digits, np.random.default_rng(0))[0]
    images = digits.unit(digits.quiet.images).reshape(len(digits.quiet), -1)
    places = [int(np.flatnonzero((images == row.ravel()).all(axis=1))[0]) for row in caller.rows]
    assert len(set(digits.quiet.labels[places])) == 1


def test_traffic_repeats_itself_and_keeps_each_callers_order(digits):
    def made():
        rng = np.random.default_rng(3)
        return list(traffic.interleaved(traffic.hot_keys(digits, rng)[:30], rng))

    first, again = made(), made()
    assert [name for name, _ in first] == [name for name, _ in again]
    block = {caller.name: caller for caller in traffic.hot_keys(digits, np.random.default_rng(3))}
    for name in {name for name, _ in first}:
        sent = np.concatenate([row for caller, row in first if caller == name])
        assert np.array_equal(sent, block[name].rows)
    assert len({name for name, _ in first[:200]}) > 5  # several at a time


def test_frames_are_grey_levels_that_move_smoothly(digits):
    image = digits.unit(digits.quiet.images[:1])[0]
    frames = video.clip(image, 60, np.random.default_rng(1))
    assert frames.shape == (60, *image.shape)
    assert np.allclose(frames * 255.0, np.round(frames * 255.0), atol=1e-4)
    steps = np.linalg.norm((frames[1:] - frames[:-1]).reshape(59, -1), axis=1)
    across = np.linalg.norm(frames[-1] - frames[0])
    assert np.median(steps) < across
    assert (steps > 0).mean() > 0.5


def test_a_window_that_does_not_move_shows_the_image(digits):
    image = digits.unit(digits.quiet.images[:1])[0]
    assert np.allclose(video._window(image.transpose(1, 2, 0), 0.0, 0.0, 1.0)[..., 0], image[0], atol=1e-6)
    moved = video._window(image.transpose(1, 2, 0), 3.0, 0.0, 1.0)[..., 0]
    assert np.allclose(moved[:, :-3], image[0, :, 3:], atol=1e-6)


def test_every_attack_of_the_issue_is_planned_with_the_catalogues_budget():
    assert set(PLAIN) == {"boundary", "hop-skip-jump", "nes", "square", "simba", "zoo", "qeba", "surfree"}
    assert {name.removeprefix("oars-") for name in OARS} == {"nes", "square", "hop-skip-jump", "boundary"}
    for data in ("mnist", "cifar10"):
        for name in (*PLAIN, *OARS):
            plan = planned(data, name)
            assert plan.budget == plan.entry.budget
    assert planned("cifar10", "nes").eps == pytest.approx(8 / 255)


def test_runs_on_the_bare_victim_repeat_themselves(digits):
    images = attacks.victims(digits, 3)
    plan = planned("mnist", "square")
    assert digits.model.labels(images.x).tolist() == images.y.tolist()
    assert (digits.model.labels(images.starts) != images.y).all()
    found = []
    for _ in range(2):
        asked = Client(Bare(digits.model), attacks.aim(plan, images, 1))
        found.append(attacks.run(plan, asked, images, 1, 0).reached)
    assert found[0] == found[1] > 0


def test_a_median_with_runs_that_nobody_noticed():
    assert document.median(np.array([5, NEVER, 7])) == 7.0
    assert document.median(np.array([NEVER, NEVER, 7])) == np.inf


def test_flagged_after_success_is_not_before():
    ones = np.ones(4, np.int64)
    run = hunts.Hunted(ones, ones, np.array([10, 10, NEVER, NEVER]), np.array([4, NEVER, 8, NEVER]), ones)
    assert run.before.tolist() == [True, False, True, False]
    assert run.won.tolist() == [True, True, False, False]


def test_three_thousand_callers_of_each_kind():
    for kind in traffic.KINDS:
        assert benign.blocks(kind, 3000) >= 10


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A small slice, made anew: two attacks, a caller or two of each kind of traffic."""
    home = tmp_path_factory.mktemp("bench-monitors")
    scale = Scale(data=("mnist",), runs=2, callers=1, most=150, attacks=("nes", "surfree"), defence=Defence(clean=1000))
    with pytest.MonkeyPatch.context() as patch:
        for module in (kept, guarded):
            patch.setattr(module, "home", lambda: home)
        found = command.measured(("benign", "evasion"), scale, 1, "the slice")
        found["bars"] = [one.plain() for one in bars.judged(found)]
        before = {path.name for path in (home / "units").iterdir()}
        command.measured(("benign", "evasion"), scale, 1, "the slice")
        assert {path.name for path in (home / "units").iterdir()} == before  # nothing is done twice
    return found


def test_attacks_that_succeed_on_the_bare_victim_are_flagged_before(measured):
    for one in measured["evasion"]["mnist"].values():
        assert one["bare_success"]["rate"] == 1.0  # the control
        assert one["before"]["rate"] == 1.0
        assert one["queries_to_detection"] < one["needed"]


@pytest.fixture(scope="module")
def defended(tmp_path_factory):
    """One monitor, alone and with a detector beside it: services by name, each with a history of its own."""
    home = tmp_path_factory.mktemp("bench-whole")
    beside = Defence(monitors=("fingerprint",), clean=1000, detectors=(("input_statistics", 1.0),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guarded, "home", lambda: home)
        guarded.profile.cache_clear()
        guarded.engine_of.cache_clear()
        for defence in (beside, replace(beside, detectors=())):
            guarded.make("mnist", defence)
        yield lambda seed, with_detector: guarded.guarded(
            "mnist", seed, beside if with_detector else replace(beside, detectors=()), warm=100
        )
    guarded.profile.cache_clear()
    guarded.engine_of.cache_clear()


def test_square_from_fresh_accounts_passes_a_monitor_and_no_detector(digits, defended):
    images, plan = attacks.victims(digits, 3), replace(planned("mnist", "oars-square"), budget=150)

    def reached(service, i):
        asked = Client(service, attacks.aim(plan, images, i), accounts=100, fresh=True)
        return attacks.run(plan, asked, images, i, 0).reached

    services = [defended(i, with_detector=True) for i in range(3)]
    assert [reached(defended(i, with_detector=False), i) != NEVER for i in range(3)].count(True) >= 2  # the control
    assert [reached(service, i) for i, service in enumerate(services)] == [NEVER] * 3
    assert all(service.blame["input_statistics"] for service in services)


def test_a_row_that_detectors_alone_refuse_is_no_alarm_about_its_caller(digits, defended):
    service = defended(0, with_detector=True)
    noise = np.random.default_rng(0).random((1, 1, 28, 28)).astype(np.float32)
    told = service.answer(np.concatenate([digits.unit(digits.quiet.images[:1]), noise]), "somebody")
    assert told.refused.tolist() == told.own.tolist() == [False, True]
    assert np.isnan(told.p[1]).all()


def test_what_was_found_replaces_what_was_known_of_the_same_data_alone():
    known = {
        "evasion": {"mnist": 1, "cifar10": 2},
        "wire": {"mnist": 3},
        "made": {"evasion": {"mnist": "a", "cifar10": "b"}},
    }
    found = {"evasion": {"mnist": 4}, "made": {"evasion": {"mnist": "c"}}}
    merged = command._merged(known, found)
    assert merged["evasion"] == {"mnist": 4, "cifar10": 2}
    assert merged["wire"] == {"mnist": 3}
    assert merged["made"]["evasion"] == {"mnist": "c", "cifar10": "b"}


def test_bars_with_detectors_stand_beside_those_without(measured):
    told = bars.judged({"whole-evasion": measured["evasion"], "evasion": measured["evasion"]})
    names = [one.what for one in told]
    assert "mnist: median queries to detection, each attack" in names
    assert "mnist, detectors beside: median queries to detection, each attack" in names
    assert document.scaled("whole-evasion", Scale()).defence.detectors == guarded.DETECTORS
    assert not document.scaled("evasion", Scale()).defence.detectors


def test_benign_callers_are_not_called_hostile(measured):
    for kind in traffic.ASKED:
        one = measured["benign"]["mnist"][kind]
        assert one["queries"] == 150
        assert one["hostile"]["hits"] == one["refused"]["hits"] == 0, kind


def test_the_page_tells_of_every_bar(measured):
    beside = {"whole-evasion": {"mnist": measured["made"]["evasion"]["mnist"] | {"detectors": {"pid": 1.0}}}}
    text = table.markdown({**measured, "whole-evasion": measured["evasion"], "made": measured["made"] | beside})
    assert all(one["what"] in text for one in measured["bars"])
    assert "## Evasions by queries" in text
    assert "## Evasions by queries, detectors beside the monitors" in text
    assert "Detectors: pid (weight 1)." in text
    assert "hot_keys" in text


def test_a_page_keeps_what_stands_around_the_figures(tmp_path):
    page = tmp_path / "monitors.md"
    page.write_text(f"# Before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n", encoding="utf-8")
    table.put(page, "new\n")
    assert page.read_text(encoding="utf-8") == f"# Before\n\n{table.BEGIN}\nnew\n{table.END}\n\nafter\n"


def test_an_unknown_section_is_an_error(capsys):
    assert command.main(["nothing"]) == 2
    assert "no section is called nothing" in capsys.readouterr().err
