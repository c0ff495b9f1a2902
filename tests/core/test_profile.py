"""Profiles: unit form and back, saving, and refusing what is broken or made for something else."""

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from guard import profile as profiles
from guard.profile import (
    ProfileError,
    Space,
    StageFit,
    as_probabilities,
    from_probabilities,
    load_profile,
    metadata_digest,
    save_profile,
    stage_key,
    stage_options,
    to_probabilities,
)
from guard.types import Batching, InvalidQuery
from tests.core.helpers import METADATA, MeanDetector, Taught, ViewGap, profile_of

UNIT = (0.0,), (1.0,)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_profile(profile_of({("detector", "test_mean"): (MeanDetector(2.0), [3.0, 1.0, 2.0])}), tmp_path / "p")
    return tmp_path / "p"


@pytest.mark.parametrize(
    ("space", "shape", "unit_shape"),
    [
        (Space("nchw", *UNIT, certain=True), (2, 3, 4, 5), (2, 4, 5, 3)),
        (Space("nhwc", *UNIT, certain=True), (2, 4, 5, 3), (2, 4, 5, 3)),
        (Space("nhw", *UNIT, certain=True), (2, 4, 5), (2, 4, 5, 1)),
        (Space("flat", *UNIT, certain=True, image_shape=(4, 5, 3)), (2, 60), (2, 4, 5, 3)),
        (Space("encoded", *UNIT, certain=True, image_shape=(4, 5, 3)), (2, 4, 5, 3), (2, 4, 5, 3)),
        (Space("vector", *UNIT, certain=True), (2, 3, 7), (2, 21)),
    ],
)
def test_unit_form_and_back(space: Space, shape: tuple[int, ...], unit_shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    unit = space.to_unit(x)
    assert unit.shape == unit_shape
    assert unit.dtype == np.float32
    assert space.is_image == (space.layout != "vector")
    assert unit.flags.c_contiguous
    assert not np.shares_memory(unit, x)
    np.testing.assert_allclose(space.from_unit(unit, x), x, atol=1e-6)
    assert space.from_unit(unit[:1], x).shape == (1, *shape[1:])


def test_bounds_by_channel_and_integers() -> None:
    space = Space("nchw", (0.0, -1.0), (255.0, 1.0), certain=False)
    x = np.array([[[[255.0]], [[0.0]]]])
    assert space.to_unit(x).tolist() == [[[[1.0, 0.5]]]]
    eight = Space("nhw", (0.0,), (255.0,), certain=True)
    like = np.zeros((1, 1, 2), np.uint8)
    assert eight.from_unit(np.array([[[[0.5], [1.0]]]], np.float32), like).tolist() == [[[128, 255]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32, np.float64])
def test_between_0_and_1_the_way_back_is_exact(dtype: type[np.generic]) -> None:
    """As by float64, which other bounds need."""
    plain, like = Space("nchw", (0.0,), (1.0,), certain=True), np.zeros((2, 3, 4, 5), dtype)
    unit = np.random.default_rng(0).random((2, 4, 5, 3), dtype=np.float32)
    unit[0, 0, 0] = -0.0, 0.5, 1.0
    wide = np.moveaxis(unit.astype(np.float64) * 1.0 + 0.0, -1, 1)
    expected = (np.rint(wide) if np.issubdtype(dtype, np.integer) else wide).astype(dtype)
    found = plain.from_unit(unit, like)
    assert found.dtype == dtype
    assert found.tobytes() == expected.tobytes()
    assert not np.shares_memory(found, unit)


def test_unit_form_survives_what_validation_lets_through() -> None:
    space = Space("vector", *UNIT, certain=False)
    assert space.to_unit(np.array([[np.nan, np.inf, -np.inf, 7.0]])).tolist() == [[0.0, 1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("space", "shape", "text"),
    [
        (Space("nchw", *UNIT, certain=True), (2, 3, 4), "3 dimensions, the model takes 4"),
        (Space("vector", *UNIT, certain=True), (), "0 dimensions"),
        (Space("flat", *UNIT, certain=True, image_shape=(2, 2, 1)), (1, 5), "5 features, the model takes 4"),
        (Space("nhwc", *UNIT, certain=True, image_shape=(2, 2, 1)), (1, 2, 3, 1), r"\(2, 3, 1\)"),
        (Space("nhwc", (0.0, 0.0), (1.0, 1.0), certain=True), (1, 2, 2, 3), "3 channels, the model takes 2"),
    ],
)
def test_inputs_of_another_shape_are_invalid(space: Space, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(InvalidQuery, match=text):
        space.to_unit(np.zeros(shape))
    with pytest.raises(InvalidQuery, match=text):
        space.check(np.zeros(shape), finite=True, bounds=True)


def test_values_are_checked_as_asked() -> None:
    space = Space("vector", *UNIT, certain=True)
    for bad in (np.nan, np.inf):
        with pytest.raises(InvalidQuery, match="NaN or infinite"):
            space.check(np.array([[bad]]), finite=True, bounds=False)
        space.check(np.array([[bad]]), finite=False, bounds=False)
    for bad in (-0.1, 1.1):
        with pytest.raises(InvalidQuery, match="outside 0 to 1"):
            space.check(np.array([[bad]]), finite=True, bounds=True)
        space.check(np.array([[bad]]), finite=True, bounds=False)
        replace(space, certain=False).check(np.array([[bad]]), finite=True, bounds=True)
    space.check(np.array([[1.0 + 1e-6]]), finite=True, bounds=True)  # float32 arithmetic of honest clients
    space.check(np.zeros((0, 3)), finite=True, bounds=True)
    space.check(np.array([[1]]), finite=True, bounds=True)


def test_bounds_are_checked_by_channel() -> None:
    space = Space("nchw", (0.0, -1.0), (1.0, 0.0), certain=True)
    space.check(np.array([[[[1.0]], [[-1.0]]]]), finite=True, bounds=True)
    with pytest.raises(InvalidQuery, match="outside"):
        space.check(np.array([[[[-1.0]], [[-1.0]]]]), finite=True, bounds=True)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"layout": "hwc"}, "unknown layout"),
        ({"low": (0.0, 1.0)}, "same, non-zero length"),
        ({"low": (), "high": ()}, "same, non-zero length"),
        ({"low": (1.0,)}, "below its high"),
        ({"high": (np.inf,)}, "finite"),
        ({"layout": "flat"}, "needs image_shape"),
    ],
)
def test_a_space_that_makes_no_sense(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ProfileError, match=text):
        Space(**{"layout": "nhw", "low": (0.0,), "high": (1.0,), "certain": True} | values)


