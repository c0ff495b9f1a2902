"""The quarantine: what is flagged, how its content is known again, what is written, and what fails."""

import dataclasses
import datetime as dt
import hashlib
import io
import json
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from guard import cli, quarantining
from guard.content import digests
from guard.events import Event
from guard.flagging import Content, Flags, flag, stages_by_row
from guard.metrics import Metrics
from guard.places import Directory, Objects, PlaceError, place_of
from guard.profile import Profile, Space
from guard.quarantine import Tally, entries, read
from guard.quarantining import Quarantine, open_place
from guard.settings import ConfigError
from guard.settings import Quarantine as Settings
from guard.types import Action, Finding, Flagged, Level, Mode, ModelMetadata, TensorSpec
from tests.servers.process import free_port

NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC).timestamp()
DIGEST = hashlib.sha256(b"row").hexdigest()
FLAGS = Flags((Flagged(1, DIGEST, ("pid",)),), shape=(4,), datatype="FP32")
EVENT = Event(NOW, "d1", "peer:10.0.0.1", "m", "2", Action.ALLOW, Action.DENY, False, techniques=("AML.T0015",), rows=3)


# --- content


def test_a_digest_is_of_float32_values_channel_last():
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)  # N, C, H, W
    last = np.moveaxis(x, 1, -1)
    by_hand = hashlib.sha256(np.ascontiguousarray(last[1]).astype("<f4").tobytes()).hexdigest()
    assert digests(x, channels_first=True)[1] == by_hand
    assert digests(last) == digests(last.reshape(2, -1)) == digests(last.astype(np.float64))
    assert digests(x) != digests(last)
    assert digests(np.zeros((1, 3))) == digests(-np.zeros((1, 3), ">f2"))


def test_a_content_needs_numbers():
    with pytest.raises(ValueError, match="numbers"):
        digests(np.array([b"a"], dtype=object))


# --- what is flagged


def finding(*p: float, stage: str = "pid", kind="detector", mode=Mode.SHADOW, scores=()) -> Finding:
    return Finding(stage, kind, mode, scores or p, p, 0.01)


@pytest.mark.parametrize(
    ("findings", "rule", "expected"),
    [
        ([finding(0.5, 0.001, 0.01)], {}, {1: ("pid",), 2: ("pid",)}),
        ([finding(0.5, 0.5, 0.5)], {}, {}),
        ([finding(0.001, stage="prada", kind="monitor")], {}, dict.fromkeys(range(3), ("prada",))),
        ([finding(0.0, stage="cohort network:10.0.0.0/24", kind="monitor")], {}, {}),
        ([finding(0.0, stage="alert", kind="monitor", scores=(1.0,))], {}, {}),
        ([finding(0.0, stage="alert", kind="monitor", scores=(3.0,))], {}, dict.fromkeys(range(3), ("alert",))),
        (
            [finding(0.0, stage="alert", kind="monitor", scores=(1.0,))],
            {"from_level": "watch"},
            dict.fromkeys(range(3), ("alert",)),
        ),
        ([finding(0.5, 0.001, 0.5)], {"shadow": False}, {}),
        ([finding(0.5, 0.001, 0.5, mode=Mode.ENFORCE)], {"shadow": False}, {1: ("pid",)}),
    ],
)
def test_rows_that_fired_are_flagged(findings, rule, expected):
    assert Level["HOSTILE"] == 3
    assert stages_by_row(findings, 3, Settings(**rule), enforced=True) == expected


@pytest.mark.parametrize("rows", [1, 3])
def test_a_level_flags_rows_though_nothing_is_done_about_it(rows):
    """Where the policy allows a level, its finding does not fire."""
    watch = Finding("alert", "monitor", Mode.SHADOW, (1.0,), (1e-4,), 0.0)
    assert not watch.fired
    assert stages_by_row([watch], rows, Settings(), enforced=True) == {}
    flagged = stages_by_row([watch], rows, Settings(from_level="watch"), enforced=True)
    assert flagged == dict.fromkeys(range(rows), ("alert",))


def test_a_caller_outside_the_canary_is_in_shadow():
    found = [finding(0.001, mode=Mode.ENFORCE)]
    assert stages_by_row(found, 1, Settings(), enforced=False)
    assert not stages_by_row(found, 1, Settings(shadow=False), enforced=False)


def profile(layout: str, shape=None, datatype="FP32") -> Profile:
    metadata = ModelMetadata("m", (), "", (TensorSpec("x", datatype, (-1, 2)),), ())
    return Profile(metadata, "x", datatype, Space(layout, (0.0,), (1.0,), True, shape), "y", "probabilities", 3, {})


