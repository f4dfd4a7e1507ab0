import numpy as np
import pytest
import torch

from septum.config import TrainConfig, UNetConfig, WeightMapConfig
from septum.core.normalize import measure_normalization
from septum.core.targets import rim
from septum.core.unet import input_size, margin
from septum.data.dataset import from_arrays
from septum.data.simulate import cells
from septum.training.holdout import hold_out, nothing_held_out
from septum.training.patches import draw_batch, prepare

CPU = torch.device("cpu")
STILL = {f"augment.{name}": 0.0 for name in ("rotation", "elastic_sd", "contrast", "brightness", "gamma")}


def still(**changes) -> TrainConfig:
    config = TrainConfig(unet=UNetConfig(base_channels=2, depth=2), patch=20, batch=3)
    return config.with_changes({**STILL, "augment.mirror": False, **changes})


def dataset(images=2, size=(70, 60)):
    pairs = [cells(size, 9, seed, diameter=12) for seed in range(images)]
    return from_arrays([image for image, _ in pairs], [labels for _, labels in pairs], kind="instances")


def test_without_augmentation_a_patch_is_a_mirrored_crop_of_image_classes_and_weights():
    data, config = dataset(), still()
    images = prepare(data, config, nothing_held_out(), CPU)
    size, lost = input_size(config.patch, 2), margin(2)
    pad = size
    for step in range(5):
        batch = draw_batch(images, config, step, range(3))
        assert batch.images.shape == (3, 1, size, size)
        for n in range(3):
            found = 0
            for image in images:
                padded = np.pad(image.image[0], pad, mode="reflect")
                windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
                patch = batch.images[n, 0].numpy()
                hits = np.argwhere(np.abs(windows[:, :, 0, 0] - patch[0, 0]) < 1e-5)
                for y, x in hits:
                    if np.abs(windows[y, x] - patch).max() < 1e-5:
                        found += 1
                        inner = slice(y + lost, y + size - lost), slice(x + lost, x + size - lost)
                        classes = np.pad(image.classes, pad, mode="reflect")[inner]
                        weights = np.pad(image.weights, pad, mode="reflect")[inner]
                        np.testing.assert_array_equal(batch.classes[n], classes)
                        np.testing.assert_allclose(batch.weights[n], weights, atol=1e-4)
            assert found == 1


def test_a_batch_is_a_function_of_seed_and_step():
    data, config = dataset(), still().with_changes({"augment": {}})
    images = prepare(data, config, nothing_held_out(), CPU)
    first = draw_batch(images, config, 7, range(3))
    draw_batch(images, config, 3, range(3))
    again = draw_batch(images, config, 7, range(3))
    other = draw_batch(images, config, 8, range(3))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.images, other.images)


def test_class_balance_is_counted_over_the_training_set_without_held_out_pixels():
    data = dataset(images=5)
    config = still().with_changes({"weight_map": WeightMapConfig(w0=0.0).model_dump()})
    held_out = hold_out(data)
    images = prepare(data, config, held_out, CPU)
    assert len(images) == 4
    classes = np.stack([image.classes for image in images])
    foreground, background = np.count_nonzero(classes == 1), np.count_nonzero(classes == 0)
    rarer = min(foreground, background)
    for image in images:
        expected = np.where(image.classes == 1, rarer / foreground, rarer / background)
        np.testing.assert_allclose(image.weights, expected, rtol=1e-6)


def test_pixels_whose_class_depends_on_pixels_without_annotation_have_no_weight():
    """Of the cores: a cell cut by the guard of what is held out, or by the edge of the annotated part."""
    image, labels = cells((60, 60), 12, 0, diameter=16)
    data = from_arrays([image], [labels], kind="instances")
    config, held_out = still(instances="rim", **{"unet.n_classes": 3}), hold_out(data)
    (prepared,) = prepare(data, config, held_out, CPU)
    ignore = np.zeros(labels.shape, bool)
    ignore[held_out.guards[0]] = True
    ambiguous = rim.ambiguous(np.where(ignore, 0, labels), ignore)
    assert ambiguous.any()
    np.testing.assert_array_equal(prepared.weights == 0, ignore | ambiguous)


def test_patches_are_centred_on_annotated_pixels_only():
    image, labels = cells((60, 60), 8, 0, diameter=12)
    rim = (labels > 0) & (np.roll(labels, 1, axis=0) == 0)
    y, x = next(position for position in np.argwhere(rim) if position.min() > 5 and position.max() < 54)
    window = slice(y - 3, y + 3), slice(x, x + 4)
    ignore = np.ones((60, 60), bool)
    ignore[window] = False
    data = from_arrays([image], [labels], [ignore], kind="instances")
    (prepared,) = prepare(data, still(), nothing_held_out(), CPU)
    used = np.zeros((60, 60), bool)
    used.flat[prepared.positions] = True
    np.testing.assert_array_equal(used, ~ignore)


def test_images_are_normalised_by_their_own_statistics():
    data, config = dataset(), still()
    for prepared, sample in zip(prepare(data, config, nothing_held_out(), CPU), data.samples, strict=True):
        np.testing.assert_array_equal(prepared.image, measure_normalization(sample.image, "standardize")(sample.image))
    assert float(prepared.image.mean()) == pytest.approx(0, abs=1e-6)
