import numpy as np

from guard.outputs.label_only import LabelOnly


def test_protected_rows_are_one_hot_and_others_untouched():
    probs = np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], dtype=np.float32)
    out = LabelOnly().protect(probs, np.array([True, False, True]))
    np.testing.assert_array_equal(out, np.array([[0, 1, 0], [0.2, 0.5, 0.3], [1, 0, 0]], dtype=np.float32))


def test_nothing_suspicious_changes_nothing():
    probs = np.full((3, 4), 0.25)
    np.testing.assert_array_equal(LabelOnly().protect(probs, np.zeros(3, dtype=np.bool_)), probs)
