"""Identities of the warp (nothing, quarter-turns, mirrors, shifts), SciPy as its slow version, and the grey curves."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from septum.config import AugmentConfig
from septum.core.augment import (
    Geometry,
    Grey,
    apply_grey,
    draw_geometry,
    draw_grey,
    region_of_grid,
    sampling_grid,
    warp_image,
    warp_labels,
    warp_weights,
)
from septum.core.randomness import generator

STILL = AugmentConfig(rotation=0, mirror=False, scale=0, elastic_sd=0, contrast=0, brightness=0, gamma=0)
STRONG = AugmentConfig(scale=0.3)


def turn(degrees, signs=(1, 1)):
    """Rotation, then no elastic deformation."""
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return Geometry(rotation * np.array(signs), np.zeros((2, 3, 3)))


def centre(shape):
    return [((shape[-2] - 1) / 2, (shape[-1] - 1) / 2)]


def drawn(config, *, samples, step=0):
    return [draw_geometry(config, generator(0, step, sample, "geometry")) for sample in range(samples)]


def an_image(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def some_labels(*shape, seed=0, dtype=torch.int32):
    """Blocks of 16 px with labels 0..9."""
    blocks = np.random.default_rng(seed).integers(0, 10, (shape[0] // 16 + 1, shape[1] // 16 + 1))
    return torch.from_numpy(np.kron(blocks, np.ones((16, 16), int))[: shape[0], : shape[1]]).to(dtype)


# Identities of the whole map


@pytest.mark.parametrize(("shape", "shift"), [((40, 51), (0, 0)), ((40, 51), (7, -3)), ((512, 512), (-120, -142))])
def test_no_deformation_gives_the_shifted_source_exactly(shape, shift):
    image, labels, weights = an_image(2, 700, 600), some_labels(700, 600), an_image(700, 600).abs()
    top, left = 300 + shift[0], 200 + shift[1]
    middle = [(top + (shape[0] - 1) / 2, left + (shape[1] - 1) / 2)]
    grid = sampling_grid([draw_geometry(STILL, generator(0, 0, 0, "geometry"))], middle, shape)
    window = (..., slice(top, top + shape[0]), slice(left, left + shape[1]))
    assert torch.equal(warp_image([image], grid)[0], image[window])
    assert torch.equal(warp_labels([labels], grid)[0], labels[window])
    assert torch.equal(warp_weights([weights], grid)[0], weights[window])


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_are_rot90(quarters):
    image, labels = an_image(1, 37, 52), some_labels(37, 52)
    shape = (37, 52) if quarters == 2 else (52, 37)
    grid = sampling_grid([turn(-90 * quarters)], centre(image.shape), shape)
    np.testing.assert_array_equal(warp_image([image], grid)[0], np.rot90(image, quarters, axes=(1, 2)))
    np.testing.assert_array_equal(warp_labels([labels], grid)[0], np.rot90(labels, quarters))


@pytest.mark.parametrize(("signs", "axes"), [((-1, 1), [1]), ((1, -1), [2]), ((-1, -1), [1, 2])])
def test_mirrors_are_flips(signs, axes):
    image = an_image(1, 37, 52)
    grid = sampling_grid([turn(0, signs)], centre(image.shape), (37, 52))
    assert torch.equal(warp_image([image], grid)[0], image.flip(axes))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (4, 7), (60, 90)])
def test_a_patch_beyond_its_source_is_mirrored_as_numpy_does(size):
    image, labels = an_image(1, *size), some_labels(*size)
    grid = sampling_grid([turn(0)], [(2.0, -9.5)], (91, 120))
    padded = [np.pad(array, 200, mode="reflect") for array in (image[0].numpy(), labels.numpy())]
    window = (slice(200 - 43, 200 + 48), slice(200 - 69, 200 + 51))
    np.testing.assert_array_equal(warp_image([image], grid)[0, 0], padded[0][window])
    np.testing.assert_array_equal(warp_labels([labels], grid)[0], padded[1][window])


# The slow version


@pytest.mark.parametrize("size", [(300, 200), (41, 64), (9, 1)])
@pytest.mark.parametrize("step", range(3))
def test_warps_are_those_of_scipy(size, step):
    image, labels = an_image(2, *size), some_labels(*size)
    grid = sampling_grid(drawn(STRONG, samples=1, step=step), [(20.3, 71.8)], (150, 130))
    points = grid[0].movedim(-1, 0).numpy().astype(np.float64)
    for channel, warped in zip(image, warp_image([image], grid)[0], strict=True):
        slow = ndimage.map_coordinates(channel.numpy().astype(np.float64), points, order=1, mode="mirror")
        np.testing.assert_allclose(warped, slow, atol=1e-3)  # float32 coordinates: 1e-5 px times the slope
    slow = ndimage.map_coordinates(labels.numpy(), points, order=0, mode="mirror")
    clear = (np.abs(points % 1 - 0.5) > 1e-3).all(0)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(warp_labels([labels], grid)[0].numpy()[clear], slow[clear])


# The elastic field


def test_the_field_passes_through_the_nodes_then_turns_with_the_patch():
    (geometry,) = drawn(STRONG, samples=1)
    grid = sampling_grid([geometry], [(100.0, 50.0)], (9, 13))
    for i, y in enumerate((0, 4, 8)):
        for j, x in enumerate((0, 6, 12)):
            source = np.array([100, 50]) + geometry.matrix @ (np.array([y - 4, x - 6]) + geometry.nodes[:, i, j])
            np.testing.assert_allclose(grid[0, y, x], source, atol=1e-4)


def test_displacements_at_the_nodes_have_the_stated_spread():
    config = STILL.with_changes({"elastic_sd": 10.0})
    grid = sampling_grid(drawn(config, samples=600), np.zeros((600, 2)), (9, 9))
    at_nodes = grid[:, ::4, ::4].numpy() - np.stack(np.meshgrid(*[[-4, 0, 4]] * 2, indexing="ij"), -1)
    np.testing.assert_allclose(at_nodes.std(axis=0), 10, atol=1.2)  # standard error 0.29 px, 18 values
    np.testing.assert_allclose(at_nodes.mean(axis=0), 0, atol=1.7)  # 0.41 px


def test_the_field_has_no_kinks():
    # Second differences of a cubic spline are continuous: 6e-5 px per px here, 2e-3 at the nodes of a Catmull-Rom
    # spline, 0.1 at those of a linear one.
    config = STILL.with_changes({"elastic_sd": 10.0})
    grid = sampling_grid(drawn(config, samples=5), np.zeros((5, 2)), (257, 257)).double()
    for axis in (1, 2):
        assert np.abs(np.diff(grid, 3, axis=axis)).max() < 6e-4


def test_a_linear_displacement_stays_linear():
    linear = np.array([[[3.0, 1.0, -1.0], [5.0, 3.0, 1.0], [7.0, 5.0, 3.0]]] * 2)  # 3 + 2 (i - 1) - 2 (j - 1)
    grid = sampling_grid([Geometry(np.zeros((2, 2)), linear), Geometry(np.eye(2), linear)], np.zeros((2, 2)), (41, 61))
    assert grid[0].abs().max() == 0  # the matrix comes after the field
    y, x = np.mgrid[-20:21, -30:31]
    field = 3 + y / 10 - x / 15
    np.testing.assert_allclose(grid[1], np.stack([y + field, x + field], -1), atol=1e-5)


def test_coordinates_survive_autocast():
    geometries = drawn(AugmentConfig(), samples=2)
    centres = [(3000.0, 3001.5), (17.0, 4.0)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = sampling_grid(geometries, centres, (65, 33))
    assert rounded.dtype == torch.float32
    assert (rounded - sampling_grid(geometries, centres, (65, 33))).abs().max() < 0.3  # bfloat16 of 3000: 16 px


# Draws


def test_draws_keep_to_their_settings():
    config = AugmentConfig(rotation=30, mirror=True, scale=0.5)
    matrices = np.stack([geometry.matrix for geometry in drawn(config, samples=400)])
    zooms = np.linalg.norm(matrices, axis=1)  # (400, 2): lengths of the columns
    np.testing.assert_allclose(zooms[:, 0], zooms[:, 1])
    assert 1 / 1.5 <= zooms.min() < 0.7 < 1.45 < zooms.max() <= 1.5
    assert np.median(zooms) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose((matrices[:, :, 0] * matrices[:, :, 1]).sum(1), 0, atol=1e-12)  # no shear
    signs = np.sign(matrices[:, [0, 1], [0, 1]])  # the cosine is positive
    assert all(70 < (signs == pair).all(1).sum() < 130 for pair in [(1, 1), (1, -1), (-1, 1), (-1, -1)])
    angles = np.rad2deg(np.arctan2(matrices[:, 1, 0] * signs[:, 0], np.abs(matrices[:, 0, 0])))
    assert -30 <= angles.min() < -28
    assert 28 < angles.max() <= 30


def test_rotations_cover_the_whole_circle():
    config = AugmentConfig(mirror=False)
    matrices = np.stack([geometry.matrix for geometry in drawn(config, samples=400)])
    counts, _ = np.histogram(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]), bins=4, range=(-np.pi, np.pi))
    assert counts.min() > 70


def test_a_patch_is_a_function_of_its_key_not_of_the_order():
    forward = [geometry.nodes for geometry in drawn(AugmentConfig(), samples=4)]
    backward = [
        draw_geometry(AugmentConfig(), generator(0, 0, sample, "geometry")).nodes for sample in reversed(range(4))
    ]
    np.testing.assert_array_equal(forward, backward[::-1])
    assert len({nodes.tobytes() for nodes in forward}) == 4


# Batches, windows, labels, weights


def test_a_batch_is_its_patches_one_at_a_time():
    sizes = [(80, 90), (31, 200), (1, 4)]
    images = [an_image(3, *size, seed=i) for i, size in enumerate(sizes)]
    labels = [some_labels(*size, seed=i) for i, size in enumerate(sizes)]
    weights = [image[0].abs() for image in images]
    geometries, centres = drawn(STRONG, samples=3), [(40.0, 3.5), (10.1, 150.0), (0.0, 0.0)]
    grid = sampling_grid(geometries, centres, (61, 45))
    for i in range(3):
        alone = sampling_grid(geometries[i : i + 1], centres[i : i + 1], (61, 45))
        assert torch.equal(grid[i], alone[0])
        for warp, sources in [(warp_image, images), (warp_labels, labels), (warp_weights, weights)]:
            assert torch.equal(warp(sources, grid)[i], warp(sources[i : i + 1], alone)[0])


def test_a_window_of_the_grid_gives_the_window_of_the_patch():
    image, labels, weights = an_image(2, 120, 140), some_labels(120, 140), an_image(120, 140).clamp(min=0)
    grid = sampling_grid(drawn(AugmentConfig(), samples=1), [(60.0, 70.0)], (101, 121))
    window = (slice(None), slice(13, -13), slice(13, -13))
    for warp, source in [(warp_labels, labels), (warp_weights, weights)]:
        assert torch.equal(warp([source], grid[window]), warp([source], grid)[window])
    assert torch.equal(warp_image([image], grid[window]), warp_image([image], grid)[:, :, 13:-13, 13:-13])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_warped_labels_are_labels_of_the_source(dtype):
    numbers = torch.tensor([0, 1, 200, 255] if dtype == torch.uint8 else [0, 1, 50_000, 65_535]).to(dtype)
    if dtype in (torch.int32, torch.int64):
        numbers[2:] = torch.tensor([2**24 + 1, 2**31 - 1])  # not float32 numbers
    labels = numbers.long()[some_labels(200, 200, dtype=torch.int64) % 4].to(dtype)
    grid = sampling_grid(drawn(AugmentConfig(), samples=4), [(100.0, 100.0)] * 4, (150, 150))
    warped = warp_labels([labels] * 4, grid)
    assert warped.dtype == dtype
    assert set(warped.long().unique().tolist()) == set(numbers.long().tolist())


def test_image_labels_and_weights_stay_aligned():
    labels = some_labels(300, 300) + 1
    image = labels.float()
    grid = sampling_grid(drawn(AugmentConfig(), samples=1), [(140.0, 150.0)], (250, 250))
    found = warp_labels([labels], grid)[0].numpy()
    inside = ndimage.maximum_filter(found, 5) == ndimage.minimum_filter(found, 5)
    assert inside.mean() > 0.4
    for warped in (warp_image([image[None]], grid)[0, 0], warp_weights([image], grid)[0]):
        np.testing.assert_allclose(warped.numpy()[inside], found[inside], atol=1e-5)


def test_ignored_pixels_stay_ignored():
    known = some_labels(200, 200) > 4
    weights = torch.where(known, an_image(200, 200).abs() + 0.1, 0)
    grid = sampling_grid(drawn(AugmentConfig(), samples=1), [(100.0, 100.0)], (180, 180))
    warped, nearest = warp_weights([weights], grid), warp_labels([known], grid)
    assert torch.equal(warped > 0, nearest)
    linear = warp_image([weights[None]], grid)[:, 0]
    assert torch.equal(warped[nearest], linear[nearest])
    assert (linear[~nearest] > 0).any()  # what would have seeped in


# Grey values


def test_a_neutral_curve_changes_nothing():
    images = an_image(2, 3, 20, 20)
    greys = [draw_grey(STILL, generator(0, 0, sample, "grey"), channels=3) for sample in range(2)]
    assert torch.equal(apply_grey(images, greys), images)


def test_every_curve_rises_for_every_image():
    config = AugmentConfig(contrast=0.9, brightness=3, gamma=0.9)
    greys = [draw_grey(config, generator(0, 0, sample, "grey")) for sample in range(50)]
    values = torch.tensor([*np.linspace(-50, 50, 2001), 1e3, 1e6, 1e9], dtype=torch.float64).sort().values
    values = torch.cat([-values.flip(0)[:3], values])
    curves = apply_grey(values.expand(50, 1, 1, -1), greys)
    assert torch.isfinite(curves).all()
    assert (curves.diff(dim=-1) > 0).all()


def test_bright_and_dark_slopes_and_their_exchange():
    bend = Grey(np.ones(1), np.zeros(1), np.array([0.2]))
    opposite = Grey(np.ones(1), np.zeros(1), np.array([-0.2]))
    x = torch.tensor([-1e4, -1e3, -1e-3, 1e-3, 1e3, 1e4], dtype=torch.float64)[None, None, None]
    y = apply_grey(x, [bend])
    slopes = (y.diff() / x.diff()).flatten()[[0, 2, 4]]
    np.testing.assert_allclose(slopes, [0.8, 1.0, 1.2], rtol=1e-6)
    assert torch.equal(apply_grey(-x, [bend]), -apply_grey(x, [opposite]))
    assert apply_grey(0 * x, [bend]).abs().max() == 0


def test_grey_values_of_channels_and_images_are_changed_independently():
    config = AugmentConfig()
    images = an_image(2, 3, 8, 8)
    greys = [draw_grey(config, generator(0, 0, sample, "grey"), channels=3) for sample in range(2)]
    changed = apply_grey(images, greys)
    for n, grey in enumerate(greys):
        for c in range(3):
            alone = Grey(grey.contrast[[c]], grey.brightness[[c]], grey.bend[[c]])
            assert torch.equal(changed[n : n + 1, c : c + 1], apply_grey(images[n : n + 1, c : c + 1], [alone]))
    assert len({*greys[0].contrast, *greys[1].contrast}) == 6


def test_grey_draws_keep_to_their_settings():
    config = AugmentConfig(contrast=0.3, brightness=0.4, gamma=0.5)
    grey = draw_grey(config, generator(0, 0, 0, "grey"), channels=1000)
    ratio = (1 + grey.bend) / (1 - grey.bend)
    for values, low, high in [
        (grey.contrast, 0.7, 1.3),
        (grey.brightness, -0.4, 0.4),
        (np.log(ratio), -np.log(1.5), np.log(1.5)),
    ]:
        assert low - 1e-9 <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high + 1e-9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_patches():
    image, labels = an_image(2, 300, 400), some_labels(300, 400)
    geometries, centres = drawn(STRONG, samples=4), [(150.0, 150.0)] * 4
    grids = [sampling_grid(geometries, centres, (201, 301), device) for device in ("cpu", "cuda")]
    torch.testing.assert_close(grids[1].cpu(), grids[0], atol=0.02, rtol=0)  # TF32 of a displacement
    # the warps themselves, on one grid
    on_gpu = warp_image([image.cuda()] * 4, grids[0].cuda()).cpu()
    torch.testing.assert_close(on_gpu, warp_image([image] * 4, grids[0]), atol=1e-3, rtol=0)
    same = warp_labels([labels.cuda()] * 4, grids[0].cuda()).cpu() == warp_labels([labels] * 4, grids[0])
    assert same.float().mean() > 0.9999


@pytest.mark.parametrize("shape", [(120, 121), (7, 90), (1, 1), (64, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_the_part_that_a_grid_reads_gives_the_same_patch_bit_for_bit(shape, seed):
    rng = np.random.default_rng(seed)
    geometry = draw_geometry(AugmentConfig(elastic_sd=3.0), rng)
    centre = rng.uniform(0, shape)
    if not seed:  # nothing but halves, from 51.5 and 49.5 on: ties are rounded to the even coordinate of the whole
        geometry, centre = Geometry(np.eye(2), np.zeros((2, 3, 3))), np.array([61.0, 61.0])
    (grid,) = sampling_grid([geometry], centre[None], (20, 24))
    image = torch.from_numpy(rng.normal(size=(2, *shape)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 9, shape))
    weights = torch.from_numpy(rng.choice([0, 0.3, 7], shape).astype(np.float32))
    region, shifted = region_of_grid(shape, grid)
    assert torch.equal(warp_image([image[(slice(None), *region)]], shifted[None]), warp_image([image], grid[None]))
    assert torch.equal(warp_labels([labels[region]], shifted[None]), warp_labels([labels], grid[None]))
    assert torch.equal(warp_weights([weights[region]], shifted[None]), warp_weights([weights], grid[None]))
