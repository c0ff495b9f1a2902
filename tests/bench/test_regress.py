"""What counts as worse, with made-up figures; and the command around it, with made-up benches."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.regress import __main__ as command
from bench.regress import judge, sources
from bench.regress.judge import Verdict
from bench.regress.sources import Source


def verdict(recorded: list[float], now: list[float]) -> Verdict:
    (row,) = judge.compared({"r": recorded}, {"r": now})
    return row.verdict


STEADY = [1.00, 1.01, 0.99, 1.00, 1.00]
LOOSE = [0.6, 1.0, 1.5, 0.8, 1.2]


@pytest.mark.parametrize(
    ("recorded", "now", "expected"),
    [
        (STEADY, STEADY, Verdict.SAME),
        (STEADY, [1.05 * one for one in STEADY], Verdict.SAME),  # less than a tenth is nothing
        (STEADY, [1.2 * one for one in STEADY], Verdict.WORSE),
        (STEADY, [0.8 * one for one in STEADY], Verdict.BETTER),
        (LOOSE, [1.2 * one for one in LOOSE], Verdict.SAME),  # within what rounds scatter by
        (LOOSE, [4.0 * one for one in LOOSE], Verdict.WORSE),
        (STEADY, [1.0, 1.0, 1.0, 1.0, 9.0], Verdict.SAME),  # one bad round of five
        ([1.0], [1.05], Verdict.SAME),
        ([1.0], [1.5], Verdict.WORSE),
        (STEADY, [], Verdict.GONE),
        ([], STEADY, Verdict.NEW),
    ],
)
def test_worse_is_beyond_noise(recorded: list[float], now: list[float], expected: Verdict) -> None:
    assert verdict(recorded, now) is expected


def test_noise_alone_is_seldom_called_worse() -> None:
    rng = np.random.default_rng(0)
    told = [verdict(*np.exp(0.1 * rng.standard_normal((2, 5))).tolist()) for _ in range(500)]
    assert told.count(Verdict.WORSE) < 25
    slower = [
        verdict(np.exp(0.02 * one[0]).tolist(), (1.25 * np.exp(0.02 * one[1])).tolist())
        for one in rng.standard_normal((200, 2, 5))
    ]
    assert slower.count(Verdict.WORSE) > 190


def test_the_table_begins_with_what_is_worse() -> None:
    rows = judge.compared({"same": [1.0], "slow": [1.0], "gone": [1.0]}, {"same": [1.0], "slow": [2.0], "new": [1.0]})
    lines = judge.table(rows).splitlines()
    assert lines[1].split() == ["slow", "1.000", "2.000", "+100%", lines[1].split()[4], "WORSE"]
    assert [line.split()[0] for line in lines] == ["what", "slow", "same", "new", "gone"]
    assert lines[-1].endswith("not measured")


# --- ratios of each bench


def test_ratios_of_the_proxy() -> None:
    took = {name: [{"cpu_us": us}, {"cpu_us": 2 * us}] for name, us in (("grpc.aio", 100.0), ("Guard, pass", 120.0))}
    told = {"shapes": {"3 KB": {"again": {"8": {**took, "no proxy": [{"cpu_us": 0.0}] * 2}}}}}
    assert sources.of_proxy(told) == {"3 KB, 8 in flight: Guard, pass over grpc.aio": [1.2, 1.2]}


def test_ratios_of_kernels_and_the_allocator() -> None:
    told: dict[str, Any] = {"pairs": {"fingerprint": {"kernel": [1.0, 2.0], "plain": [4.0, 4.0]}}}
    assert sources.of_kernels(told) == {"fingerprint: kernel over numpy": [0.25, 0.5]}
    row = {"602 KB, rebuild": {"us": 10.0}, "602 KB, median": {"us": 10.0}, "resident_mb": 9.0}
    told = {"ways": {"system": [row], "mallopt": [{**row, "602 KB, rebuild": {"us": 1.0}}]}}
    assert sources.of_allocator(told) == {"602 KB, rebuild: kept over system": [0.1]}


def test_ratios_of_growth() -> None:
    told = {
        "queries": {"us": {"rows": {"1": [10.0, 10.0], "4": [15.0, 15.0], "16": [20.0, 30.0]}}},
        "memory": {"rows": {"1": 10, "2": 20, "3": 30, "4": 40, "6": 41, "8": 42, "16": 44}},
        "workers": {"kinds": {"inspect": {"taken": {"1": [{"us": 100.0}], "2": [{"us": 110.0}]}}}},
    }
    assert sources.of_growth(told) == {
        "a query, rows 16 over 1": [2.0, 3.0],
        "memory, rows four times the bound over at it": [1.1],
        "a call (inspect), 2 workers over 1": [1.1],
    }


# --- the command


def printing(figures: list[dict[str, list[float]]], directory: Path) -> Source:
    """A bench that prints these, one after the other."""
    file = directory / "figures.json"
    file.write_text(json.dumps(figures))
    program = (
        f"import json, pathlib; f = pathlib.Path({str(file)!r}); first, *rest = json.loads(f.read_text());"
        "f.write_text(json.dumps(rest)); print(json.dumps(first))"
    )
    return Source(("-c", program), lambda told: {name: list(values) for name, values in told.items()})


GOOD, BAD = {"r": [1.0, 1.01, 0.99]}, {"r": [2.0, 2.02, 1.98]}


def run(tmp_path: Path, *figures: dict[str, list[float]], words: tuple[str, ...] = ()) -> int:
    arguments = ["--recorded", str(tmp_path / "recorded" / "ratios.json"), *words]
    return command.main(arguments, {"made up": printing(list(figures), tmp_path)})


def test_recording_and_comparing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, GOOD) == 2
    assert "make bench-record" in capsys.readouterr().err
    assert run(tmp_path, GOOD, words=("--record",)) == 0
    assert run(tmp_path, GOOD) == 0
    assert "0 of 1 ratios are worse" in capsys.readouterr().out
    assert run(tmp_path, BAD, BAD) == 1
    assert "WORSE" in capsys.readouterr().out


def test_what_looks_worse_is_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, GOOD, words=("--record",)) == 0
    assert run(tmp_path, BAD, GOOD) == 0, "half of the rounds were bad: that is noise"
    assert "once more" in capsys.readouterr().err


def test_a_bench_that_fails_is_told_of_and_keeps_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, GOOD, words=("--record",)) == 0
    broken = {"made up": Source(("-c", "import sys; sys.exit('no such program')"), dict)}
    arguments = ["--recorded", str(tmp_path / "recorded" / "ratios.json")]
    assert command.main(arguments, broken) == 2
    assert "made up gave no figures: no such program" in capsys.readouterr().err
    assert command.main([*arguments, "--record"], broken) == 2
    assert json.loads((tmp_path / "recorded" / "ratios.json").read_text())["ratios"]["made up"] == GOOD
    assert sys.executable
