import numpy as np
import pytest
from scipy import ndimage

from septum.config import Decoding
from septum.core.decode import decode
from septum.core.targets import TARGETS
from septum.core.tiling import ArraySink, ArraySource
from septum.data.simulate import cells
from septum.data.sinks import quantize
from septum.prediction.streaming.decode_blocks import BlockDecoding, as_probabilities, finish_step


class Memory(ArraySink):
    @property
    def shape(self):
        return self.array.shape

    def read(self, region):
        return self.array[(slice(None), *region)]


def filled(array):
    store = Memory(array.shape, array.dtype.type)
    store.array[:] = array
    return store


def in_blocks(target, decoding, stored, size, folder):
    shape = (1, *stored.shape[1:])
    empty = [Memory(shape, np.uint32) for _ in range(3)]
    blocks = BlockDecoding(
        target, decoding, size, filled(stored), *empty, folder, ArraySource(np.zeros((1, *stored.shape[1:]), np.uint8))
    )
    objects = 0
    for step, action in blocks.steps:
        for block in range(blocks.count):
            if not blocks.is_done(step, block):
                action(block)
        objects = finish_step(blocks, step) or objects
    return objects, empty[0].array[0]


def unsure(target, labels, seed):
    """What a network that is unsure by chance would say."""
    encoded = TARGETS[target].encode(labels)
    certain = np.moveaxis(np.eye(TARGETS[target].n_classes(3), dtype=np.float32)[encoded], -1, 0)
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(certain.shape), (0, 2, 2)) ** 4 + 1e-6
    mixed = 0.55 * certain + 0.45 * noise / noise.sum(0)
    return (mixed / mixed.sum(0)).astype(np.float32)


def spiral(shape):
    """One object that winds through the whole image, ten pixels wide, and others between its turns."""
    labels = np.zeros(shape, int)
    angle = np.linspace(0, 2 * np.pi * 6, 40_000)
    radius = angle / angle[-1] * min(shape) / 2.1
    y, x = shape[0] / 2 + radius * np.sin(angle), shape[1] / 2 + radius * np.cos(angle)
    labels[y.astype(int), x.astype(int)] = 1
    return ndimage.grey_dilation(labels, size=(10, 10))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
@pytest.mark.parametrize("target", ["border", "rim"])
@pytest.mark.parametrize(("size", "seed"), [(16, 0), (48, 1), (500, 2)])
def test_instances_in_blocks_equal_those_of_the_whole_image(target, size, seed, dtype, tmp_path):
    _, labels = cells((130, 171), 60, seed, diameter=14)
    decoding = Decoding(seed=0.55, foreground=0.4, reach=9, smallest_object=30, largest_hole=6)
    stored = quantize(unsure(target, labels, seed), dtype)
    expected = decode(target, as_probabilities(stored), decoding)
    count, result = in_blocks(target, decoding, stored, size, tmp_path)
    assert count == expected.max() > 10
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("target", ["border", "rim"])
def test_an_object_that_winds_through_all_blocks_stays_one(target, tmp_path):
    labels = spiral((300, 320))
    stored = quantize(unsure(target, labels, 0), np.uint8)
    decoding = Decoding(reach=5)
    count, result = in_blocks(target, decoding, stored, 16, tmp_path)
    np.testing.assert_array_equal(result, decode(target, as_probabilities(stored), decoding))
    largest = result == np.bincount(result.ravel())[1:].argmax() + 1
    touched = {(y // 16, x // 16) for y, x in np.argwhere(largest)}
    assert len(touched) > 200
    assert count < 30


def test_classes_in_blocks(tmp_path):
    stored = np.random.default_rng(0).integers(0, 255, (4, 40, 50)).astype(np.uint8)
    _, result = in_blocks("classes", Decoding(), stored, 16, tmp_path)
    np.testing.assert_array_equal(result, stored.argmax(0))


def test_a_block_without_background_and_an_image_without_objects(tmp_path):
    everything = np.stack([np.zeros((40, 40)), np.full((40, 40), 255)]).astype(np.uint8)
    count, result = in_blocks("border", Decoding(), everything, 16, tmp_path / "a")
    assert count == 1
    assert (result == 1).all()
    count, result = in_blocks("border", Decoding(), everything[::-1], 16, tmp_path / "b")
    assert count == 0
    assert not result.any()


def crowd(side, across):
    """`across` x `across` rectangles, and one object that winds through all rows between them, as uint8."""
    rng, step = np.random.default_rng(0), side // across
    mask = np.zeros((side, side), bool)
    for y, x in np.ndindex(across, across):
        height, width = rng.integers(6, step - 12, 2)
        mask[y * step + 7 : y * step + 7 + height, x * step + 7 : x * step + 7 + width] = True
    for row in range(across):
        mask[row * step : row * step + 3] = True
        end = slice(side - 3, side) if row % 2 else slice(0, 3)
        mask[row * step : (row + (row + 1 < across)) * step, end] = True
    foreground = rng.integers(0, 100, mask.shape, np.uint8) + np.uint8(150) * mask
    return np.stack([255 - foreground, foreground])


@pytest.mark.parametrize("across", [25, pytest.param(100, marks=pytest.mark.slow)])
def test_thousands_of_objects_and_one_that_winds_through_all_blocks(tmp_path, across):
    side, size = 4096 * across // 100, 1024 * across // 100
    stored = crowd(side, across)
    count, streamed = in_blocks("border", Decoding(), stored, size, tmp_path)
    assert count == across**2 + 1
    np.testing.assert_array_equal(streamed, decode("border", as_probabilities(stored), Decoding()))
    blocks = [streamed[y : y + size, x : x + size] for y in range(0, side, size) for x in range(0, side, size)]
    assert all((block == 1).any() for block in blocks)