@pytest.mark.parametrize(
    ("layout", "rows", "shape"),
    [
        ("nchw", (3, 2, 5), (2, 5, 3)),
        ("nhwc", (2, 5, 3), (2, 5, 3)),
        ("nhw", (2, 5), (2, 5, 1)),
        ("vector", (7,), (7,)),
    ],
)
def test_flags_carry_content_whatever_the_layout(layout, rows, shape):
    x = np.random.default_rng(0).random((3, *rows), np.float32)
    made = flag(Content(x, profile(layout)), [finding(1, 0, 1)], Settings(), enforced=False, keep=True, known=Flags())
    last = np.moveaxis(x, 1, -1) if layout == "nchw" else x
    assert made.shape == shape
    assert [one.sha256 for one in made.rows] == digests(last[1:2])
    np.testing.assert_array_equal(made.x, x[1:2])


def test_known_digests_are_not_computed_again_and_new_ones_are_added():
    x = np.eye(3, dtype=np.float32)
    known = Flags((Flagged(0, "known", ("pid",)),))
    found = [finding(0, 1, 1), finding(0, 1, 0, stage="views")]
    made = flag(Content(x, profile("vector")), found, Settings(), enforced=False, keep=False, known=known)
    assert [(one.row, one.sha256, one.stages) for one in made.rows] == [
        (0, "known", ("pid", "views")),
        (2, digests(x)[2], ("views",)),
    ]


def test_encoded_images_are_known_by_their_files():
    images = np.array([[b"\xff\xd8one"], [b"\x89PNGtwo"]], dtype=object)
    content = Content(images, profile("encoded", (2, 2, 3), "BYTES"))
    made = flag(content, [finding(1, 0)], Settings(), enforced=False, keep=True, known=Flags())
    assert [one.sha256 for one in made.rows] == [hashlib.sha256(b"\x89PNGtwo").hexdigest()]
    assert (made.shape, made.encoded, made.x) == ((), (b"\x89PNGtwo",), None)


def test_rows_that_do_not_fit_are_told_by_their_digests_alone():
    x = np.zeros((3, 200), np.float32)
    rule = Settings(max_item_bytes=1700)
    made = flag(Content(x, profile("vector")), [finding(0, 0, 0)], rule, enforced=False, keep=True, known=Flags())
    assert (len(made.rows), made.kept, made.x.shape) == (3, (0, 1), (2, 200))


# --- settings and places


@pytest.mark.parametrize(
    "bad",
    [
        {"url": "memory://x"},
        {"url": "s3://key:secret@bucket/x"},
        {"url": "s3://"},
        {"url": "file://host/x"},
        {"payload": True},
        {"s3": {"endpoint_url": "http://me:secret@host"}},
        {"s3": {"kms_key_id": "k"}},
        {"s3": {"key": "k"}},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError):
        Settings(**bad)


def test_off_by_default():
    assert open_place(Settings()) is None
    assert not Settings().payload


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match=r"'\.\[quarantine\]'"):
        open_place(Settings(url="s3://bucket/prefix"))


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"quarantine\.url"):
        open_place(Settings(url=str(tmp_path / "file" / "below")))


def memory_objects() -> Objects:
    import fsspec

    fs = fsspec.filesystem("memory", skip_instance_cache=True)
    return Objects(fs, f"guard-{time.monotonic_ns()}")


@pytest.fixture(params=["directory", "objects"])
def place(request, tmp_path):
    return Directory(tmp_path / "quarantine") if request.param == "directory" else memory_objects()


def test_a_place_gives_back_what_it_got(place):
    assert place.names("a") == []
    place.write("a/b/1.bin", b"one")
    place.write("a/2.bin", b"two")
    place.write("other/3.bin", b"three")
    assert place.names("a") == ["a/2.bin", "a/b/1.bin"]
    assert place.read("a/b/1.bin") == b"one"
    with pytest.raises(FileNotFoundError):
        place.read("a/none")