def test_logits_and_probabilities() -> None:
    y = np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]], np.float32)
    probs = to_probabilities(y, "logits")
    np.testing.assert_allclose(probs, [[0.25, 0.75], [0.5, 0.5]], atol=1e-6)
    back = from_probabilities(probs, "logits", y)
    assert back.dtype == np.float32
    np.testing.assert_allclose(to_probabilities(back, "logits"), probs, atol=1e-6)
    np.testing.assert_allclose(to_probabilities(np.array([[2.0, 6.0, -1e-9]]), "probabilities"), [[0.25, 0.75, 0.0]])
    certain = from_probabilities(np.array([[1.0, 0.0]]), "logits", y)
    assert certain.tolist() == [[0.0, -30.0]]
    assert from_probabilities(np.array([[1.0, 0.0]]), "probabilities", y).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("y", "meaning", "text"),
    [
        ([[1.0]], "labels", "labels only"),
        ([1.0], "logits", "not a finite"),
        ([[np.nan]], "logits", "not a finite"),
        ([[0.0, 0.0]], "probabilities", "without probability"),
    ],
)
def test_answers_that_are_none(y: list[Any], meaning: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        to_probabilities(np.array(y), meaning)


def test_what_was_saved_is_loaded(saved: Path) -> None:
    loaded = load_profile(str(saved))
    assert loaded.metadata == METADATA
    assert loaded.space == Space("vector", *UNIT, certain=True)
    assert loaded.calibration("detector", "test_mean", MeanDetector(2.0)).scores.tolist() == [1.0, 2.0, 3.0]
    assert len(loaded.digest) == 64
    assert loaded.digest == save_profile(replace(loaded, digest=""), saved)


@dataclass(frozen=True)
class Limited:
    scale: float = 2.0
    most: float = 0.5
    free: ClassVar[tuple[str, ...]] = ("most",)


def test_options_that_nothing_was_made_for_are_free(saved: Path) -> None:
    loaded = load_profile(saved)
    key = stage_key("detector", "limited")
    known = replace(loaded, stages={key: StageFit(stage_options(Limited()), None)})
    assert known.fitted("detector", "limited", Limited(most=0.9)) is known.stages[key]
    with pytest.raises(ProfileError, match="was fitted with"):
        known.fitted("detector", "limited", Limited(scale=1.0))


def test_calibration_holds_for_the_fitted_options_only(saved: Path) -> None:
    loaded = load_profile(saved)
    with pytest.raises(
        ProfileError, match=r"set to \{'scale': 1.0\}, but the profile was fitted with \{'scale': 2.0\}"
    ):
        loaded.calibration("detector", "test_mean", MeanDetector())
    with pytest.raises(ProfileError, match="nothing for monitor 'test_mean'"):
        loaded.calibration("monitor", "test_mean", MeanDetector())


def test_a_profile_of_another_model_is_refused(saved: Path) -> None:
    loaded = load_profile(saved)
    loaded.check_served(replace(METADATA, inputs=METADATA.inputs[::-1]))
    with pytest.raises(ProfileError, match=r"another model: versions: fitted \('1',\), served \('2',\)"):
        loaded.check_served(replace(METADATA, versions=("2",)))
    assert metadata_digest(METADATA) != metadata_digest(replace(METADATA, platform="other"))


def _edit(directory: Path, **changes: Any) -> None:
    document = json.loads((directory / "profile.json").read_text())
    (directory / "profile.json").write_text(json.dumps(document | changes))


def _pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"detector/test_mean": np.array([print], dtype=object)})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 3}, "format: Input should be 1 or 2"),
        ({"extra": 1}, "extra: Extra inputs"),
        ({"metadata_digest": "0"}, "metadata_digest does not match"),
        ({"files": {}}, "not the file that profile.json was written with"),
        ({"stages": {"detector/absent": {"options": {}}}}, "lacks detector/absent"),
    ],
)
def test_a_profile_that_was_changed_is_refused(saved: Path, changes: dict[str, Any], text: str) -> None:
    _edit(saved, **changes)
    with pytest.raises(ProfileError, match=text):
        load_profile(saved)


