import numpy as np
import pytest

from septum.config import TtaConfig
from septum.core.tta import rotate, versions

SEVEN = TtaConfig(kind="rotations", versions=7)
EIGHT = TtaConfig(kind="dihedral", versions=8)


@pytest.mark.parametrize("shape", [(12, 12), (7, 20), (1, 5)])
def test_the_eight_versions_are_the_symmetries_of_the_square_and_come_back_exactly(shape):
    image = np.random.default_rng(0).random((2, *shape))
    seen = set()
    for version in versions(EIGHT, shape):
        turned = version.there(image)
        seen.add((turned.shape, turned.tobytes()))
        np.testing.assert_array_equal(version.back(turned), image)
    assert len(seen) == (8 if min(shape) > 1 else 4)


@pytest.mark.parametrize("shape", [(60, 60), (41, 90)])
def test_seven_rotations_come_back_to_a_smooth_image(shape):
    y, x = np.indices(shape)
    image = np.sin(y / 9)[None] + np.cos(x / 7)[None]
    angles = list(versions(SEVEN, shape))
    assert len(angles) == 7
    np.testing.assert_array_equal(angles[0].back(angles[0].there(image)), image)
    for version in angles[1:]:
        turned = version.there(image)
        assert turned.shape[1] * turned.shape[2] > shape[0] * shape[1]
        assert np.abs(version.back(turned) - image)[:, 2:-2, 2:-2].max() < 0.02


def test_a_quarter_turn_by_rotation_is_rot90():
    image = np.random.default_rng(0).random((1, 8, 13))
    four = list(versions(TtaConfig(versions=4), (8, 13)))
    np.testing.assert_allclose(four[1].there(image), np.rot90(image, -1, axes=(1, 2)), atol=1e-12)
    np.testing.assert_allclose(four[2].there(image), image[:, ::-1, ::-1], atol=1e-12)


def test_outside_of_the_image_is_mirrored():
    row = np.arange(5.0)[None, None]
    wider = rotate(row, 0.0, (1, 9))
    np.testing.assert_array_equal(wider[0, 0], [2, 1, 0, 1, 2, 3, 4, 3, 2])
