from collections.abc import Callable
from typing import Any

import cv2
import grpc
import numpy as np
import pytest

from guard.proxy import ask
from guard.proxy.ask import AskError, ServedModel
from guard.proxy.status import Code
from guard.settings import ClientTls, ConfigError, Embedded
from guard.types import Batching, TensorSpec
from guard.wire import messages
from guard.wire import open_inference_pb2 as pb
from tests.fit_world import clean_images, logits_of, oip_server, quadrants_onnx
from tests.proxy.certs import Authority


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return quadrants_onnx(tmp_path_factory.mktemp("model") / "quadrants.onnx")


def rows(count, seed=0):
    return clean_images(count, seed)[:, None]


class Scripted:
    """A line that answers as it is told and remembers what it was asked."""

    def __init__(self, answer: Callable[[str, bytes], bytes]) -> None:
        self.answer, self.asked, self.closed = answer, [], False

    def call(self, path: str, body: bytes, timeout_s: float) -> bytes:
        self.asked.append((path.rpartition("/")[2], body, timeout_s))
        return self.answer(path, body)

    def close(self) -> None:
        self.closed = True


def scripted(infer: Callable[[bytes], bytes], shape=(-1, 2), datatype="FP32", **options: Any):
    """A model of one input over a scripted line."""
    known = pb.ModelMetadataResponse(name="m", versions=["1"])
    known.inputs.add(name="x", datatype=datatype, shape=shape)

    def answer(path: str, body: bytes) -> bytes:
        return known.SerializeToString() if path.endswith("ModelMetadata") else infer(body)

    line = Scripted(answer)
    return line, ServedModel(line, "m", **options)


def echo(body: bytes) -> bytes:
    """Answer with the input."""
    x = messages.parse_request(body, max_rows=10**6, max_elements=10**9).tensors["x"]
    response = pb.ModelInferResponse()
    response.outputs.add(name="y", datatype="FP32", shape=x.shape)
    response.raw_output_contents.append(x.astype("<f4").tobytes())
    return response.SerializeToString()


def sizes(line: Scripted) -> list[int]:
    """Rows of each inference."""
    infers = [body for method, body, _ in line.asked if method == "ModelInfer"]
    return [messages.parse_request(body, max_rows=10**6, max_elements=10**9).rows for body in infers]


def test_a_file_is_asked(file):
    with ServedModel.embedded(Embedded(file=file), "q", batch=7) as served:
        known = served.metadata()
        assert (known.name, known.inputs) == ("q", (TensorSpec("x", "FP32", (-1, 1, 8, 8)),))
        told = []
        answer = served.answer({"x": rows(20)}, told.append)
    assert told == [7, 7, 6]
    np.testing.assert_allclose(answer["logits"], logits_of(rows(20)), rtol=1e-5)


async def test_a_file_is_asked_from_within_a_running_loop(file):
    with ServedModel.embedded(Embedded(file=file), "q") as served:
        assert served.answer({"x": rows(2)})["logits"].shape == (2, 4)


def test_a_server_is_asked(file):
    with oip_server(file, "q") as address, ServedModel.remote(address, "q", batch=8) as served:
        assert served.metadata().inputs == (TensorSpec("x", "FP32", (-1, 1, 8, 8)),)
        answer = served.answer({"x": rows(20)})
    np.testing.assert_allclose(answer["logits"], logits_of(rows(20)), rtol=1e-5)


def test_a_server_behind_mutual_tls_is_asked(file, tmp_path):
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    own = authority.leaf("server", dns=("models.test",))
    cert, key = authority.leaf("guard").write(tmp_path, "guard")
    credentials = grpc.ssl_server_credentials([(own.key, own.cert)], authority.pem, require_client_auth=True)
    with oip_server(file, "q", credentials) as address:
        good = ClientTls(ca_file=tmp_path / "ca.crt", cert_file=cert, key_file=key, server_name="models.test")
        with ServedModel.remote(address, "q", settings=good) as served:
            assert served.metadata().name == "q"
        bare = ClientTls(ca_file=tmp_path / "ca.crt", server_name="models.test")
        served = ServedModel.remote(address, "q", settings=bare, sleep=lambda _: None)
        with served, pytest.raises(AskError, match="UNAVAILABLE"):
            served.metadata()
    with pytest.raises(ConfigError, match="PEM"):
        ServedModel.remote(address, "q", settings=ClientTls(ca_file=key))


