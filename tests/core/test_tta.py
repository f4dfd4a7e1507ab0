import numpy as np
import pytest

from septum.config import TtaConfig
from septum.core.tiling import ArraySource
from septum.core.tta import Rotated, transformed, versions

SEVEN = TtaConfig(kind="rotations", versions=7)
EIGHT = TtaConfig(kind="dihedral", versions=8)


def everything(shape):
    return tuple(slice(0, size) for size in shape)


def there_and_back(version, image):
    whole = everything(image.shape[1:])
    needed = version.needs(whole)
    return version.back(transformed(version, image)[(slice(None), *needed)], whole)


@pytest.mark.parametrize("shape", [(12, 12), (7, 20), (1, 5)])
def test_the_eight_versions_are_the_symmetries_of_the_square_and_come_back_exactly(shape):
    image = np.random.default_rng(0).random((2, *shape))
    seen = set()
    for version in versions(EIGHT, shape):
        turned = transformed(version, image)
        seen.add((turned.shape, turned.tobytes()))
        np.testing.assert_array_equal(there_and_back(version, image), image)
    assert len(seen) == (8 if min(shape) > 1 else 4)


@pytest.mark.parametrize("shape", [(60, 60), (41, 90)])
def test_seven_rotations_come_back_to_a_smooth_image(shape):
    y, x = np.indices(shape)
    image = np.sin(y / 9)[None] + np.cos(x / 7)[None]
    angles = list(versions(SEVEN, shape))
    assert len(angles) == 7
    np.testing.assert_array_equal(there_and_back(angles[0], image), image)
    for version in angles[1:]:
        turned = transformed(version, image)
        assert turned.shape[1] * turned.shape[2] > shape[0] * shape[1]
        assert np.abs(there_and_back(version, image) - image)[:, 2:-2, 2:-2].max() < 0.02


@pytest.mark.parametrize("config", [SEVEN, EIGHT])
def test_regions_there_and_back_are_crops_of_the_whole(config):
    shape = (37, 52)
    rng = np.random.default_rng(1)
    image = rng.random((2, *shape))
    for version in versions(config, shape):
        turned = transformed(version, image)
        rows, columns = (np.sort(rng.choice(size + 1, 2, replace=False)) for size in version.shape)
        region = slice(*map(int, rows)), slice(*map(int, columns))
        part = version.view(ArraySource(image)).read(region)
        np.testing.assert_allclose(part, turned[(slice(None), *region)], atol=1e-12)

        whole = there_and_back(version, image)
        wanted = slice(5, 20), slice(30, 52)
        needed = turned[(slice(None), *version.needs(wanted))]
        np.testing.assert_allclose(version.back(needed, wanted), whole[(slice(None), *wanted)], atol=1e-12)


def test_a_quarter_turn_by_rotation_is_rot90():
    image = np.random.default_rng(0).random((1, 8, 13))
    four = list(versions(TtaConfig(versions=4), (8, 13)))
    np.testing.assert_allclose(transformed(four[1], image), np.rot90(image, -1, axes=(1, 2)), atol=1e-12)
    np.testing.assert_allclose(transformed(four[2], image), image[:, ::-1, ::-1], atol=1e-12)


def test_outside_of_the_image_is_mirrored():
    image = np.arange(25.0).reshape(1, 5, 5)
    turned = transformed(Rotated((5, 5), np.pi / 4), image)  # 7 x 7: its corners lie outside
    assert turned.shape == (1, 7, 7)
    # the corner lies at (2, 2 - 3 * sqrt(2)) of the original, mirrored (2, 3 * sqrt(2) - 2)
    assert turned[0, 0, 0] == pytest.approx(5 * 2 + 3 * 2**0.5 - 2)
