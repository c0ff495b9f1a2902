"""`guard fit` from end to end: against a file, against a real gRPC server, and as a command."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from onnx import TensorProto

from guard import cli, fit
from guard.calibration import wilson_interval
from guard.engine import Engine
from guard.fit_measure import Measured, Rate
from guard.fit_report import show, warnings
from guard.profile import ProfileError, load_profile, save_profile
from guard.proxy.ask import ServedModel
from guard.settings import Embedded
from guard.types import TensorSpec
from tests.fit_world import SHAPES, Pretended, clean_images, logits_of, oip_server, quadrants_onnx


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return quadrants_onnx(tmp_path_factory.mktemp("model") / "quadrants.onnx")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    path = tmp_path_factory.mktemp("clean") / "clean.npz"
    np.savez(path, x=clean_images(300)[:, None], labels=np.zeros(300))
    return path


def fitted(tmp_path, *argv):
    """The profile that the command writes."""
    assert cli.main(["fit", *map(str, argv), "--out", str(tmp_path / "profile")]) == 0
    return load_profile(tmp_path / "profile")


def refused(capsys, *argv):
    """The one line that the command ends with."""
    capsys.readouterr()
    assert cli.main(["fit", *map(str, argv), "--out", "/nowhere"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("guard fit: ")
    return line.removeprefix("guard fit: ")


def test_a_file(tmp_path, file, clean, capsys):
    profile = fitted(tmp_path, "--model", file, "--clean", clean, "--false-positive-rate", "0.05")
    assert profile.metadata.name == "quadrants"
    assert (profile.input_name, profile.datatype) == ("x", "FP32")
    space = profile.space
    assert (space.layout, space.low, space.high, space.certain) == ("nchw", (0.0,), (1.0,), True)
    assert (profile.output_name, profile.meaning, profile.classes) == ("logits", "logits", 4)
    assert set(profile.stages) >= {"detector/feature_squeezing", "monitor/fingerprint"}
    sizes = {key: own.calibration.scores.size for key, own in profile.stages.items()}
    assert all(size == 240 for key, size in sizes.items() if key.startswith("detector/"))
    assert sizes["monitor/fingerprint"] == 480  # and as many frames
    notes = profile.notes
    assert (notes["clean_count"], notes["calibration"], notes["held_out"], notes["seed"]) == (300, 240, 60, 0)
    flagged = round(notes["held_out_false_positive_rate"] * 60)
    assert notes["held_out_interval"] == list(wilson_interval(flagged, 60))
    assert notes["fitted_at"].endswith("+00:00")
    shown = capsys.readouterr().out
    for words in ("300 distinct clean inputs (0 duplicates dropped)", "detectors together", f"{flagged} of 60", "95 %"):
        assert words in shown


def test_a_server_gives_the_same_as_the_file(tmp_path, file, clean):
    rate = ("--false-positive-rate", "0.05")
    here = fitted(tmp_path, "--model", file, "--clean", clean, *rate)
    with oip_server(file, "quadrants") as address:
        there = fitted(tmp_path, "--upstream", address, "--model", "quadrants", "--clean", clean, "--batch", 7, *rate)
    assert there.metadata == here.metadata
    for key, own in here.stages.items():
        np.testing.assert_allclose(there.stages[key].calibration.scores, own.calibration.scores, atol=1e-6)
    same = ("held_out_false_positive_rate", "clean_sha256")
    assert [there.notes[key] for key in same] == [here.notes[key] for key in same]


def test_json_is_the_report(tmp_path, file, clean, capsys):
    argv = ["--model", file, "--model-name", "q", "--clean", clean, "--false-positive-rate", "0.05", "--json"]
    profile = fitted(tmp_path, *argv)
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "q" == profile.metadata.name
    assert report["digest"] == profile.digest
    assert report["input"]["layout"] == "nchw"
    assert report["false_positive_rate"]["rows"] == 60
    assert report["stages"]["monitor/fingerprint"]["options"]["explained"] == 0.4
    assert report["stages"]["detector/feature_squeezing"]["held_out"]["rows"] == 60
    assert report["caller_p_values"]["fingerprint"] == 1.0
    assert report["clean"]["calibration"] == 240
    assert report["warnings"] == []


def test_the_seed_decides_and_nothing_else(file, clean):
    def scores(seed):
        with ServedModel.embedded(Embedded(file=file), "q") as served:
            options = fit.Options(false_positive_rate=0.05, seed=seed)
            profile = fit.fit(served, fit.load(clean), options).profile
        return {key: own.calibration.scores.tolist() for key, own in profile.stages.items()}

    assert scores(1) == scores(1)
    assert scores(1) != scores(2)


def test_the_held_out_rate_is_as_promised(file):
    """Calibrated on one half and measured on the other: either moves the rate of 5 % by half a per cent (1 sigma)."""
    with ServedModel.embedded(Embedded(file=file), "q") as served:
        options = fit.Options(
            stages=(fit.Wanted("detector", "feature_squeezing"),), false_positive_rate=0.05, held_out=0.5
        )
        result = fit.fit(served, fit.Clean(arrays={"x": clean_images(4000)[:, None]}), options)
    assert result.measured.total.rate == pytest.approx(0.05, abs=0.02)


def test_duplicates_are_dropped_before_the_split(file):
    x = np.repeat(clean_images(100), 5, axis=0)[:, None]
    with ServedModel.embedded(Embedded(file=file), "q") as served:
        result = fit.fit(served, fit.Clean(arrays={"x": x}), fit.Options(false_positive_rate=0.05))
    assert result.duplicates == 400
    assert result.profile.notes["clean_count"] == 100
    assert result.measured.caller_p_values["fingerprint"] == 1.0  # the held-out part holds no row of the other


def test_at_most_so_many(tmp_path, file, clean):
    profile = fitted(tmp_path, "--model", file, "--clean", clean, "--max", 50, "--false-positive-rate", 0.1)
    assert (profile.notes["calibration"], profile.notes["held_out"]) == (40, 10)


def test_nothing_held_out(tmp_path, file, clean, capsys):
    profile = fitted(tmp_path, "--model", file, "--clean", clean, "--held-out", 0)
    assert profile.notes["calibration"] == 300
    assert profile.notes["held_out_false_positive_rate"] is None
    assert "the false-positive rate is not measured" in capsys.readouterr().out


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("answer", ["logits", "probabilities"])
def test_layouts_and_meanings(tmp_path, layout, answer):
    file = quadrants_onnx(tmp_path / "m.onnx", layout=layout, answer=answer)
    np.save(tmp_path / "clean.npy", clean_images(200).reshape(200, *SHAPES[layout]))
    flat = ["--image-shape", "8,8,1"] if layout == "flat" else []
    argv = ["--model", file, "--clean", tmp_path / "clean.npy", *flat, "--false-positive-rate", 0.05]
    profile = fitted(tmp_path, *argv)
    assert (profile.space.layout, profile.meaning) == (layout, answer)
    nchw = quadrants_onnx(tmp_path / "nchw.onnx")
    np.save(tmp_path / "nchw.npy", clean_images(200)[:, None])
    plain = fitted(tmp_path, "--model", nchw, "--clean", tmp_path / "nchw.npy", "--false-positive-rate", 0.05)
    for key, own in plain.stages.items():
        np.testing.assert_allclose(profile.stages[key].calibration.scores, own.calibration.scores, atol=1e-5)


def test_labels_only(tmp_path, clean, capsys):
    file = quadrants_onnx(tmp_path / "m.onnx", answer="labels")
    profile = fitted(tmp_path, "--model", file, "--clean", clean)
    assert (profile.meaning, profile.classes) == ("labels", 4)
    assert "detector/feature_squeezing" not in profile.stages
    assert "left out: detector/feature_squeezing: it compares probabilities" in " ".join(
        capsys.readouterr().out.split()
    )


def test_two_outputs(tmp_path, clean):
    file = quadrants_onnx(tmp_path / "m.onnx", answer="both")
    rate = ("--false-positive-rate", "0.05")
    assert fitted(tmp_path, "--model", file, "--clean", clean, *rate).output_name == "logits"
    told = fitted(tmp_path, "--model", file, "--clean", clean, "--output", "labels", *rate)
    assert (told.output_name, told.meaning) == ("labels", "labels")


def test_a_batch_of_one_and_a_second_input(tmp_path):
    one = quadrants_onnx(tmp_path / "one.onnx", batch=1)
    np.save(tmp_path / "clean.npy", clean_images(60)[:, None])
    argv = ["--clean", tmp_path / "clean.npy", "--false-positive-rate", 0.05]
    assert fitted(tmp_path, "--model", one, *argv).metadata.inputs[0].shape == (1, 1, 8, 8)
    two = quadrants_onnx(tmp_path / "two.onnx", second=True)
    np.savez(tmp_path / "two.npz", x=clean_images(60)[:, None], gain=np.ones((60, 1)))
    profile = fitted(tmp_path, "--model", two, "--clean", tmp_path / "two.npz", "--input", "x", *argv[2:])
    assert profile.input_name == "x"


def test_pixels_of_bytes_from_idx_and_a_folder(tmp_path):
    file = quadrants_onnx(tmp_path / "m.onnx", layout="nhwc", dtype=TensorProto.UINT8, high=255.0)
    pixels = np.rint(clean_images(60) * 255).astype(np.uint8)
    head = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in pixels.shape)
    (tmp_path / "idx").write_bytes(head + pixels.tobytes())
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(pixels):
        cv2.imwrite(str(tmp_path / "folder" / f"{i:03}.png"), image)
    rate = ("--false-positive-rate", 0.05)
    both = [fitted(tmp_path, "--model", file, "--clean", tmp_path / name, *rate) for name in ("idx", "folder")]
    assert both[0].space.image_shape == (8, 8, 1)
    assert both[0].notes["clean_sha256"] == both[1].notes["clean_sha256"]
    assert both[0].stages["detector/feature_squeezing"].calibration.scores.std() > 0


def test_encoded_images(tmp_path):
    def answer(arrays):
        grey = [cv2.imdecode(np.frombuffer(f, np.uint8), cv2.IMREAD_GRAYSCALE) for f in arrays["x"].ravel()]
        return {"y": logits_of(np.stack(grey) / 255)}

    served = Pretended((TensorSpec("x", "BYTES", (-1, 1)),), answer)
    files = tuple(cv2.imencode(".png", np.rint(x * 255).astype(np.uint8))[1].tobytes() for x in clean_images(60))
    options = fit.Options(choices=fit.Choices(image_shape=(8, 8, 1)), false_positive_rate=0.05)
    result = fit.fit(served, fit.Clean(files=files), options)
    assert result.profile.space.layout == "encoded"
    assert result.measured.total.rows == 12
    save_profile(result.profile, tmp_path)
    assert load_profile(tmp_path).space == result.profile.space


def test_stages_and_their_options(tmp_path, file, clean):
    chosen = ["--stage", "detector/feature_squeezing={squeezers: [median_2]}", "--stage", "monitor/fingerprint"]
    profile = fitted(tmp_path, "--model", file, "--clean", clean, *chosen)
    assert {key: dict(own.options) for key, own in profile.stages.items()} == {
        "detector/feature_squeezing": {"squeezers": ["median_2"]},
        "monitor/fingerprint": {"explained": 0.4},
    }


def test_stages_from_the_settings_make_an_engine(tmp_path, file, clean, capsys):
    settings = tmp_path / "guard.yaml"
    settings.write_text(
        f"""
