import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septum.core.decode import decode
from septum.core.targets import classes
from septum.errors import ImageError


@given(
    arrays.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 255)),
    st.sampled_from([np.uint8, np.int16, np.int64, ">u2"]),
)
@settings(max_examples=50, deadline=None)
def test_ids_come_back_from_any_integer_type(labels, dtype):
    encoded = classes.encode(labels.astype(np.uint8).astype(dtype))
    probabilities = np.moveaxis(np.eye(classes.n_classes(int(labels.max())))[encoded], -1, 0)
    np.testing.assert_array_equal(decode("classes", probabilities), labels)
    assert (encoded.dtype, decode("classes", probabilities).dtype) == (np.uint8, np.int32)


def test_lowest_of_equally_probable_classes_wins():
    probabilities = np.array([0.2, 0.4, 0.4])[:, None, None]
    assert decode("classes", probabilities)[0, 0] == 1


def test_there_are_at_least_two_classes():
    assert [classes.n_classes(largest) for largest in (0, 1, 2, 255)] == [2, 2, 3, 256]


def test_id_that_does_not_fit_is_refused_with_the_way_out():
    with pytest.raises(ImageError, match=r"0\.\.255, got 256;.*kind='classes'"):
        classes.encode(np.array([[0, 256]]))


@pytest.mark.parametrize("labels", [np.zeros((2, 2), bool), np.zeros((2, 2)), np.zeros(3, int), np.array([[-1]])])
def test_what_is_no_label_image_is_refused(labels):
    with pytest.raises(ImageError):
        classes.encode(labels)