def test_another_name_is_not_served(file):
    wanted = pytest.raises(AskError, match="ModelMetadata of 'other' failed: NOT_FOUND")
    with oip_server(file, "q") as address, ServedModel.remote(address, "other") as served, wanted:
        served.metadata()


def test_nobody_listens():
    waits = []
    with ServedModel.remote("127.0.0.1:1", "q", sleep=waits.append) as served, pytest.raises(AskError, match="UNAVAI"):
        served.metadata()
    assert waits == [0.2, 0.4, 0.8, 1.6]


def test_a_server_that_comes_back_is_asked_again():
    failures = [Code.UNAVAILABLE, Code.UNAVAILABLE]

    def infer(body: bytes) -> bytes:
        if failures:
            raise ask._Failed(failures.pop(), "away")
        return echo(body)

    waits: list[float] = []
    _, served = scripted(infer, sleep=waits.append)
    x = np.ones((3, 2), dtype=np.float32)
    np.testing.assert_array_equal(served.answer({"x": x})["y"], x)
    assert waits == [0.2, 0.4]


def test_other_failures_are_final():
    def infer(_: bytes) -> bytes:
        raise ask._Failed(Code.INVALID_ARGUMENT, "batch-size must be <= 8")

    line, served = scripted(infer, sleep=lambda _: pytest.fail("waited"))
    with pytest.raises(AskError, match="ModelInfer of 'm' failed: INVALID_ARGUMENT: batch-size must be <= 8"):
        served.answer({"x": np.ones((3, 2), dtype=np.float32)})
    assert sizes(line) == [3]


def test_a_fixed_batch_is_filled_up():
    line, served = scripted(echo, shape=(4, 2))
    x = np.arange(18, dtype=np.float32).reshape(9, 2)
    np.testing.assert_array_equal(served.answer({"x": x})["y"], x)
    assert sizes(line) == [4, 4, 4]


def test_calls_stay_below_what_servers_take():
    line, served = scripted(echo, shape=(-1, 2**18))
    x = np.zeros((7, 2**18), dtype=np.float32)  # 1 MiB a row
    assert served.answer({"x": x})["y"].shape == x.shape
    assert sizes(line) == [3, 3, 1]


def test_a_row_too_large_for_that_still_goes():
    line, served = scripted(echo, shape=(-1, 2**20))
    served.answer({"x": np.zeros((2, 2**20), dtype=np.float32)})
    assert sizes(line) == [1, 1]


def test_byte_strings_count_by_their_length():
    def count(body: bytes) -> bytes:
        total = messages.parse_request(body, max_rows=10**6, max_elements=10**9).rows
        response = pb.ModelInferResponse()
        response.outputs.add(name="y", datatype="FP32", shape=[total])
        response.raw_output_contents.append(np.zeros(total, "<f4").tobytes())
        return response.SerializeToString()

    line, served = scripted(count, shape=(-1, 1), datatype="BYTES")
    x = np.array([[b"a" * 2**20]] * 5, dtype=object)
    assert served.answer({"x": x})["y"].shape == (5,)
    assert sizes(line) == [3, 2]


def test_no_rows_no_question():
    line, served = scripted(echo)
    assert served.answer({"x": np.zeros((0, 2), dtype=np.float32)}) == {}
    assert sizes(line) == []


def test_answers_of_another_length_are_refused():
    _, served = scripted(lambda _: echo(messages.build_request("m", {"x": np.zeros((2, 2), dtype=np.float32)})))
    with pytest.raises(AskError, match=r"output 'y' has shape \[2, 2\] for 3 rows"):
        served.answer({"x": np.zeros((3, 2), dtype=np.float32)})


def test_answers_that_are_none_are_refused():
    _, served = scripted(lambda _: b"\xff\xff")
    with pytest.raises(AskError, match="cannot be read"):
        served.answer({"x": np.zeros((3, 2), dtype=np.float32)})
    with pytest.raises(AskError, match="metadata of 'm' cannot be read"):
        ServedModel(Scripted(lambda *_: b"\xff\xff"), "m").metadata()


