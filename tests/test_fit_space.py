"""What is learned of a model's input, and what is asked for instead of guessed."""

import cv2
import numpy as np
import pytest

from guard.fit_clean import Clean, FitError
from guard.fit_inputs import Choices
from guard.fit_space import prepare
from guard.proxy.ask import AskError
from guard.types import ModelMetadata, TensorSpec


def metadata(*shape, datatype="FP32", more=()):
    return ModelMetadata("m", ("1",), "", (TensorSpec("x", datatype, shape), *more), ())


def uniform(*shape, low=0.0, high=1.0, dtype=np.float32, seed=0):
    """Values that fill a range to its ends."""
    x = np.random.default_rng(seed).uniform(low, high, shape)
    x.flat[0], x.flat[-1] = low, high
    return x.astype(dtype)


def space_of(x, *, shape=None, datatype="FP32", **choices):
    spec = metadata(*(shape or (-1,) * x.ndim), datatype=datatype)
    return prepare(Clean(arrays={"x": x}), spec, Choices(**choices)).space


class TestLayout:
    @pytest.mark.parametrize(
        ("shape", "layout"),
        [
            ((9, 1, 28, 28), "nchw"),
            ((9, 3, 32, 32), "nchw"),
            ((9, 28, 28, 1), "nhwc"),
            ((9, 32, 48, 3), "nhwc"),
            ((9, 28, 28), "nhw"),
            ((9, 12), "vector"),
            ((9,), "vector"),
        ],
    )
    def test_learned_from_the_shape(self, shape, layout):
        assert space_of(uniform(*shape)).layout == layout

    @pytest.mark.parametrize("shape", [(9, 3, 8, 3), (9, 6, 8, 5), (9, 20, 10), (9, 4, 4), (9, 2, 8, 8, 3)])
    def test_asked_for_where_it_could_be_several(self, shape):
        with pytest.raises(FitError, match="give --layout"):
            space_of(uniform(*shape))
        assert space_of(uniform(*shape), layout="vector").layout == "vector"

    def test_told(self):
        assert space_of(uniform(9, 3, 8, 3), layout="nhwc").layout == "nhwc"
        assert space_of(uniform(9, 20, 10), layout="nhw").layout == "nhw"

    @pytest.mark.parametrize("layout", ["nhw", "flat", "encoded"])
    def test_told_wrongly(self, layout):
        with pytest.raises(FitError, match=f"--layout {layout} does not suit"):
            space_of(uniform(9, 3, 8, 8), layout=layout)

    def test_flat_images_need_their_shape(self):
        flat = space_of(uniform(9, 12), image_shape=(2, 3, 2))
        assert (flat.layout, flat.image_shape) == ("flat", (2, 3, 2))
        for choices in ({"layout": "flat"}, {"image_shape": (2, 3, 3)}):
            with pytest.raises(FitError, match="--image-shape H,W,C must multiply to that"):
                space_of(uniform(9, 12), **choices)

    def test_the_size_is_kept_where_the_model_fixes_it(self):
        assert space_of(uniform(9, 1, 28, 24), shape=(-1, 1, 28, 24)).image_shape == (28, 24, 1)
        assert space_of(uniform(9, 28, 24, 3), shape=(-1, 28, 24, 3)).image_shape == (28, 24, 3)
        assert space_of(uniform(9, 28, 28), shape=(-1, 28, 28)).image_shape == (28, 28, 1)
        assert space_of(uniform(9, 1, 28, 24), shape=(-1, 1, -1, -1)).image_shape is None

    def test_a_shape_that_is_not_the_inputs(self):
        with pytest.raises(FitError, match="but the inputs are"):
            space_of(uniform(9, 1, 8, 8), image_shape=(8, 9, 1))


