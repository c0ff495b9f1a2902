"""Sizes by hand; a small sample of a real server, and one size of image with a small store."""

import numpy as np
import pytest

from bench.monitors import costs
from bench.scale import __main__ as command
from bench.scale import sizing, table, units
from bench.stages import inputs
from guard.sketching import Sketcher

KNOWN = units.Units(
    caller=1_000.0, row=1_000.0, recent=500.0, cluster=400.0,
    us=dict(zip(units.OPERATIONS, (200.0, 300.0, 100.0, 150.0, 50.0), strict=True)),
    quartiles=dict.fromkeys(units.OPERATIONS, (1.0, 2.0)), script_us=dict.fromkeys(units.OPERATIONS, 1.0),
    alone_us=400.0, at_once_us=350.0,
)  # fmt: skip
ASSUMED = sizing.Assumed(callers=1_000, duplicates=0.5, near=0.1, clustered=0.5, memory=10**9, filled=0.5, busy=0.5)


def test_a_query_costs_its_share_of_each_operation():
    assert sizing.query_us(KNOWN, ASSUMED) == pytest.approx(0.4 * 200 + 0.1 * 300 + 0.5 * 100 + 0.5 * 200)


def test_shards_by_memory_and_by_cpu():
    few = sizing.need(1_000, 3_600, KNOWN, ASSUMED)
    assert few.rows == 1_800_000
    assert few.bytes == 1_000 * 1_000 + 1_800_000 * 1_200 + 256_000 * 500  # recent rows are bounded by caller
    assert (few.by_memory, few.by_cpu, few.shards) == (5, 1, 5)
    assert few.operations == 2_000
    many = sizing.need(1_000_000, 1, KNOWN, ASSUMED)
    assert many.cpus == pytest.approx(260.0)
    assert (many.by_cpu, many.shards) == (520, 520)
    assert many.a_model == pytest.approx(0.5e6 / 260.0)


@pytest.fixture(scope="module")
def scale():
    sample = units.Sample(callers=200, rows=600, rounds=2, calls=20, clients=4)
    return command.sized(units.measured(sample), sample)


def test_a_real_server_is_measured(scale):
    found = scale["units"]
    assert 200 < found["caller"] < 16_384  # with what the server itself takes, by so few
    assert 300 < found["row"] < 16_384
    assert min(found["recent"], found["cluster"]) > 48
    assert all(us > 0 for us in found["us"].values())
    assert found["at_once_us"] > 0
    assert [one["rate"] for one in scale["needs"][:: len(sizing.TTLS)]] == list(sizing.RATES)


@pytest.fixture(scope="module")
def spent():
    return costs.measured(costs.How(rounds=2, calls=2, warm=4, stored=(200, 400), sizes=("28x28x1",)))


def test_every_part_is_timed(spent):
    parts = {key.split(" | ")[1] for key in spent["us"]}
    assert {"sketch", "exchange", "links", "decide", "credit", "conclude", "credit the answer", "whole"} <= parts
    assert all(one["median"] > 0 for one in spent["us"].values())
    assert set(spent["growth"]) == {
        f"28x28x1 | {what} | {kind}" for what in ("exchange", "whole") for kind in ("unlike", "near")
    }


def test_near_repeats_find_eight_rows():
    sketcher, store = Sketcher(costs.SECRET), costs.filled(200)
    images, rng = inputs.SIZES["28x28x1"](1), np.random.default_rng(0)
    one = costs.Subject(images, sketcher, sketcher, (), None, np.zeros((1, 10)), rng)
    for row in one.near(costs.NEAR):
        costs.at_once(store.exchange("model", "somebody", (), one.full(row), 1.0e9))
    sketches = one.full(one.near(1)[0])
    (match,) = costs.at_once(store.exchange("model", "a", (), sketches, 1.0e9)).matches
    assert len(match.neighbours) == costs.NEAR


def test_the_page_tells_of_every_bar(tmp_path, spent, scale):
    found = {"costs": spent, "scale": scale, "made": dict.fromkeys(("costs", "scale"), command.made("the slice"))}
    found["bars"] = [one.plain() for one in table.judged(found)]
    text = table.markdown(found)
    assert all(one["what"] in text for one in found["bars"])
    assert "10,000,000 callers" in text
    page = tmp_path / "scale.md"
    page.write_text(f"# Before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n", encoding="utf-8")
    table.put(page, text)
    assert page.read_text(encoding="utf-8") == f"# Before\n\n{table.BEGIN}\n{text}{table.END}\n\nafter\n"


def test_an_unknown_section_is_an_error(capsys):
    assert command.main(["nothing"]) == 2
    assert "no section is called nothing" in capsys.readouterr().err
