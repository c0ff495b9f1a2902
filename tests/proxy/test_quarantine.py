"""The quarantine behind a real proxy: the flagged rows of a batch, and nothing of clean ones."""

import hashlib
import io
import json

import numpy as np
import pytest

from guard.content import digests
from guard.places import Directory
from guard.quarantine import Tally, entries
from tests.proxy.world import CLEAN, FLAGGED, SQUEEZED, eventually, profile, request, world

pytestmark = pytest.mark.usefixtures("world_stages")


def model(path, *stages: str, **changes) -> list[dict]:
    detectors = [{"stage": stage} for stage in stages or ("test_mean",)]
    return [{"name": "m", "profile": profile(path / "p"), "detectors": detectors, **changes}]


def written(path) -> list[dict]:
    return [entry.document for entry in entries(Directory(path), Tally())]


@pytest.mark.parametrize("mode", ["shadow", "enforce"])
async def test_flagged_rows_of_a_batch_and_nothing_of_clean_ones(tmp_path, mode):
    url, log = tmp_path / "q", tmp_path / "audit.jsonl"
    batch = np.concatenate([CLEAN, FLAGGED, CLEAN])
    settings = {"models": model(tmp_path, mode=mode), "audit": {"file": str(log)}}
    async with world(**settings, quarantine={"url": str(url), "payload": True}) as (_, guarded):
        await guarded.unary(request(CLEAN))
        body = request(batch)
        ended = await guarded.unary(body)
        assert (ended.code.name == "OK") is (mode == "shadow")
    (line,) = written(url)  # the drain wrote it
    expected = [{"row": 1, "sha256": digests(batch)[1], "stages": ["test_mean"]}]
    assert line["rows"] == expected
    assert (line["query_rows"], line["payload_sha256"]) == (3, hashlib.sha256(body).hexdigest())
    (name,) = line["kept"]["objects"]
    np.testing.assert_array_equal(np.load(io.BytesIO((url / name).read_bytes()), allow_pickle=False), FLAGGED)
    (event,) = [json.loads(text) for text in log.read_text().splitlines()]
    assert event["flagged_rows"] == expected
    assert event["decision_id"] == line["decision_id"]


async def test_rows_that_the_answer_flags(tmp_path):
    url = tmp_path / "q"
    settings = {"models": model(tmp_path, "test_views"), "quarantine": {"url": str(url)}}
    async with world(**settings) as (_, guarded):
        await guarded.unary(request(np.concatenate([CLEAN, SQUEEZED])))
        await eventually(lambda: guarded.count("guard_decisions_total", model="m", action="allow", would_be="deny"))
    (line,) = written(url)
    assert [(row["row"], row["stages"]) for row in line["rows"]] == [(1, ["test_views"])]
    assert line["kept"] is None


async def test_audit_events_carry_digests_without_a_quarantine(tmp_path):
    log = tmp_path / "audit.jsonl"
    async with world(models=model(tmp_path), audit={"file": str(log)}) as (_, guarded):
        await guarded.unary(request(FLAGGED))
    (event,) = [json.loads(text) for text in log.read_text().splitlines()]
    assert [row["sha256"] for row in event["flagged_rows"]] == digests(FLAGGED)


async def test_calls_go_on_while_the_place_is_away(tmp_path):
    url = tmp_path / "q"
    settings = {"models": model(tmp_path), "quarantine": {"url": str(url), "attempts": 1}}
    async with world(**settings) as (_, guarded):
        url.rmdir()
        url.write_bytes(b"in the way")
        for _ in range(3):
            assert (await guarded.unary(request(FLAGGED))).code.name == "OK"
        lost = {"what": "digest", "outcome": "failed"}
        await eventually(lambda: guarded.count("guard_quarantined_rows_total", **lost) == 3.0)
        assert guarded.count("guard_quarantine_failures_total") >= 1.0
