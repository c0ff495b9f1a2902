import json

import numpy as np

from bench import neighbours
from guard import threads


def test_a_round_of_each(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(neighbours, "_SHAPES", ((28, 28, 1),))
    assert neighbours.main(["--rounds", "1", "--queries", "3", "--docs", str(tmp_path / "page.md")]) == 0
    said = capsys.readouterr().out
    assert said.count("\n| 28x28x1 |") == 4
    assert said.rstrip() in (tmp_path / "page.md").read_text()


def test_one_arm_keeps_to_the_thread_that_asks(capsys, monkeypatch):
    told = []
    monkeypatch.setattr(threads, "alone", lambda: told.append("alone"))
    for arm in neighbours.ARMS.values():
        assert neighbours.main(["--queries", "3", "--asked", arm, "28x28x1"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert len(found["ms"]) == 3
        assert np.isfinite([*found["ms"], found["cpu_ms"]]).all()
    assert told == ["alone"]


def test_neighbours_are_there_and_end():
    with neighbours.busy(2) as running:
        assert [one.poll() for one in running] == [None, None]
    assert None not in [one.poll() for one in running]
