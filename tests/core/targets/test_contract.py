"""What every target promises: its file is tested for the rest."""

import inspect

import numpy as np
import pytest
import torch
from scipy import ndimage

from septum.config import Decoding, TrainConfig
from septum.core.decode import connected_components, decode
from septum.core.targets import INSTANCE_TARGETS, TARGETS, InstanceTarget, Target, border, classes, rim
from septum.errors import ImageError

SHAPE = (60, 70)


def discs(seed, radius=12, spacing=None):
    """Numbered discs about random centres, touching; or with a spacing about a jittered grid, apart."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform((0, 0), SHAPE, (9, 2))
    if spacing:
        grid = np.stack(np.meshgrid(*(np.arange(9, size, spacing) for size in SHAPE), indexing="ij"), -1).reshape(-1, 2)
        centres = grid + rng.uniform(-2, 2, grid.shape)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1])
    return np.where(distance.min(-1) < radius, distance.argmin(-1) + 1, 0)


def one_hot(encoded, n_classes):
    return np.moveaxis(np.eye(n_classes, dtype=np.float32)[encoded], -1, 0)


def functions(protocol):
    return {name: member for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"}


def test_every_representation_of_instances_can_be_chosen():
    assert {*TARGETS.values()} == {border, rim, classes}
    assert {*TrainConfig.model_fields["instances"].annotation.__args__} == {*INSTANCE_TARGETS}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_has_the_functions_of_its_protocol_and_calls_their_parameters_the_same(name):
    wanted = functions(Target) | (functions(InstanceTarget) if name in INSTANCE_TARGETS else {})
    for function, promised in wanted.items():
        parameters = list(inspect.signature(promised).parameters)[1:]  # without self
        assert list(inspect.signature(getattr(TARGETS[name], function)).parameters) == parameters, function


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, ">u2"])
def test_encoded_labels_are_classes_of_the_network_whatever_the_integer_type(name, dtype):
    labels = discs(0)
    encoded = TARGETS[name].encode(labels.astype(dtype))
    assert (encoded.shape, encoded.dtype) == (labels.shape, np.uint8)
    assert encoded.max() == TARGETS[name].n_classes(int(labels.max())) - 1
    np.testing.assert_array_equal(encoded, TARGETS[name].encode(labels))
    assert not encoded[labels == 0].any()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("wrong", [np.zeros((2, 3, 4), int), np.zeros((3, 4)), np.full((3, 4), -1)])
def test_what_is_no_label_image_is_refused(name, wrong):
    with pytest.raises(ImageError, match="label"):
        TARGETS[name].encode(wrong)


@pytest.mark.parametrize("name", TARGETS)
def test_where_everything_is_annotated_nothing_is_ambiguous(name):
    labels = discs(1)
    unknown = np.zeros(SHAPE, bool)
    ambiguous = TARGETS[name].ambiguous(labels, unknown)
    assert (ambiguous.shape, ambiguous.dtype) == (SHAPE, bool)
    assert not ambiguous.any()


@pytest.mark.parametrize("name", TARGETS)
def test_the_loss_of_the_truth_is_the_smallest_and_unannotated_pixels_have_none(name):
    target, labels = TARGETS[name], discs(2)
    k = target.n_classes(int(labels.max()))
    encoded = torch.from_numpy(target.encode(labels).astype(np.int64))[None]
    logits = 20 * torch.nn.functional.one_hot(encoded, k).movedim(-1, 1).float()
    weights = torch.ones(encoded.shape)
    right, wrong = target.loss(logits, encoded, weights), target.loss(-logits, encoded, weights)
    assert 0 <= right < 1e-3 < 1 < wrong
    assert target.loss(-logits, encoded, torch.zeros(encoded.shape)) == 0


@pytest.mark.parametrize("name", INSTANCE_TARGETS)
@pytest.mark.parametrize("seed", range(4))
def test_separate_instances_come_back_with_the_reach_that_they_need(name, seed):
    labels, target = discs(seed, radius=6.5, spacing=20), INSTANCE_TARGETS[name]
    decoding = Decoding(reach=target.needed_reach(labels))
    decoded = decode(name, one_hot(target.encode(labels), target.n_classes(0)), decoding)
    np.testing.assert_array_equal(decoded > 0, labels > 0)
    pairs = np.unique(np.stack([labels.ravel(), decoded.ravel()]), axis=1)
    assert pairs.shape[1] == labels.max() + 1 == decoded.max() + 1


@pytest.mark.parametrize("name", INSTANCE_TARGETS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decoding", [Decoding(), Decoding(seed=0.7, foreground=0.3, reach=6)])
def test_extending_keeps_the_seeds_and_looks_no_further_than_it_says(name, seed, decoding):
    target = INSTANCE_TARGETS[name]
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((target.n_classes(0), *SHAPE)), (0, 2, 2)).astype(np.float32)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    chances = noise / noise.sum(0) * 0.4 + 0.6 * one_hot(target.encode(discs(seed)), target.n_classes(0))
    seeds = target.seeds(chances, decoding)
    assert (seeds.shape, seeds.dtype) == (SHAPE, bool)
    components = connected_components(seeds)
    labels = target.extend(components.copy(), chances, decoding)
    assert (labels.shape, labels.dtype) == (SHAPE, np.int32)
    np.testing.assert_array_equal(labels[seeds], components[seeds])
    far = target.reach(decoding)
    part = target.extend(components[:, : 30 + far].copy(), chances[:, :, : 30 + far], decoding)
    np.testing.assert_array_equal(part[:, :30], labels[:, :30])
