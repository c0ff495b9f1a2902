import numpy as np

from guard import keyed

SECRET = b"s" * 32


def draws(x, secret=SECRET):
    return np.array([generator.random(4) for generator in keyed.generators(x, secret)])


def rows(n=3, shape=(5, 4, 1)):
    return np.random.default_rng(0).random((n, *shape), dtype=np.float32)


def test_a_row_decides_not_its_batch():
    x = rows()
    np.testing.assert_array_equal(draws(x), np.concatenate([draws(x[i : i + 1]) for i in range(len(x))]))
    np.testing.assert_array_equal(draws(x[::-1]), draws(x)[::-1])
    np.testing.assert_array_equal(draws(np.asfortranarray(x)), draws(x))


def test_rows_and_secrets_differ():
    x = rows()
    assert len({tuple(row) for row in draws(x)}) == len(x)
    assert not np.isin(draws(x, b"t" * 32), draws(x)).any()


def test_a_change_within_a_level_changes_nothing():
    x = np.full((1, 4), 8 / 15, np.float32)
    np.testing.assert_array_equal(draws(x + np.float32(0.03)), draws(x))
    assert not np.array_equal(draws(x + np.float32(0.04)), draws(x))


def test_the_draw_is_fixed():
    """Replicas of one secret agree, whatever the machine."""
    (generator,) = keyed.generators(np.zeros((1, 2), np.float32), b"k")
    np.testing.assert_allclose(generator.random(2), [0.7791810516238696, 0.3217332738926252])


def test_draws_are_even_keyed_and_below_one():
    drawn = np.array([keyed.draws(f"{i}".encode(), SECRET, b"test", 3) for i in range(2000)])
    assert drawn.shape == (2000, 3)
    assert (np.abs(drawn.mean(axis=0) - 0.5) < 0.03).all()
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.1
    assert keyed.draws(b"1", SECRET, b"test", 3) == tuple(drawn[1])
    assert keyed.draws(b"1", SECRET, b"other") != keyed.draws(b"1", SECRET, b"test")
    assert keyed.draws(b"1", b"t" * 32, b"test") != keyed.draws(b"1", SECRET, b"test")


def test_no_draw_is_one(monkeypatch):
    class Largest:
        def __init__(self, *_, digest_size, **__):
            self.size = digest_size

        def digest(self):
            return b"\xff" * self.size

    monkeypatch.setattr(keyed, "blake2b", Largest)
    assert keyed.draws(b"", SECRET, b"test")[0] < 1.0
