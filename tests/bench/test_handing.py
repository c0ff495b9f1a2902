import os

from bench import handing


def test_a_round_of_each(capsys, tmp_path):
    before = os.sched_getaffinity(0)
    assert handing.main(["--rounds", "2", "--works", "40", "--docs", str(tmp_path / "page.md")]) == 0
    assert os.sched_getaffinity(0) == before
    said = capsys.readouterr().out
    assert [said.count(f"\n| {name} |") for name in handing.LOOPS] == [2, 2]
    assert said.rstrip() in (tmp_path / "page.md").read_text()


def test_both_ways_are_timed_in_each_round():
    found = handing.measured(3, 16)
    assert {(name, n) for name in handing.LOOPS for n in handing.AT_ONCE} == found.keys()
    assert all(len(one) == 3 and min(one) > 0 for both in found.values() for one in both)
