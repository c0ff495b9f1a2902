import io

import numpy as np
from rich.console import Console

from adversary.progress import Screen, duration
from adversary.unit import Unit

HUNT = Unit("hunt", "guarded", "square", 0, 0, 2)
CLEAN = Unit("clean", "control", "", 0, 0, 2)
CRAFT = Unit("craft", "", "pgd", 0, 0, 2)
FOUND = {
    "adversarial": np.array([1, 0]), "y": np.array([0, 0]), "clean": np.array([0, 0]), "sent": np.array([1000, 500]),
    "reached_at": np.array([7, -1]), "flagged_at": np.array([-1, 3]),
}  # fmt: skip


def screen(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    return Screen(console), console.file


def test_lines_where_there_is_no_terminal():
    with screen(False)[0] as shown:
        shown.expect({CLEAN: 10, HUNT: 90})
        shown.finished(CLEAN, {"labels": np.zeros(2)})
        shown.at_work(HUNT, 1, 2, 0)
        shown.finished(HUNT, FOUND)
        lines = shown.console.file.getvalue().splitlines()
    assert lines[0].startswith("[ 10 %] clean on control 0-2: done  ETA ")
    assert lines[1].startswith("[100 %] square on guarded 0-2: 1 of 2 reached, 1,500 queries, 1 of 2 noticed  ETA 0 s")
    assert len(lines) == 2


def test_what_an_earlier_run_did_is_counted_and_says_nothing_of_the_pace():
    with screen(False)[0] as shown:
        shown.expect({CRAFT: 50, HUNT: 50})
        shown.finished(CRAFT, {"x_adv": np.zeros(2)}, kept=True)
        assert shown.left_s is None
        assert shown.console.file.getvalue() == ""
        shown.finished(HUNT, FOUND)
        assert shown.left_s == 0.0


def test_the_attack_so_far_adds_up_over_its_units():
    with screen(False)[0] as shown:
        shown.expect({HUNT: 1})
        shown.finished(HUNT, FOUND)
        shown.finished(HUNT, FOUND)
        assert "2 of 4 reached, 3,000 queries" in shown.console.file.getvalue()


def test_a_failure_is_a_line():
    with screen(False)[0] as shown:
        shown.expect({HUNT: 1})
        shown.failed(HUNT, "OracleError: away")
        assert "square on guarded 0-2 FAILED: OracleError: away" in shown.console.file.getvalue()


def test_a_terminal_shows_the_unit_at_work():
    with screen(True)[0] as shown:
        shown.expect({HUNT: 1})
        shown.at_work(HUNT, 1, 2, 1)
        shown._bars.refresh()
        assert "1 successful" in shown.console.file.getvalue()
        shown.finished(HUNT, FOUND)
        shown._bars.refresh()
        assert "1 of 2 reached, 1,500 queries" in shown.console.file.getvalue()


def test_durations():
    assert [duration(s) for s in (0.4, 59.2, 60, 3661)] == ["0 s", "59 s", "1:00 min", "61:01 min"]


def test_what_is_told_of_a_thief_and_of_who_tests_candidates():
    steal, infer = (Unit(kind, "control", kind, 0, 0, 4) for kind in ("steal", "infer"))
    copied = np.array([[1, 1, 1, 1], [0, 1, 2, 0]])
    with screen(False)[0] as shown:
        shown.expect({steal: 1, infer: 1})
        shown.finished(steal, {"copied": copied, "bare": np.arange(4), "sent": np.array([6400])})
        shown.finished(infer, {"sent": np.array([200])})
        said = shown.console.file.getvalue()
    assert "steal on control 0-4: the copy agrees on 75.0 %, 6,400 queries" in said
    assert "infer on control 0-4: done, 200 queries" in said