class TestBounds:
    @pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
    def test_a_range_that_images_fill_is_certain(self, low, high):
        space = space_of(uniform(9, 1, 8, 8, low=low, high=high))
        assert (space.low, space.high, space.certain) == ((low,), (high,), True)
        inner = uniform(9, 1, 8, 8, low=low + 0.019 * (high - low), high=high - 0.019 * (high - low))
        assert space_of(inner).high == (high,)

    def test_a_range_that_images_do_not_fill_is_what_was_seen_by_channel(self):
        x = np.stack([uniform(9, 8, 8, low=c - 2.0, high=c + 2.5) for c in range(3)], axis=1)
        space = space_of(x)
        np.testing.assert_allclose(space.low, [-2, -1, 0])
        np.testing.assert_allclose(space.high, [2.5, 3.5, 4.5])
        assert not space.certain
        assert not space_of(uniform(9, 1, 8, 8, low=0.0, high=0.9)).certain

    def test_vectors_are_never_certain(self):
        assert space_of(uniform(9, 5)).low == (0.0,)
        assert not space_of(uniform(9, 5)).certain
        space = space_of(np.array([[0.0, 7.0, 10.0], [0.5, 7.0, 20.0]], dtype=np.float32))
        assert (space.low, space.high) == ((0.0, 6.5, 10.0), (0.5, 7.5, 20.0))  # a constant feature gets room

    def test_told(self):
        space = space_of(uniform(9, 3, 8, 8, low=0.2, high=0.3), bounds=((0.0, 0.0, 0.0), (1.0, 1.0, 2.0)))
        assert (space.low, space.high, space.certain) == ((0.0, 0.0, 0.0), (1.0, 1.0, 2.0), True)
        assert space_of(uniform(9, 5), bounds=((0.0,), (1.0,))).certain

    def test_told_wrongly(self):
        with pytest.raises(FitError, match="--bounds: of the clean inputs the input holds values outside 0 to 1"):
            space_of(uniform(9, 1, 8, 8, high=255), bounds=((0.0,), (1.0,)))
        with pytest.raises(FitError, match="--bounds: of the clean inputs the input has 1 channels"):
            space_of(uniform(9, 1, 8, 8), bounds=((0.0, 0.0), (1.0, 1.0)))

    @pytest.mark.parametrize(
        ("datatype", "dtype", "low", "high"), [("UINT8", np.uint8, 0.0, 255.0), ("INT8", np.int8, -128.0, 127.0)]
    )
    def test_bytes_have_bounds_by_nature(self, datatype, dtype, low, high):
        space = space_of(np.full((9, 1, 8, 8), 3, dtype=dtype), datatype=datatype)
        assert (space.low, space.high, space.certain) == ((low,), (high,), True)


class TestInputs:
    def test_the_only_input_or_the_one_told(self):
        two = metadata(-1, 1, 8, 8, more=(TensorSpec("gain", "FP32", (-1, 1)),))
        clean = Clean(arrays={"x": uniform(9, 1, 8, 8), "gain": uniform(9, 1), "labels": uniform(9)})
        with pytest.raises(FitError, match="Give --input; 'm' has x, gain"):
            prepare(clean, two, Choices())
        with pytest.raises(FitError, match="Give --input"):
            prepare(clean, two, Choices(input="y"))
        prepared = prepare(clean, two, Choices(input="x"))
        assert set(prepared.inputs) == {"x", "gain"}
        assert prepared.input.name == "x"

    def test_a_server_that_tells_of_no_inputs(self):
        with pytest.raises(FitError, match="none that the server tells of"):
            prepare(Clean(), ModelMetadata("m", (), "", (), ()), Choices())

    def test_further_inputs_come_from_the_file(self):
        two = metadata(-1, 1, 8, 8, more=(TensorSpec("gain", "FP32", (-1, 1)),))
        with pytest.raises(FitError, match="also takes 'gain': put an array of that name"):
            prepare(Clean(arrays={"x": uniform(9, 1, 8, 8)}), two, Choices(input="x"))
        with pytest.raises(FitError, match="'gain' has 8 rows, 'x' has 9"):
            prepare(Clean(arrays={"x": uniform(9, 1, 8, 8), "gain": uniform(8, 1)}), two, Choices(input="x"))

    def test_which_array(self):
        spec = metadata(-1, 2)
        for arrays in ({"x": uniform(9, 2), "z": 0}, {"anything": uniform(9, 2)}):
            assert len(prepare(Clean(arrays=arrays), spec, Choices()).inputs["x"]) == 9
        with pytest.raises(FitError, match="Call it 'x'; there are a, b"):
            prepare(Clean(arrays={"a": uniform(9, 2), "b": uniform(9, 2)}), spec, Choices())

    @pytest.mark.parametrize("shape", [(9, 28, 28), (9, 3, 28, 28), (9, 1, 28, 27)])
    def test_a_shape_that_the_model_does_not_take(self, shape):
        with pytest.raises(FitError, match=r"input 'x' takes \[-1, 1, 28, 28\]"):
            space_of(uniform(*shape), shape=(-1, 1, 28, 28))

    def test_a_fixed_batch_does_not_limit_the_file(self):
        assert space_of(uniform(9, 1, 28, 28), shape=(1, 1, 28, 28)).layout == "nchw"

    def test_dtypes(self):
        wide = prepare(Clean(arrays={"x": uniform(9, 2, dtype=np.float64)}), metadata(-1, 2), Choices())
        assert wide.inputs["x"].dtype == np.float32
        with pytest.raises(FitError, match="input 'x' takes UINT8: float32 does not go into uint8"):
            space_of(uniform(9, 1, 8, 8), datatype="UINT8")

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_none(self, bad):
        x = uniform(9, 2)
        x[3, 1] = bad
        with pytest.raises(FitError, match="NaN or infinite"):
            space_of(x)


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


