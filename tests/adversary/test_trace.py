import asyncio
import json
import math

import grpc
import numpy as np
import pytest

from adversary import cli, trace
from adversary.oracle import Answered, Endpoint, Oracle
from tests.adversary.tiny import Tiny, serving


def brightness(x):
    high = x.reshape(len(x), -1).mean(1)
    return np.stack([1.0 - high, high], axis=1)


def endpoint(tiny, n=2):
    return Endpoint(tiny.address, "tiny", identities=tuple((("who", f"{i}"),) for i in range(n)))


X = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


def record(tiny, recorder=None):
    recorder = recorder or trace.Recorder()
    with Oracle(endpoint(tiny), 100) as oracle:
        oracle.listeners.append(recorder)
        oracle.query(X)
        oracle.use(1)
        oracle.query(X[:1])
        oracle.query(X[1:])
    return recorder.trace()


@pytest.fixture
def tiny():
    with serving(Tiny(brightness, lambda x, n: grpc.StatusCode.PERMISSION_DENIED if n == 3 else None)) as served:
        yield served


def test_each_input_is_kept_once_and_each_call_as_it_was(tiny):
    recorded = record(tiny)
    assert np.array_equal(recorded.x, X)
    assert [call.rows for call in recorded.calls] == [(0, 1, 2), (0,), (1, 2)]
    assert [call.identity for call in recorded.calls] == [0, 1, 1]
    assert [call.labels for call in recorded.calls] == [(0, 0, 1), (0,), ()]
    assert recorded.calls[2].status == "PERMISSION_DENIED"
    assert recorded.identities == 2
    assert recorded.seconds > 0


def test_what_is_saved_is_loaded_and_no_pickle_is_read(tiny, tmp_path):
    recorded = record(tiny)
    trace.save(recorded, tmp_path / "t.jsonl")
    loaded = trace.load(tmp_path / "t.jsonl")
    assert np.array_equal(loaded.x, recorded.x)
    assert loaded.calls == recorded.calls
    np.savez(tmp_path / "t.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(trace.TraceError, match="does not belong"):
        trace.load(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "not a trace"),
        ([{"adversary.trace": 99}], "not a trace"),
        (["nonsense"], "not a trace"),
        ([None, {"rows": [7]}], "no call"),
        ([None, {"rows": [-1], "labels": [], "started_s": 0, "identity": 0, "digest": "", "status": ""}], "not there"),
        ([None, {"rows": [], "labels": [], "started_s": 0, "identity": 0, "digest": "", "status": ""}], "not there"),
    ],
)
def test_other_files_are_refused(tiny, tmp_path, lines, message):
    path = tmp_path / "t.jsonl"
    trace.save(record(tiny), path)
    header = path.read_text().splitlines()[0]
    path.write_text("\n".join(header if line is None else json.dumps(line) for line in lines))
    with pytest.raises(trace.TraceError, match=message):
        trace.load(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(trace.TraceError, match="cannot read"):
        trace.load(tmp_path / "none.jsonl")


def test_what_does_not_fit_is_counted(tiny, tmp_path):
    recorded = record(tiny, trace.Recorder(max_rows=3))
    assert (len(recorded.x), len(recorded.calls), recorded.lost) == (3, 1, 2)
    trace.save(recorded, tmp_path / "t.jsonl")
    assert trace.load(tmp_path / "t.jsonl").lost == 2


def replay(tiny, recorded, **options):
    return asyncio.run(trace.replay(recorded, endpoint(tiny), **options))


def test_a_replay_sends_the_same_bytes_in_the_same_order_as_the_same_callers(tiny):
    recorded = record(tiny)
    sent, said = list(tiny.inputs), list(tiny.metadata)
    tiny.requests.clear(), tiny.inputs.clear(), tiny.metadata.clear()
    told = []
    came = replay(tiny, recorded, speed=math.inf, tell=lambda *now: told.append(now))
    assert all(np.array_equal(a, b) for a, b in zip(sent, tiny.inputs, strict=True))
    assert [m["who"] for m in tiny.metadata] == [m["who"] for m in said] == ["0", "1", "1"]
    assert [isinstance(reply, Answered) for reply in came.replies] == [True, True, False]
    assert told == [(1, 0), (2, 0), (3, 1)]


def test_a_replay_keeps_the_pace_it_is_told(tiny):
    calls = tuple(trace.Call(10.0 + i, 0, (0,), "", "OK", (0,)) for i in range(3))
    came = replay(tiny, trace.Trace(X, calls), speed=10.0)
    assert came.seconds >= 0.2
    assert len(came.replies) == 3


def test_attack_records_what_trace_replays(data, victim, tmp_path, capsys):
    import torch

    def answer(x):
        with torch.no_grad():
            return victim(torch.from_numpy(np.array(x))).numpy()

    with serving(Tiny(answer, shape=(-1, 1, 28, 28))) as tiny:
        target = ["--target", tiny.address, "--model-name", "tiny", "--json"]
        path = str(tmp_path / "walk.jsonl")
        attack = ["attack", "hop-skip-jump", "--n", "1", "--budget", "60", "--record", path]
        assert cli.main([*attack, *target]) == 0
        sent = json.loads(capsys.readouterr().out)
        assert cli.main(["trace", path, "--speed", "inf", *target]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["calls"], told["rows"]) == (sent["calls"], sent["rows_sent"])
        assert told["answered_otherwise"] == {"hits": 0, "n": told["rows"], "rate": 0.0} | {
            "interval_95": told["answered_otherwise"]["interval_95"]
        }
        assert tiny.metadata[-1]["x-api-key"] == "trace-0"
        assert cli.main(["trace", path, "--speed", "inf", *target[:-1]]) == 0
        assert "answered otherwise" in capsys.readouterr().out


def test_a_bad_trace_ends_the_command(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    path.write_text("{}")
    assert cli.main(["trace", str(path), "--target", "127.0.0.1:1", "--model-name", "m"]) == 2
    assert "cannot read the trace" in capsys.readouterr().err


@pytest.mark.parametrize("speed", ["0", "-1", "nan"])
def test_a_speed_is_above_0(speed, tmp_path):
    with pytest.raises(SystemExit):
        cli.main(["trace", "t.jsonl", "--target", "a:1", "--model-name", "m", "--speed", speed])