def _plant(directory: Path, raw: bytes) -> None:
    import hashlib

    (directory / "calibration.npz").write_bytes(raw)
    _edit(directory, files={"calibration.npz": hashlib.sha256(raw).hexdigest()})


def _archive(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"detector/test_mean": np.asarray(values)})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"not a zip", "not a readable .npz"),
        (_pickled(), "not a readable .npz"),
        (_archive([np.nan]), "must be finite"),
        (_archive(["a"]), "could not convert"),
    ],
)
def test_broken_arrays_are_refused_and_nothing_is_unpickled(saved: Path, raw: bytes, text: str) -> None:
    _plant(saved, raw)
    with pytest.raises(ProfileError, match=text):
        load_profile(saved)


def test_missing_and_oversized_files_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProfileError, match="cannot read"):
        load_profile(saved / "absent")
    monkeypatch.setattr(profiles, "MAX_FILE_BYTES", 10)
    with pytest.raises(ProfileError, match="larger than 10 bytes"):
        load_profile(saved)


@pytest.mark.parametrize("batching", [None, Batching(), Batching(8), Batching(0, stateful=True, decoupled=True)])
def test_how_the_model_batches_is_kept(tmp_path: Path, batching: Batching | None) -> None:
    save_profile(replace(profile_of({}), batching=batching), tmp_path)
    assert load_profile(tmp_path).batching == batching


def test_profiles_that_do_not_say_how_the_model_batches_are_read(saved: Path) -> None:
    document = json.loads((saved / "profile.json").read_text())
    del document["batching"]
    (saved / "profile.json").write_text(json.dumps(document))
    assert load_profile(saved).batching is None


@pytest.mark.parametrize(
    ("batching", "more"),
    [
        (Batching(), True),
        (Batching(2), True),
        (Batching(1), False),
        (Batching(0), False),
        (Batching(8, stateful=True), False),
        (Batching(8, decoupled=True), False),
    ],
)
def test_rows_are_added_where_the_model_batches(batching: Batching, more: bool) -> None:
    assert batching.takes_more is more