class TestPixels:
    pixels = (np.random.default_rng(0).random((6, 8, 10, 1)) * 255).astype(np.uint8)

    @pytest.mark.parametrize(
        ("shape", "layout", "inner"),
        [
            ((-1, 1, 8, 10), "nchw", (1, 8, 10)),
            ((-1, 8, 10, 1), "nhwc", (8, 10, 1)),
            ((-1, 8, 10), "nhw", (8, 10)),
            ((-1, 80), "flat", (80,)),
        ],
    )
    def test_go_into_the_models_layout_and_bounds(self, shape, layout, inner):
        prepared = prepare(Clean(pixels=self.pixels), metadata(*shape), Choices(bounds=((-1.0,), (1.0,))))
        x, space = prepared.inputs["x"], prepared.space
        assert (space.layout, space.certain, space.image_shape) == (layout, True, (8, 10, 1))
        assert x.shape == (6, *inner)
        assert x.dtype == np.float32
        np.testing.assert_allclose(x.reshape(6, 80), self.pixels.reshape(6, 80) / 127.5 - 1, atol=1e-6)
        np.testing.assert_allclose(space.to_unit(x), self.pixels / 255, atol=1e-6)

    def test_in_colour(self):
        pixels = (np.random.default_rng(0).random((6, 8, 10, 3)) * 255).astype(np.uint8)
        prepared = prepare(Clean(pixels=pixels), metadata(-1, 3, -1, -1), Choices(bounds=((0.0,), (1.0,))))
        np.testing.assert_allclose(prepared.inputs["x"], np.moveaxis(pixels, -1, 1) / 255, atol=1e-6)
        assert prepared.space.image_shape is None

    def test_need_bounds_unless_the_model_takes_bytes(self):
        with pytest.raises(FitError, match="say what 0 and 255 become, such as --bounds 0,1"):
            prepare(Clean(pixels=self.pixels), metadata(-1, 1, 8, 10), Choices())
        prepared = prepare(Clean(pixels=self.pixels), metadata(-1, 8, 10, 1, datatype="UINT8"), Choices())
        np.testing.assert_array_equal(prepared.inputs["x"], self.pixels)

    def test_need_a_layout_where_several_fit(self):
        square = np.zeros((2, 3, 3, 3), np.uint8)
        with pytest.raises(FitError, match="give --layout, one of nchw, nhwc"):
            prepare(Clean(pixels=square), metadata(-1, 3, 3, 3, datatype="UINT8"), Choices())
        told = prepare(Clean(pixels=square), metadata(-1, 3, 3, 3, datatype="UINT8"), Choices(layout="nhwc"))
        assert told.space.layout == "nhwc"
        with pytest.raises(FitError, match="they do not go together"):
            prepare(Clean(pixels=square), metadata(-1, 28, 28, 1, datatype="UINT8"), Choices())

    def test_a_layout_told_wrongly(self):
        choices = Choices(layout="nchw")
        with pytest.raises(FitError, match=r"input 'x' takes \[-1, 8, 10, 1\]"):
            prepare(Clean(pixels=self.pixels), metadata(-1, 8, 10, 1, datatype="UINT8"), choices)

    def test_files_are_decoded_to_the_models_size(self):
        rng = np.random.default_rng(0)
        flat = [np.full((*size, 3), level, np.uint8) for size, level in (((8, 10), 10), ((16, 30), 200))]
        files = tuple(png(image) for image in flat)
        prepared = prepare(Clean(files=files), metadata(-1, 3, 8, 10, datatype="UINT8"), Choices())
        assert prepared.inputs["x"].shape == (2, 3, 8, 10)
        assert [set(x.ravel().tolist()) for x in prepared.inputs["x"]] == [{10}, {200}]
        exact = (rng.random((8, 10, 3)) * 255).astype(np.uint8)
        for shape, axes in (((-1, 3, 8, 10), (2, 0, 1)), ((-1, 8, 10, 3), (0, 1, 2))):
            one = prepare(Clean(files=(png(exact),)), metadata(*shape, datatype="UINT8"), Choices())
            np.testing.assert_array_equal(one.inputs["x"][0], exact.transpose(axes))
        grey = prepare(Clean(files=files), metadata(-1, 8, 10, datatype="UINT8"), Choices())
        assert grey.space.layout == "nhw"

    @pytest.mark.parametrize("shape", [(-1, 3, -1, -1), (-1, 300), (-1, 3, 8, 3), (-1, 5, 8, 7)])
    def test_files_need_a_size_where_the_model_has_none(self, shape):
        with pytest.raises(FitError, match="--image-shape H,W,C"):
            prepare(Clean(files=(b"",)), metadata(*shape, datatype="UINT8"), Choices())

    def test_files_of_a_told_size(self):
        files = (png(np.zeros((4, 4, 3), np.uint8)),)
        free = metadata(-1, -1, -1, 3, datatype="UINT8")
        assert prepare(Clean(files=files), free, Choices(image_shape=(6, 5, 3))).inputs["x"].shape == (1, 6, 5, 3)


