"""A seeded slice of what grows, and the bars by hand."""

from typing import Any

import pytest

from bench.growth import __main__ as command
from bench.growth import measure, memory, table, workers


@pytest.fixture(scope="module")
def queries() -> dict[str, Any]:
    return measure.measured(measure.How(2, 3, (1, 50), (200, 400), (1, 4), (1, 99)))


def test_everything_that_grows_is_timed(queries: dict[str, Any]) -> None:
    assert set(queries["us"]) == {"callers", "stored", "rows", "monitors"}
    for what, us in queries["us"].items():
        assert len(us) == 2, what
        assert all(len(taken) == 2 and min(taken) > 0 for taken in us.values())
    assert 1 < int(list(queries["us"]["monitors"])[1]) < 99  # as many as there are


def test_memory_is_bounded_by_the_settings() -> None:
    found = memory.measured({"rows": 20_000})["rows"]
    assert list(map(int, found)) == [5_000, 10_000, 15_000, 20_000, 30_000, 40_000, 80_000]
    sizes = list(found.values())
    assert sizes[0] < sizes[3]
    assert sizes[-1] <= 1.25 * sizes[3]


MEMORY = {"rows": {"25": 100, "50": 200, "75": 300, "100": 400, "150": 410, "200": 410, "400": 410}}
US = {
    "callers": {"1": [10.0, 10.0], "100": [12.0, 14.0]},
    "stored": {"10": [10.0, 10.0], "1000": [16.0, 16.0]},
    "rows": {"1": [10.0, 10.0], "4": [20.0, 20.0]},
    "monitors": {"1": [5.0, 5.0], "11": [20.0, 20.0]},
}
WORKERS = {
    "how": {"rounds": 2, "calls": 3}, "cores": 2,
    "kinds": {"inspect": {
        "taken": {"1": [{"us": 100.0, "rate": 9.0}] * 2, "2": [{"us": 130.0, "rate": 9.0}] * 2},
        "resident_mb": {"1": 100.0, "2": 250.0},
    }},
}  # fmt: skip


def test_bars_by_hand() -> None:
    found = {"queries": {"us": US}, "memory": MEMORY, "workers": WORKERS}
    bars = {one.what: one for one in table.judged(found)}
    held = [one.held for one in bars.values()]
    assert held == [True, False, True, True, True, False], bars
    crooked = {"rows": {**MEMORY["rows"], "25": 10, "400": 600}}
    assert [one.held for one in table.judged(found | {"memory": crooked})][3:5] == [False, False]


def test_the_page_says_whether_the_machine_was_busy() -> None:
    found: dict[str, Any] = {
        "queries": {"how": {"rounds": 2, "calls": 3}, "us": US}, "memory": MEMORY, "workers": WORKERS, "bars": [],
        "made": {"command": "c", "machine": "m", "versions": {}, "busy": False},
    }  # fmt: skip
    quiet = table.markdown(found)
    assert "Other jobs ran" not in quiet
    assert "| inspect | 2 | 130 | 1.30 (1.30 to 1.30) |" in quiet
    found["made"]["busy"] = True
    assert "Other jobs ran" in table.markdown(found)


@pytest.mark.long
def test_real_workers_are_measured() -> None:
    found = workers.measured(workers.How(1, 40))
    assert set(found["kinds"]) == set(workers.KINDS)
    for told in found["kinds"].values():
        assert set(told["taken"]) == {"1", "2"}
        assert all(one["us"] > 0 for taken in told["taken"].values() for one in taken)
        assert told["resident_mb"]["2"] > told["resident_mb"]["1"]


def test_the_command_knows_its_options() -> None:
    options = command.parser().parse_args(["--quick", "--json", "--no-workers"])
    assert (options.quick, options.json, options.no_workers) == (True, True, True)