def test_files_are_the_owners_alone_and_no_half_one_stays(tmp_path, monkeypatch):
    place = Directory(tmp_path)
    place.write("d/a", b"x")
    assert stat.S_IMODE((tmp_path / "d" / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("guard.places.os.fsync", full)
    with pytest.raises(OSError, match="space"):
        place.write("d/b", b"x")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["a"]


# --- the writer


def counts(metrics: Metrics) -> dict[tuple[str, str], float]:
    samples = metrics.quarantined.collect()[0].samples
    return {(s.labels["what"], s.labels["outcome"]): s.value for s in samples if s.name.endswith("_total")}


def writer(place, metrics, **options) -> Quarantine:
    settings = Settings(url="/unused", **options)
    return Quarantine(settings, place, metrics, clock=lambda: NOW, first_wait_s=0.01, gather_s=0.0)


def kept(rows: int = 1, nbytes: int = 4096) -> Flags:
    flagged = tuple(Flagged(i, DIGEST, ("pid",)) for i in range(rows))
    return dataclasses.replace(FLAGS, rows=flagged, kept=tuple(range(rows)), x=np.zeros((rows, nbytes), np.uint8))


def lines(place) -> list[dict]:
    return [entry.document for entry in entries(place, Tally())]


def test_a_query_becomes_a_line_and_its_rows_an_array(place):
    metrics = Metrics()
    quarantine = writer(place, metrics, payload=True)
    quarantine.record(EVENT, kept())
    quarantine.close()
    (line,) = lines(place)
    assert line == {
        "time": "2026-11-26T12:00:00.000000Z", "event": "guard.quarantine", "decision_id": "d1",
        "caller": "peer:10.0.0.1", "model": "m", "version": "2", "action": "allow", "would_be": "deny",
        "enforced": False, "atlas_techniques": ["AML.T0015"], "payload_sha256": "", "query_rows": 3,
        "datatype": "FP32", "layout": "vector", "shape": [4],
        "rows": [{"row": 0, "sha256": DIGEST, "stages": ["pid"]}],
        "kept": {"rows": [0], "objects": ["payloads/2026-11-26/d1.npy"]},
    }  # fmt: skip
    x = np.load(io.BytesIO(place.read("payloads/2026-11-26/d1.npy")), allow_pickle=False)
    np.testing.assert_array_equal(x, np.zeros((1, 4096), np.uint8))
    assert counts(metrics) == {("digest", "written"): 1.0, ("row", "written"): 1.0}


def test_images_keep_their_bytes(place):
    quarantine = writer(place, Metrics(), payload=True)
    quarantine.record(EVENT, dataclasses.replace(kept(3), kept=(1, 2), x=None, encoded=(b"\xff\xd8a", b"\x89PNGb")))
    quarantine.close()
    assert place.read("payloads/2026-11-26/d1-1.jpg") == b"\xff\xd8a"
    assert place.read("payloads/2026-11-26/d1-2.png") == b"\x89PNGb"


def test_nothing_is_written_of_clean_queries_nor_without_a_place(place):
    quarantine = writer(place, Metrics())
    quarantine.record(EVENT, Flags())
    quarantine.close()
    off = Quarantine(Settings(), None, Metrics())
    off.record(EVENT, FLAGS)
    off.close()
    assert place.names("manifests") == []


@pytest.mark.parametrize(
    ("shadow", "action", "would_be", "written"),
    [(True, Action.ALLOW, Action.DENY, 1), (False, Action.ALLOW, Action.DENY, 0), (False, Action.DENY, Action.DENY, 1),
     (True, Action.PURIFY, Action.PURIFY, 0)],
)  # fmt: skip
def test_only_denied_ones(place, shadow, action, would_be, written):
    quarantine = writer(place, Metrics(), what="denied", shadow=shadow)
    quarantine.record(dataclasses.replace(EVENT, action=action, would_be=would_be), FLAGS)
    quarantine.close()
    assert len(lines(place)) == written


class Away:
    """Fails so often, then takes everything; or takes nothing until it is let go."""

    def __init__(self, failures: int = 0, held: bool = False) -> None:
        self.left, self.held, self.go, self.entered = failures, held, threading.Event(), threading.Event()
        self.written: list[str] = []

    def write(self, name: str, data: bytes) -> None:
        self.entered.set()
        if self.held:
            self.go.wait(20)
        if self.left:
            self.left -= 1
            raise OSError("away")
        self.written.append(name)


def test_a_write_that_fails_is_tried_again():
    away, metrics = Away(2), Metrics()
    quarantine = writer(away, metrics, attempts=3)
    quarantine.record(EVENT, FLAGS)
    quarantine.close()
    assert len(away.written) == 1
    assert counts(metrics) == {("digest", "written"): 1.0}
    assert metrics.quarantine_failures.collect()[0].samples[0].value == 2.0


def test_what_fails_too_often_is_given_up_and_counted():
    away, metrics = Away(99), Metrics()
    quarantine = writer(away, metrics, attempts=2, payload=True)
    quarantine.record(EVENT, kept())
    quarantine.close()
    assert away.written == []
    assert counts(metrics) == {("digest", "failed"): 1.0, ("row", "failed"): 1.0}


def test_digests_are_written_where_rows_cannot_be():
    away, metrics = Away(2), Metrics()
    quarantine = writer(away, metrics, attempts=2, payload=True)
    quarantine.record(EVENT, kept())
    quarantine.close()
    assert [name.split("/")[0] for name in away.written] == ["manifests"]
    assert counts(metrics) == {("digest", "written"): 1.0, ("row", "failed"): 1.0}


def test_a_full_queue_drops_and_nobody_waits():
    stuck, metrics = Away(held=True), Metrics()
    quarantine = writer(stuck, metrics, max_queued=2, max_queued_bytes=5000, payload=True)
    quarantine.record(EVENT, FLAGS)
    assert stuck.entered.wait(10)
    begun = time.monotonic()
    for _ in range(3):  # one with its row, one whose row has no room, one too many
        quarantine.record(EVENT, kept())
    assert time.monotonic() - begun < 10.0
    assert counts(metrics) == {("row", "dropped"): 2.0, ("digest", "dropped"): 1.0}
    quarantine.close(0.05)
    assert counts(metrics)["digest", "dropped"] == 3.0
    stuck.go.set()
    quarantine.record(EVENT, FLAGS)
    assert counts(metrics)["digest", "dropped"] >= 3.0


def test_a_day_has_its_limits_and_the_next_one_its_own(place):
    metrics, now = Metrics(), [NOW]
    settings = Settings(url="/unused", payload=True, rows_per_day=3, bytes_per_day=5000)
    quarantine = Quarantine(settings, place, metrics, clock=lambda: now[0], gather_s=0.0)
    for i in range(4):
        quarantine.record(dataclasses.replace(EVENT, decision_id=str(i)), kept())
        wait_for(lambda n=i: sum(v for (what, _), v in counts(metrics).items() if what == "digest") == n + 1)
    now[0] += 86_400
    quarantine.record(dataclasses.replace(EVENT, decision_id="next"), kept())
    quarantine.close()
    assert counts(metrics) == {
        ("digest", "written"): 4.0, ("digest", "limited"): 1.0, ("row", "written"): 2.0, ("row", "limited"): 3.0
    }  # fmt: skip
    assert [bool(line["kept"]) for line in lines(place)] == [True, False, False, True]


def wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_a_query_with_more_rows_than_a_batch_is_written(place, monkeypatch):
    monkeypatch.setattr(quarantining, "MAX_BATCH_ROWS", 2)
    quarantine = writer(place, Metrics())
    for _ in range(2):
        quarantine.record(EVENT, dataclasses.replace(kept(5), kept=(), x=None))
    quarantine.close()
    assert [len(line["rows"]) for line in lines(place)] == [5, 5]


# --- the reader


@pytest.fixture
def held(tmp_path) -> tuple[Path, np.ndarray]:
    """A directory in which rows 1 and 3 of a data set of (2, 5, 3) images are quarantined."""
    x = np.random.default_rng(7).random((4, 2, 5, 3), np.float32)
    flagged = tuple(Flagged(i, digests(x)[i], ("pid",)) for i in (1, 3))
    quarantine = writer(Directory(tmp_path / "q"), Metrics())
    quarantine.record(EVENT, Flags(flagged, shape=(2, 5, 3), layout="nhwc", datatype="FP32"))
    quarantine.record(dataclasses.replace(EVENT, model="other", decision_id="d2"), FLAGS)
    quarantine.close()
    return tmp_path / "q", x


@pytest.mark.parametrize(
    "form",
    [lambda x: x, lambda x: np.moveaxis(x, -1, 1), lambda x: x.reshape(4, -1), lambda x: x.astype(np.float64)],
)
def test_rows_of_a_data_set_are_found_in_any_layout(held, form):
    url, x = held
    assert read(str(url)).quarantined(form(x)).tolist() == [False, True, False, True]
    assert not read(str(url)).quarantined(form(x) + 1e-3).any()


def test_only_what_is_asked_for_counts(held):
    url, x = held
    assert not read(str(url), model="other").quarantined(x).any()
    assert read(f"file://{url}", since=dt.datetime(2026, 11, 26, tzinfo=dt.UTC)).quarantined(x).any()
    assert not read(str(url), since=dt.datetime(2026, 11, 26, 13, tzinfo=dt.UTC)).quarantined(x).any()
    assert not read(str(url), since=dt.datetime(2026, 11, 27, tzinfo=dt.UTC)).quarantined(x).any()


def test_what_is_no_part_of_it_is_counted(held):
    url, x = held
    (path,) = sorted((url / "manifests").rglob("*.jsonl"))[:1]
    with path.open("ab") as file:
        file.write(b'{"event": "guard.quarantine"}\nnonsense\n[1]\n')
    marks = read(str(url))
    assert marks.unreadable == 3
    assert marks.quarantined(x).sum() == 2


def test_list_prints_entries(held, capsys):
    url, _ = held
    assert cli.main(["quarantine", "list", str(url), "--model", "m"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["TIME", "MODEL", "DECISION", "CALLER", "ROWS", "STAGES"]
    assert table[1].split()[2:] == ["m", "d1", "peer:10.0.0.1", "2", "pid"]
    assert cli.main(["quarantine", "list", str(url), "--json", "--since", "2026-11-26"]) == 0
    assert [json.loads(line)["decision_id"] for line in capsys.readouterr().out.splitlines()] == ["d1", "d2"]


def test_check_names_rows(held, tmp_path, capsys):
    url, x = held
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "a.npy", x[:2])
    np.savez(data / "b.npz", x=x[2:], y=np.arange(2))
    assert cli.main(["quarantine", "check", str(url), str(data), "--json"]) == 1
    out, err = capsys.readouterr()
    hits = [json.loads(line) for line in out.splitlines()]
    assert [(Path(hit["where"]).name, hit["row"], hit["decision_id"]) for hit in hits] == [
        ("a.npy", 1, "d1"), ("b.npz[x]", 1, "d1")
    ]  # fmt: skip
    assert "2 of 4 rows" in err
    assert "1 arrays have rows of another shape" in err
    np.save(data / "clean.npy", x[::2])
    assert cli.main(["quarantine", "check", str(url), str(data / "clean.npy")]) == 0


def test_check_refuses_pickles_and_other_files(held, tmp_path, capsys):
    url, _ = held
    np.save(tmp_path / "p.npy", np.array([{}], dtype=object))
    assert cli.main(["quarantine", "check", str(url), str(tmp_path / "p.npy")]) == 2
    assert cli.main(["quarantine", "check", str(url), str(tmp_path / "p.txt")]) == 2
    assert cli.main(["quarantine", "check", "gs://bucket", str(tmp_path)]) == 2
    assert cli.main(["quarantine", "list", str(url), "--since", "yesterday"]) == 2
    capsys.readouterr()


# --- against a server that speaks S3


@pytest.fixture(scope="module")
def s3():
    """moto's server, as a process."""
    pytest.importorskip("s3fs")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(url), 60)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture
def aws(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def test_a_bucket_holds_it_and_gives_it_back(s3, aws, capsys):
    import boto3

    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket="quarantine")
    x = np.random.default_rng(3).random((2, 4), np.float32)
    flagged = Flags((Flagged(1, digests(x)[1], ("pid",)),), shape=(4,), datatype="FP32", kept=(1,), x=x[1:])
    options = {"url": "s3://quarantine/of/guard", "payload": True}
    settings = Settings(**options, s3={"endpoint_url": s3, "server_side_encryption": "AES256"})
    metrics = Metrics()
    quarantine = Quarantine(settings, open_place(settings), metrics)
    quarantine.record(EVENT, flagged)
    quarantine.close(30)
    assert counts(metrics) == {("digest", "written"): 1.0, ("row", "written"): 1.0}
    found = {o["Key"]: o for o in client.list_objects_v2(Bucket="quarantine")["Contents"]}
    assert {key.rpartition("/")[0].rpartition("/")[0] for key in found} == {"of/guard/manifests", "of/guard/payloads"}
    for key in found:
        assert client.head_object(Bucket="quarantine", Key=key)["ServerSideEncryption"] == "AES256"
    assert read(options["url"], endpoint_url=s3).quarantined(x).tolist() == [False, True]
    assert cli.main(["quarantine", "list", options["url"], "--endpoint-url", s3]) == 0
    assert "d1" in capsys.readouterr().out


def test_a_bucket_that_is_not_there_is_counted(s3, aws):
    settings = Settings(url="s3://nowhere/x", s3={"endpoint_url": s3}, attempts=2)
    metrics = Metrics()
    quarantine = Quarantine(settings, open_place(settings), metrics, first_wait_s=0.01)
    quarantine.record(EVENT, FLAGS)
    quarantine.close(30)
    assert counts(metrics) == {("digest", "failed"): 1.0}
    assert metrics.quarantine_failures.collect()[0].samples[0].value == 2.0


def test_a_server_that_is_away_raises_oserror(aws):
    place = place_of("s3://bucket/x", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OSError, match="does not answer"):
        place.write("a", b"x")


def test_an_address_of_another_kind():
    with pytest.raises(PlaceError):
        place_of("http://host/x")