models:
  - name: quadrants
    embedded: {{file: {file}}}
    profile: {tmp_path / "profile"}
    mode: enforce
    false_positive_rate: 0.02
    detectors: [{{stage: feature_squeezing, options: {{squeezers: [bit_depth_2, median_3]}}}}]
    monitors: [{{stage: fingerprint, options: {{explained: 0.3}}}}]
    outputs: [{{stage: label_only}}]
"""
    )
    profile = fitted(tmp_path, "--model", file, "--clean", clean, "--config", settings)
    assert profile.notes["false_positive_rate"] == 0.02
    assert list(profile.stages) == ["detector/feature_squeezing", "monitor/fingerprint"]
    (model,) = fit.config.load(settings).models
    assert {stage.name for stage in Engine(model, profile, b"secret").stages} == {
        "feature_squeezing",
        "fingerprint",
        "label_only",
    }
    other = model.model_copy(update={"detectors": (model.detectors[0].model_copy(update={"options": {}}),)})
    with pytest.raises(ProfileError, match="was fitted with"):
        Engine(other, profile, b"secret")
    common = ("--model", file, "--clean", clean, "--config", settings)
    assert "has no model 'other'; it has quadrants" in refused(capsys, *common, "--model-name", "other")
    assert "give one of them" in refused(capsys, *common, "--stage", "monitor/fingerprint")


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("fingerprint", "must be detector/NAME, monitor/NAME, purifier/NAME or output/NAME"),
        ("purifier/median", "such as this needs no fitting"),
        ("monitor/", "must be detector/NAME, monitor/NAME, purifier/NAME or output/NAME"),
        ("monitor/fingerprint=[1]", "the options must be a YAML mapping"),
        ("monitor/fingerprint={a", "the options must be a YAML mapping"),
        ("monitor/nobody", "no monitor is called 'nobody'"),
        ("monitor/fingerprint={explained: 2}", "options.explained"),
    ],
)
def test_stages_that_are_none(capsys, file, clean, stage, words):
    assert words in refused(capsys, "--model", file, "--clean", clean, "--stage", stage)


def test_too_few_clean_inputs(capsys, file, tmp_path):
    np.save(tmp_path / "few.npy", clean_images(60)[:, None])
    line = refused(capsys, "--model", file, "--clean", tmp_path / "few.npy")
    assert "48 distinct clean inputs for calibration are too few for a false-positive rate of 0.01" in line
    assert "give at least 99" in line
    np.save(tmp_path / "one.npy", clean_images(1)[:, None])
    line = refused(capsys, "--model", file, "--clean", tmp_path / "one.npy", "--held-out", 0.9)
    assert "leave none for calibration" in line


def test_what_is_not_there(capsys, tmp_path, file, clean):
    assert "cannot load" in refused(capsys, "--model", tmp_path / "no.onnx", "--clean", clean)
    assert "cannot read" in refused(capsys, "--model", file, "--clean", tmp_path / "no.npz")
    with oip_server(file, "q") as address:
        assert "NOT_FOUND" in refused(capsys, "--upstream", address, "--model", "other", "--clean", clean)
        tls = ("--upstream", address, "--model", "q", "--clean", clean, "--cert-file", file)
        assert "--cert-file and --key-file go together" in refused(capsys, *tls)
        tls = (*tls, "--key-file", file)
        assert "PEM" in refused(capsys, *tls)


@pytest.mark.parametrize(
    "argv",
    [
        ["--held-out", "1"],
        ["--false-positive-rate", "0"],
        ["--batch", "0"],
        ["--image-shape", "8,8"],
        ["--bounds", "0"],
        ["--bounds", "1,0"],
        ["--bounds", "0/0,1"],
        ["--layout", "chwn"],
        ["--meaning", "odds"],
    ],
)
def test_flags_that_are_wrong(capsys, argv):
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", "--model", "m", "--clean", "c", "--out", "o", *argv])
    assert end.value.code == 2
    assert f"argument {argv[0]}" in capsys.readouterr().err


def test_bounds_by_channel(tmp_path, clean, file):
    argv = ["--model", file, "--clean", clean, "--bounds=-1.5,2", "--false-positive-rate", "0.05"]
    assert fitted(tmp_path, *argv).space.low == (-1.5,)
    assert fit._bounds("-1/-2,1/2") == ((-1.0, -2.0), (1.0, 2.0))


def test_what_whoever_fits_should_know(file):
    with ServedModel.embedded(Embedded(file=file), "q") as served:
        x = clean_images(120)[:, None]
        result = fit.fit(served, fit.Clean(arrays={"x": x * 0.9}), fit.Options(false_positive_rate=0.05))
    assert [text for text in warnings(result) if "--bounds tells" in text]
    alike = replace(result, measured=Measured(Rate(20, 24), result.measured.stages, {"fingerprint": 1e-6}))
    texts = " ".join(warnings(alike))
    assert "lies above 0.05" in texts
    assert "too alike" in texts
    bare = replace(result, profile=replace(result.profile, stages={}))
    assert "no detector or monitor suits" in " ".join(warnings(bare))


def test_vectors(tmp_path, capsys):
    file = quadrants_onnx(tmp_path / "m.onnx", layout="flat")
    np.save(tmp_path / "clean.npy", clean_images(120).reshape(120, 64))
    profile = fitted(tmp_path, "--model", file, "--clean", tmp_path / "clean.npy")
    assert profile.space.layout == "vector"
    assert set(profile.stages) == {"monitor/fingerprint", "monitor/similarity_graph", "monitor/update_direction"}
    shown = " ".join(capsys.readouterr().out.split())
    assert "if they are images, --image-shape H,W,C tells" in shown
    assert "left out: detector/feature_squeezing: it works on images" in shown


def test_progress_is_told_on_a_terminal_only(monkeypatch, capsys, tmp_path, file, clean):
    argv = ["--model", file, "--clean", clean, "--false-positive-rate", "0.05"]
    fitted(tmp_path, *argv)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    fitted(tmp_path, *argv)
    assert "calibrating" in capsys.readouterr().err
    assert callable(show)
