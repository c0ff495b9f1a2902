"""A slice of the bench, with the real programs; and what it makes of figures."""

import json

import pytest

from bench.proxy import __main__ as bench
from bench.proxy import peers, programs, rounds, table, upstream
from bench.proxy.shapes import SHAPES


def needs(*names):
    """Installs them where that is ours to do."""
    for name in names:
        try:
            programs.program(name)
        except programs.Missing as error:
            pytest.skip(str(error))


def took(cpu_us):
    return {"cpu_us": cpu_us, "rate": 1.0, "p50_us": 1.0, "p99_us": 2.0}


def found(inspecting, plain, processor):
    by_peer = {
        "nginx": [took(50.0)] * 3,
        "grpc.aio": [took(value) for value in plain],
        "Guard, inspect": [took(value) for value in inspecting],
        "Envoy + ext_proc": [took(value) for value in processor],
    }
    told = {"again": {"1": by_peer, "8": by_peer}, "fresh": {}, "resident_mb": {"nginx": 8.0}}
    return {"made": {"command": "c", "day": "d", "machine": "m"}, "shapes": {"3 KB": told}}


def test_ratios_are_of_pairs_and_bars_of_more_than_one_call_in_flight():
    held = table.bars(found((330.0, 66.0, 110.0), (300.0, 60.0, 100.0), (900.0, 180.0, 300.0)))
    assert [(one["what"].split(":")[0], one["held"]) for one in held] == [("3 KB, 8 in flight", True)] * 2
    missed = table.bars(found((600.0,) * 3, (300.0,) * 3, (900.0,) * 3))
    assert [(one["measured"].split()[0], one["held"]) for one in missed] == [("2.00", False), ("1.50", False)]


def test_the_fast_plane_is_held_against_nginx_and_the_direct_call():
    figures = found((330.0,) * 3, (400.0,) * 3, (900.0,) * 3)
    for by_peer in figures["shapes"]["3 KB"]["again"].values():
        by_peer["Guard, fast plane, inspect"] = [took(45.0) | {"p50_us": 301.0}] * 3
        by_peer["no proxy"] = [took(0.0)] * 3
    told = {one["what"].split(": ")[1]: (one["measured"].split()[0], one["held"]) for one in table.bars(figures)}
    assert told["fast plane, inspecting, over nginx"] == ("0.90", True)
    assert told["grpc.aio that passes bytes through over the fast plane, inspecting"] == ("8.89", True)
    assert told["ms that the fast plane, inspecting, adds to the median call"] == ("0.30", True)
    assert "fast plane, inspecting, over tuned nginx" not in told  # asked of large messages
    figures["shapes"]["602 KB"] = figures["shapes"].pop("3 KB")
    assert "fast plane, inspecting, over nginx" not in {one["what"].split(": ")[1] for one in table.bars(figures)}


def test_the_page_tells_what_was_asked_for_and_every_peer():
    figures = found((330.0,) * 3, (300.0,) * 3, (900.0,) * 3)
    text = table.markdown({**figures, "bars": table.bars(figures)})
    assert "| nginx | 50 | 1.00 (1.00 to 1.00) |" in text
    assert "| Guard, inspect | 330 | 6.60 (6.60 to 6.60) |" in text
    assert text.count("| **no** |") + text.count("| yes |") == 2


@pytest.mark.slow
def test_a_slice_of_it(monkeypatch, tmp_path, capsys):
    needs("nginx", "h2load")
    names = ("nginx", "grpc.aio", "Guard, pass", "Guard, inspect", "Guard, monitors", "Guard, fast plane, inspect")
    monkeypatch.setattr(bench, "QUICK", rounds.How(1, (8,), 0.02, names))
    assert bench.main(["--quick", "--json", "--docs", str(tmp_path / "speed.md")]) == 0
    told = json.loads(capsys.readouterr().out)["shapes"]["3 KB"]
    assert set(told["again"]["8"]) == {rounds.DIRECT, *names}
    assert all(one["cpu_us"] > 0 for name in names for one in told["again"]["8"][name])
    assert set(told["fresh"]) == {"Guard, inspect", "Guard, monitors", "Guard, fast plane, inspect"}
    assert told["resident_mb"]["Guard, pass"] > told["resident_mb"]["nginx"] > 0
    assert "| Guard, monitors |" in (tmp_path / "speed.md").read_text()


def test_a_guard_that_does_not_inspect_is_no_measurement(tmp_path, monkeypatch):
    """The upstream tells another platform than the profile knows: Guard passes the model through, and says so."""
    shape = SHAPES[0]
    other = shape.metadata().replace(b"onnxruntime_onnx", b"something_else__")
    monkeypatch.setattr(type(shape), "metadata", lambda _: other)
    with (
        upstream.start(tmp_path, shape) as port,
        peers.guarded("inspect")(tmp_path, port, shape) as peer,
        pytest.raises(RuntimeError, match="does not inspect"),
    ):
        peer.check()
