"""The bench of the oracle's rate runs, and reckons by hand-made figures as it should. No speed is asserted."""

import json

import numpy as np
import pytest

from bench.oracle import __main__ as command
from bench.oracle import fast, rounds, table
from bench.oracle.kinds import MNIST, PHOTO
from bench.oracle.rounds import How, Measured, Setting
from guard.wire import open_inference_pb2 as pb


def measured(sender="Oracle.query", ratio=1.0, **changed):
    values = {
        "endpoint": "prepared answers", "kind": "MNIST", "batch": 32, "concurrency": 1, "sender": sender, "rounds": 3,
        "calls": 10, "plain_rate": 1000.0, "rate": 1000.0 * ratio, "ratio": ratio, "quartiles": (ratio, ratio),
    }  # fmt: skip
    return Measured(**{**values, **changed})


MADE = table.Made("python -m bench.oracle", "a machine", {"grpcio": "1"}, "2026-01-01", (0.1, 0.2))


@pytest.mark.slow
def test_it_runs(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    code = command.main(["--quick", "--json", str(tmp_path / "rates.json"), "--docs", str(page)])
    found = json.loads((tmp_path / "rates.json").read_text())["measured"]
    assert code == int(any(table.bound(Measured(**one)) and one["ratio"] < table.BAR for one in found))
    assert {one["endpoint"] for one in found} == {"prepared answers", "Guard, bare"}
    assert {one["concurrency"] for one in found} == {1, 8}
    senders = {one["sender"] for one in found}
    doors = {"AsyncOracle.query", "AsyncOracle.replies", "Oracle.query", "Oracle.labels", "Oracle.probabilities"}
    assert doors | {"Oracle.replies", "Meter (labels)", "ScoreMeter (scores)", "plain loop, prepared bytes"} < senders
    assert {"NES, asking", "HopSkipJump, asking", "Square, in all"} < senders
    assert all(one["ratio"] > 0 for one in found)
    said = capsys.readouterr().out
    assert said.count("ratio") == len(found)
    assert "of the plain loop's rate" in said
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| Guard, bare | MNIST | 32 |" in text


def test_pairs_change_who_is_first_and_keep_their_order():
    went = []
    taken = rounds.paired(lambda: went.append("a") or 1.0, lambda: went.append("b") or 2.0, How(3, 0.0))
    assert "".join(went) == "abbaab"
    assert taken == [(1.0, 2.0)] * 3


def test_ratios_are_of_pairs():
    """By hand: pairs of 1 and 2, 4 and 2, 3 and 1 seconds for 12 rows; the ratios are 0.5, 2, 3."""
    one = rounds.told(Setting("here", MNIST, 4, 1), "me", 3, 12, [(1.0, 2.0), (4.0, 2.0), (3.0, 1.0)])
    assert (one.ratio, one.quartiles) == (2.0, (1.25, 2.5))
    assert (one.plain_rate, one.rate, one.rounds) == (4.0, 6.0, 3)


def test_the_bar_is_for_what_the_oracle_does():
    found = [
        measured(ratio=0.8),
        measured("plain loop, prepared bytes", 0.1),
        measured("NES, in all", 0.1),
        measured("NES, asking", 0.69),
    ]
    assert [one.sender for one in table.short(found)] == ["NES, asking"]
    assert table.verdict(found).startswith("1 of 2 at or above 0.7")
    assert "the least: 0.69 (prepared answers, MNIST x 32, NES, asking)" in table.verdict(found)


def test_the_tables():
    found = [
        measured("plain loop, prepared bytes", 1.2),
        measured(ratio=0.8),
        measured("Oracle.replies", 0.9, concurrency=8),
        measured("NES, asking", 0.95),
    ]
    lines = table.markdown(found, MADE).splitlines()
    head = "| endpoint | input | rows a call | plain loop, rows/s |"
    assert f"{head} plain loop, prepared bytes | Oracle.query |" in lines
    assert f"{head} Oracle.replies |" in lines
    assert "| prepared answers | MNIST | 32 | 1,000 | 1.20 (1.20 to 1.20) | 0.80 (0.80 to 0.80) |" in lines
    assert "| prepared answers | MNIST | 32 | 1,000 | 0.95 (0.95 to 0.95) |" in lines
    assert lines[-1].startswith("Made by `python -m bench.oracle` on 2026-01-01: a machine, load 0.1 and 0.2")


def test_a_page_without_its_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="lacks"):
        table.put(page, "text")
    assert page.read_text() == "nothing"


def test_prepared_answers_have_the_right_shape():
    response = pb.ModelInferResponse.FromString(fast.prepared(5))
    y = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(tuple(response.outputs[0].shape))
    assert y.shape == (5, 10)
    assert np.allclose(y.sum(axis=1), 1.0)


def test_inputs_are_distinct_until_they_are_large():
    small, large = rounds.batches(MNIST, 32), rounds.batches(PHOTO, 128)
    assert (len(small), small[0].shape) == (16, (32, 1, 28, 28))
    assert len(large) == 1
    assert not np.array_equal(small[0], small[1])