def test_inputs_that_do_not_fit_are_refused():
    _, served = scripted(echo, datatype="INT8")
    with pytest.raises(AskError, match="do not fit the model"):
        served.answer({"x": np.full((1, 2), 300)})


def test_metadata_is_asked_once_and_the_line_closed():
    line, served = scripted(echo, timeout_s=3.0)
    with served:
        assert served.metadata() is served.metadata()
    assert [(method, timeout) for method, _, timeout in line.asked] == [("ModelMetadata", 3.0)]
    assert line.closed


def test_images_are_decoded_a_few_at_a_time_and_encoded_again():
    x = (np.random.default_rng(0).random((40, 6, 5, 3)) * 255).astype(np.uint8)
    files = np.empty((40, 1), dtype=object)
    files[:, 0] = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in x]
    decoded, formats = ask.decode(files, (6, 5, 3))
    np.testing.assert_array_equal(decoded, x)
    assert formats == ("PNG",) * 40
    again = ask.encode(255 - decoded, formats, files.shape)
    assert again.shape == (40, 1)
    np.testing.assert_array_equal(ask.decode(again, (6, 5, 3))[0], 255 - x)


def test_images_that_are_none():
    png = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    files = np.array([png] * 17 + [b"no image"], dtype=object)
    with pytest.raises(AskError, match="of the images from number 16 on, image 1"):
        ask.decode(files, (4, 4, 1))
    assert ask.decode(files[:0], (4, 4, 1))[0].shape == (0, 4, 4, 1)


# --- how the model takes rows


def configured(config: pb.ModelConfig | None, code: int = Code.UNIMPLEMENTED, **options: Any):
    """A model whose server has this configuration, or ends the question for it with this code."""
    line, served = scripted(echo, **options)
    plain = line.answer

    def answer(path: str, body: bytes) -> bytes:
        if not path.endswith("ModelConfig"):
            return plain(path, body)
        if config is None:
            raise ask._Failed(code, "no")
        assert pb.ModelConfigRequest.FromString(body).name == "m"
        return pb.ModelConfigResponse(config=config).SerializeToString()

    line.answer = answer
    return line, served


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (pb.ModelConfig(max_batch_size=8), Batching(8)),
        (pb.ModelConfig(), Batching(0)),
        (pb.ModelConfig(max_batch_size=1, sequence_batching={}), Batching(1, stateful=True)),
        (pb.ModelConfig(model_transaction_policy={"decoupled": True}), Batching(0, decoupled=True)),
    ],
)
def test_the_configuration_says_how_the_model_takes_rows(config, expected):
    line, served = configured(config)
    assert served.batching() == served.batching() == expected
    assert [method for method, _, _ in line.asked] == ["ModelConfig"]


@pytest.mark.parametrize(("shape", "expected"), [((-1, 2), Batching()), ((4, 2), Batching(0)), ((), Batching(0))])
def test_without_a_configuration_the_shapes_say_it(shape, expected):
    assert configured(None, shape=shape)[1].batching() == expected


def test_a_server_that_does_not_tell_is_an_error():
    with pytest.raises(AskError, match="ModelConfig of 'm' failed: PERMISSION_DENIED"):
        configured(None, Code.PERMISSION_DENIED)[1].batching()
    line, served = scripted(echo)
    line.answer = lambda path, body: b"\xff"
    with pytest.raises(AskError, match="the configuration of 'm' cannot be read"):
        served.batching()


def test_a_file_takes_as_many_rows_as_the_settings_say(file, tmp_path):
    with ServedModel.embedded(Embedded(file=file, max_batch_rows=5), "q") as served:
        assert served.batching() == Batching(5)
        assert len(served.answer({"x": rows(12)})["logits"]) == 12
    fixed = quadrants_onnx(tmp_path / "fixed.onnx", batch=4)
    with ServedModel.embedded(Embedded(file=fixed), "q") as served:
        assert served.batching() == Batching(0)


def test_no_call_has_more_rows_than_the_model_takes():
    line, served = configured(pb.ModelConfig(max_batch_size=3))
    served.batching()
    served.answer({"x": np.zeros((7, 2), np.float32)})
    assert sizes(line) == [3, 3, 1]
    line, served = configured(pb.ModelConfig(max_batch_size=3))
    served.answer({"x": np.zeros((7, 2), np.float32)})
    assert sizes(line) == [7]  # the control: it was not asked how many it takes