class TestWhatWasLearned:
    @pytest.fixture
    def learned(self, tmp_path: Path) -> Path:
        profile = profile_of(
            {
                ("detector", "test_mean"): (MeanDetector(), [3.0, 1.0, 2.0]),
                ("detector", "test_views"): (ViewGap(), [1.0, 5.0, 4.0]),
                ("purifier", "test_taught"): (Taught(), None),
            },
            joint=True,
            arrays={"purifier/test_taught": {"centre": np.arange(4.0)}},
            networks={"auxiliary": b"a network"},
        )
        save_profile(profile, tmp_path / "p")
        return tmp_path / "p"

    def test_it_comes_back(self, learned: Path) -> None:
        profile = load_profile(learned)
        fit = profile.stages["detector/test_mean"]
        assert fit.joint is not None
        assert fit.joint.tolist() == [3.0, 1.0, 2.0]  # by row
        assert fit.calibration is not None
        assert fit.calibration.scores.tolist() == [1.0, 2.0, 3.0]
        taught = profile.fitted("purifier", "test_taught", Taught())
        assert taught.calibration is None
        assert taught.arrays["centre"].tolist() == [0.0, 1.0, 2.0, 3.0]
        assert profile.network("auxiliary") == b"a network"
        with pytest.raises(ProfileError, match="no network 'denoiser'"):
            profile.network("denoiser")

    def test_files_of_the_former_profile_go_and_no_others(self, learned: Path) -> None:
        (learned / "mine.onnx").write_bytes(b"not a profile's")
        save_profile(profile_of({("detector", "test_mean"): (MeanDetector(), [1.0])}), learned)
        assert {file.name for file in learned.iterdir()} == {"profile.json", "calibration.npz", "mine.onnx"}
        assert load_profile(learned).stages["detector/test_mean"].joint is None

    @pytest.mark.parametrize("name", ["auxiliary.onnx", "learned.npz"])
    def test_another_file_in_its_place_is_refused(self, learned: Path, name: str) -> None:
        (learned / name).write_bytes(b"another")
        with pytest.raises(ProfileError, match=f"{name} is not the file"):
            load_profile(learned)

    def test_scores_of_different_rows_are_refused(self, learned: Path) -> None:
        packed = io.BytesIO()
        np.savez_compressed(packed, **{"detector/test_mean": [1.0, 2.0], "detector/test_views": [1.0]})  # type: ignore[arg-type]
        (learned / "calibration.npz").write_bytes(packed.getvalue())
        files = json.loads((learned / "profile.json").read_text())["files"]
        _edit(learned, files=files | {"calibration.npz": hashlib.sha256(packed.getvalue()).hexdigest()})
        with pytest.raises(ProfileError, match="the detectors' rows are not the same"):
            load_profile(learned)

    def test_options_that_are_paths_are_kept_as_text(self) -> None:
        @dataclass(frozen=True)
        class File:
            file: Path = Path("a.onnx")

        assert profiles.stage_options(File()) == {"file": "a.onnx"}


def test_labels_are_rows_of_0_and_1() -> None:
    np.testing.assert_array_equal(as_probabilities(np.array([2, 0]), "labels", 3), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(as_probabilities(np.array([[1]]), "labels", 2), [[0, 1]])
    assert as_probabilities(np.zeros(0), "labels", 2).shape == (0, 2)
    np.testing.assert_allclose(as_probabilities(np.zeros((1, 2)), "logits", 2), [[0.5, 0.5]])
    for wrong in (-1.0, 3.0, np.nan):
        with pytest.raises(ValueError, match="no label"):
            as_probabilities(np.array([wrong]), "labels", 3)


# --- answers on their way back


@pytest.mark.parametrize("meaning", ["logits", "probabilities"])
def test_a_label_one_step_ahead_survives_normalising_twice(meaning: Any) -> None:
    y = np.random.default_rng(0).dirichlet(np.ones(5), 500)
    y[:, 3] = 1.1 * y.max(axis=1)
    y[:, 1] = np.nextafter(y[:, 3], -np.inf)
    odds = np.exp(y - y.max(axis=1, keepdims=True)) if meaning == "logits" else y
    once = odds / odds.sum(axis=1, keepdims=True)
    twice = once / once.sum(axis=1, keepdims=True)
    assert (twice.argmax(axis=1) != 3).any()  # the control: plain arithmetic loses it
    told = to_probabilities(y, meaning)
    assert (told.argmax(axis=1) == 3).all()
    assert ((told / told.sum(axis=1, keepdims=True)).argmax(axis=1) == 3).all()
    np.testing.assert_allclose(told, once, rtol=1e-14)
    level = to_probabilities(np.array([[1.0, 2.0, 2.0]]), meaning)
    assert level[0, 1] == level[0, 2]  # equals stay equal


def test_a_label_survives_rounding_to_bf16() -> None:
    probs = np.array([[0.4995, 0.5005], [0.25, 0.75]])
    made = from_probabilities(probs, "probabilities", np.zeros((2, 2), np.float32), "BF16")
    assert made.argmax(axis=1).tolist() == [1, 1]
    assert made[0, 0] < made[0, 1]
    assert (made.view(np.uint32) & 0xFFFF == 0).all()  # values that BF16 has
    plain = from_probabilities(probs, "probabilities", np.zeros((2, 2), np.float32), "FP32")
    assert (plain.view(np.uint32) & 0xFFFF != 0).any()  # the control


def test_answers_in_whole_numbers_stay_whole() -> None:
    made = from_probabilities(np.array([[0.0, 1.0]]), "probabilities", np.zeros((1, 2), np.int64))
    assert made.dtype == np.int64
    assert made.tolist() == [[0, 1]]


def test_the_classification_has_the_datatype_that_the_model_tells_of() -> None:
    made = profile_of({})
    assert made.output_datatype == "FP32"
    half = replace(made.metadata, outputs=tuple(replace(one, datatype="FP16") for one in made.metadata.outputs))
    assert replace(made, metadata=half).output_datatype == "FP16"
    assert replace(made, output_name="unheard of").output_datatype == "FP32"