class TestEncoded:
    files = tuple(png(np.full((4, 5, 3), level, np.uint8)) for level in (1, 2, 3))

    @pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, -1)])
    def test_go_as_they_are(self, shape):
        choices = Choices(image_shape=(4, 4, 3))
        prepared = prepare(Clean(files=self.files), metadata(*shape, datatype="BYTES"), choices)
        assert prepared.inputs["x"].shape == (3, *(1 for _ in shape[1:]))
        assert prepared.inputs["x"].ravel().tolist() == list(self.files)
        space = prepared.space
        assert (space.layout, space.low, space.high, space.certain) == ("encoded", (0.0,), (255.0,), True)
        assert space.image_shape == (4, 4, 3)

    def test_from_an_array_of_byte_strings(self):
        clean = Clean(arrays={"x": np.array(self.files)})
        prepared = prepare(clean, metadata(-1, 1, datatype="BYTES"), Choices(image_shape=(4, 4, 3)))
        assert prepared.inputs["x"].dtype == object
        assert prepared.inputs["x"].ravel().tolist() == list(self.files)

    def test_need_a_size_to_look_at(self):
        with pytest.raises(FitError, match="--image-shape H,W,C at which size to look"):
            prepare(Clean(files=self.files), metadata(-1, datatype="BYTES"), Choices())

    def test_several_a_row_are_not_inspected(self):
        with pytest.raises(FitError, match="not one encoded image a row"):
            prepare(Clean(files=self.files), metadata(-1, 2, datatype="BYTES"), Choices(image_shape=(4, 4, 3)))

    def test_text_is_no_image(self):
        clean = Clean(arrays={"x": np.array([b"hello", b"world"])})
        with pytest.raises(AskError, match="neither JPEG nor PNG"):
            prepare(clean, metadata(-1, datatype="BYTES"), Choices(image_shape=(4, 4, 3)))
