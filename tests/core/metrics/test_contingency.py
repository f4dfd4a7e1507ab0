from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septum.core.metrics.contingency import contingency


@settings(deadline=None, max_examples=50)  # the first example compiles
@given(
    seed=st.integers(0, 2**32),
    n=st.sampled_from([1, 6, 40, 2000]),
    shape=st.sampled_from([(1, 1), (7, 13), (3, 5, 4), (64, 64)]),
)
def test_equals_a_dictionary_of_pixels(seed, n, shape):
    rng = np.random.default_rng(seed)
    truth, prediction, ignore = rng.integers(0, n, shape), rng.integers(0, n, shape), rng.random(shape) < 0.3
    table = contingency(truth, prediction, ignore)
    pixels = list(zip(truth[~ignore].tolist(), prediction[~ignore].tolist(), strict=True))
    assert table.n_pixels == len(pixels)
    for ids, sizes, k in (
        (table.truth_ids, table.truth_pixels, 0),
        (table.prediction_ids, table.prediction_pixels, 1),
    ):
        count = Counter(pair[k] for pair in pixels if pair[k])
        assert list(zip(ids.tolist(), sizes.tolist(), strict=True)) == list(count.items())  # order of first appearance
    overlap = zip(table.truth_ids[table.i].tolist(), table.prediction_ids[table.j].tolist(), strict=True)
    count = Counter(pair for pair in pixels if all(pair))
    assert list(zip(overlap, table.overlap.tolist(), strict=True)) == list(count.items())
    union = [((truth == a) | (prediction == b))[~ignore].sum() for a, b in count]
    np.testing.assert_array_equal(table.iou, np.divide(list(count.values()), union))


def test_label_numbers_do_not_matter():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 50, (2, 40, 40))
    plain = contingency(truth, prediction)
    for dtype in (np.uint64, np.int64):
        names = np.concatenate([[0], rng.permutation(10**6)[:49] + 2**62]).astype(dtype)  # beyond 31 bits
        odd = contingency(names[truth], names[prediction])
        assert contingency(names[truth + (truth == 0)], prediction).truth_pixels.sum() == truth.size
        np.testing.assert_array_equal(odd.truth_ids, names[plain.truth_ids])
        np.testing.assert_array_equal(odd.prediction_ids, names[plain.prediction_ids])
        for field in ("truth_pixels", "prediction_pixels", "i", "j", "overlap"):
            np.testing.assert_array_equal(getattr(odd, field), getattr(plain, field))


def test_fortran_order_and_views_count_the_same():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 9, (2, 30, 20))
    plain, turned = contingency(truth, prediction), contingency(np.asfortranarray(truth), prediction[::-1][::-1])
    np.testing.assert_array_equal(plain.overlap, turned.overlap)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (4, 4)])
def test_nothing_gives_an_empty_table(shape):
    table = contingency(np.zeros(shape, int), np.zeros(shape, int))
    assert table.n_pixels == np.prod(shape)
    assert len(table.truth_ids) == len(table.prediction_ids) == len(table.overlap) == 0
