import hashlib

import numpy as np

from demo import caching


def test_a_name_changes_with_every_part():
    assert caching.key(a=1, b=[2]) == caching.key(b=[2], a=1)
    assert len({caching.key(a=1), caching.key(a=2), caching.key(b=1)}) == 3


def test_code_has_a_digest_of_its_sources():
    assert caching.code_digest("adversary/victims") == caching.code_digest("adversary/victims")
    assert caching.code_digest("adversary/victims") != caching.code_digest("adversary/victims", "adversary/data")


def test_arrays_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVERSARY_CACHE", str(tmp_path))
    made = []

    def make():
        made.append(1)
        return {"x": np.arange(3)}

    assert caching.arrays("some", make)["x"].tolist() == [0, 1, 2]
    assert caching.arrays("some", make)["x"].tolist() == [0, 1, 2]
    assert len(made) == 1
    caching.place("some.npz").write_bytes(b"spoilt")
    assert caching.arrays("some", make)["x"].tolist() == [0, 1, 2]
    assert len(made) == 2


def test_the_digest_of_an_input_is_that_of_its_bytes():
    x = np.ones((2, 3), np.float32)
    assert caching.digest(x) == hashlib.sha256(x.tobytes()).hexdigest()
    assert caching.digest(x.T) == hashlib.sha256(x.T.copy().tobytes()).hexdigest()
