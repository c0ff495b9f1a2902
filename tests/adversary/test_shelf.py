import numpy as np
import pytest

from adversary import shelf

ARRAYS = {"x": np.arange(6.0).reshape(2, 3), "n": np.array([1, 2])}


def test_what_is_put_is_got(tmp_path):
    with shelf.open_shelf(tmp_path) as kept:
        assert kept.get("u") is None
        kept.put("u", ARRAYS, {"seconds": 1.5})
        arrays, facts = kept.get("u")
    assert {name: x.tolist() for name, x in arrays.items()} == {name: x.tolist() for name, x in ARRAYS.items()}
    assert facts["seconds"] == 1.5


def test_the_same_arrays_make_the_same_bytes(tmp_path):
    with shelf.open_shelf(tmp_path) as kept:
        kept.put("a", ARRAYS, {})
        kept.put("b", ARRAYS, {})
    assert (tmp_path / "units/a.npz").read_bytes() == (tmp_path / "units/b.npz").read_bytes()


@pytest.mark.parametrize("harm", ["no json", "half json", "no npz", "half npz", "other npz"])
def test_what_is_not_whole_is_missing(tmp_path, harm):
    with shelf.open_shelf(tmp_path) as kept:
        kept.put("u", ARRAYS, {})
        kept.put("other", {"x": np.zeros(3)}, {})
        what, kind = harm.split()
        file = tmp_path / f"units/u.{kind}"
        if what == "no":
            file.unlink()
        elif what == "half":
            file.write_bytes(file.read_bytes()[:40])
        else:
            file.write_bytes((tmp_path / "units/other.npz").read_bytes())
        assert kept.get("u") is None
        kept.put("u", ARRAYS, {})
        assert kept.get("u") is not None


def test_leavings_of_a_killed_run_are_swept(tmp_path):
    (tmp_path / "units").mkdir()
    left = tmp_path / "units" / ".u.npz.abc"
    left.write_bytes(b"half")
    with shelf.open_shelf(tmp_path):
        assert not left.exists()


def test_one_run_at_a_time(tmp_path):
    with shelf.open_shelf(tmp_path), pytest.raises(shelf.Busy, match="another run"), shelf.open_shelf(tmp_path):
        pass
    with shelf.open_shelf(tmp_path):
        pass


def test_digests_tell_types_and_shapes_apart():
    zeros = [np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), np.zeros(8, np.float32)]
    assert len({shelf.digest(x) for x in zeros}) == 4
    assert shelf.digest(np.arange(4)[::2]) == shelf.digest(np.array([0, 2]))
    assert shelf.key(a=1, b=2) == shelf.key(b=2, a=1) != shelf.key(a=2, b=1)
