import numpy as np
import pytest
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from unlearn_jax.metrics import confusion

R = np.random.default_rng(0)


def test_equals_the_confusion_matrix():
    logits, labels = R.normal(size=(3, 200, 4)).astype(np.float32), R.integers(0, 4, 200)
    for m, got in enumerate(np.asarray(
            confusion.interclass_confusion(logits, labels, class_a=1, class_b=3))):
        matrix = confusion_matrix(labels, logits[m].argmax(-1))
        assert got == matrix[1, 3] + matrix[3, 1] > 0


def test_bins_by_hand():
    labels = np.array([20.0, 27.9, 28.0, 40.0, 22.0])
    outputs = np.array([[30.0, 28.0, 27.9, 21.0, 21.0], [20.0, 20.0, 30.0, 40.0, 36.0]])
    # A = [20, 28), B = [28, 36): 20 -> 30, 27.9 -> 28 and 28 -> 27.9 are confused; 40 is in neither
    got = confusion.binned_confusion(outputs, labels, bin_a=(20, 28), bin_b=(28, 36))
    np.testing.assert_array_equal(got, [3, 0])
    np.testing.assert_array_equal(
        got, confusion.binned_confusion(outputs, labels, bin_a=(28, 36), bin_b=(20, 28)))


def test_nearer_to_the_other_bin_by_hand():
    labels = np.array([20.0, 26.0, 50.0, 40.0, 60.0])
    # A = [20, 28), B = [48, 60.5): from 38 on an output is nearer to B; 40 is in neither bin
    outputs = np.array([[37.0, 39.0, 37.0, 21.0, 90.0], [38.0, -90.0, 39.0, 55.0, 21.0]])
    got = confusion.nearer_confusion(outputs, labels, bin_a=(20, 28), bin_b=(48, 60.5))
    np.testing.assert_array_equal(got, [2, 1])
    np.testing.assert_array_equal(
        got, confusion.nearer_confusion(outputs, labels, bin_a=(48, 60.5), bin_b=(20, 28)))


def test_a_failed_member_is_nan():
    logits = np.zeros((2, 3, 2), np.float32)
    logits[1, 2, 0] = np.nan
    got = confusion.interclass_confusion(logits, np.array([0, 1, 1]), class_a=0, class_b=1)
    np.testing.assert_array_equal(got, [2, np.nan])
    outputs = np.where(np.eye(2, dtype=bool), 25.0, np.inf)
    assert np.isnan(confusion.binned_confusion(outputs, np.ones(2), bin_a=(0, 1),
                                               bin_b=(1, 2))).all()


def test_end_points_the_original_fails_and_the_retrained_passes():
    # Nearest neighbours remember every sample; a quarter of A and of B is forgotten after a swap.
    centres = np.array([[0, 0], [4, 0], [0, 4]])
    labels, test_labels = np.repeat([0, 1, 2], 400), np.repeat([0, 1, 2], 300)
    points, test = (R.normal(size=(len(y), 2)) + centres[y] for y in (labels, test_labels))
    forget = np.concatenate([np.arange(100), np.arange(400, 500)])
    trained_on = labels.copy()
    trained_on[forget] = labels[forget[::-1]]
    kept = np.delete(np.arange(1200), forget)
    original = KNeighborsClassifier(1).fit(points, trained_on)
    retrained = KNeighborsClassifier(1).fit(points[kept], labels[kept])
    for x, y, size in ((points[forget], labels[forget], 200), (test, test_labels, 600)):
        logits = np.stack([model.predict_proba(x) for model in (original, retrained)])
        counts = np.asarray(confusion.interclass_confusion(logits, y, class_a=0, class_b=1)) / size
        assert counts[0] > 0.2 and counts[1] < 0.05


@pytest.mark.parametrize("call, words", [
    (lambda: confusion.interclass_confusion(np.zeros((2, 5, 3)), np.zeros(5, int), class_a=1,
                                            class_b=1), "two of 0 to 2, not 1 and 1"),
    (lambda: confusion.interclass_confusion(np.zeros((2, 5, 3)), np.zeros(5, int), class_a=0,
                                            class_b=3), "two of 0 to 2"),
    (lambda: confusion.interclass_confusion(np.zeros((2, 5)), np.zeros(5, int), class_a=0,
                                            class_b=1), r"\[M, N, C\]"),
    (lambda: confusion.binned_confusion(np.zeros((5, 1)), np.zeros(5), bin_a=(0, 1),
                                        bin_b=(1, 2)), "labels must have shape"),
    (lambda: confusion.binned_confusion(np.zeros((1, 5)), np.zeros(5), bin_a=(0, 2),
                                        bin_b=(1, 3)), "do not overlap"),
    (lambda: confusion.binned_confusion(np.zeros((1, 5)), np.zeros(5), bin_a=(2, 2),
                                        bin_b=(3, 4)), "low < high"),
])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
