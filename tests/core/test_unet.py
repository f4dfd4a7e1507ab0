import math

import pytest
import torch
from torch import nn

from septum.config import UNetConfig, paper_2015, release_2015
from septum.core.unet import (
    UNet,
    centre_crop,
    freeze,
    input_size,
    is_admissible,
    layers,
    margin,
    multiply_adds,
    n_weights,
    output_size,
)
from septum.errors import ConfigError, ImageError


def convolutions(net):
    return [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]


def test_paper_2015_is_fig_1():
    net = UNet(paper_2015())
    assert len(convolutions(net)) == 23
    assert sum(p.numel() for p in net.parameters()) == 31_030_658
    assert UNet().config == net.config
    assert output_size(572, depth=4) == 388
    assert multiply_adds(paper_2015(), (572, 572)) == pytest.approx(150.43e9, rel=1e-4)


def test_other_counts_of_facts():
    def parameters(config):
        return sum(p.numel() for p in UNet(config).parameters())

    assert parameters(paper_2015(in_channels=3)) == 31_031_810
    assert parameters(release_2015()) == 31_100_354
    assert multiply_adds(release_2015(), (572, 572)) == pytest.approx(157.29e9, rel=1e-4)


@pytest.mark.parametrize(
    "config", [UNetConfig(base_channels=3, depth=3, in_channels=2), UNetConfig(base_channels=2, wide_last_up=True)]
)
def test_layers_tell_what_the_network_does(config):
    shape = (input_size(5, config.depth), input_size(40, config.depth))
    net, seen = UNet(config).eval(), []
    for module in convolutions(net):
        module.register_forward_hook(lambda m, i, o: seen.append((i[0].shape[1], o.shape[1], tuple(o.shape[2:]))))
    net(torch.zeros(1, config.in_channels, *shape))
    assert [(before, after, sizes) for _, before, after, _, sizes in layers(config, shape)] == seen


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_a_size_is_admissible_iff_every_pooling_meets_an_even_one(depth):
    def survives(size):
        for _ in range(depth):
            size -= 4
            if size % 2 or size <= 0:
                return 0
            size //= 2
        size -= 4
        for _ in range(depth):
            size = 2 * size - 4
        return max(0, size)

    for size in range(1, 700):
        assert is_admissible(size, depth) == bool(survives(size)), size
        if is_admissible(size, depth):
            assert output_size(size, depth) == survives(size) == size - 2 * margin(depth)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_input_size_is_the_smallest_that_yields_enough(depth):
    admissible = [size for size in range(1, 900) if is_admissible(size, depth)]
    for wanted in range(1, 300):
        assert input_size(wanted, depth) == min(s for s in admissible if s - 2 * margin(depth) >= wanted)


def test_a_wrong_size_is_refused_with_the_nearest():
    with pytest.raises(ImageError, match="cannot take an input of 512 pixels per side; the nearest: 508 or 524"):
        UNet(UNetConfig(base_channels=1))(torch.zeros(1, 1, 572, 512))
    with pytest.raises(ImageError, match=r"the nearest: 188$"):
        output_size(100, depth=4)


@pytest.mark.parametrize("shape", [(1, 1, 44, 44), (2, 44, 44), (44, 44)])
def test_images_of_another_number_of_channels_or_axes_are_refused(shape):
    net = UNet(UNetConfig(base_channels=2, depth=2, in_channels=2))
    with pytest.raises(ImageError, match=r"takes images of shape \(N, 2, Y, X\), got \(.*44\); give 2 channels, and"):
        net(torch.zeros(shape))


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="UNetConfig has no setting 'dept'; did you mean 'depth'"):
        UNetConfig(dept=3)


def test_the_output_pixel_belongs_to_the_input_pixel_a_margin_away():
    """A change of one input pixel reaches the output exactly within its window, centred by the margin."""
    config = UNetConfig(base_channels=4, depth=2)
    net = UNet(config).double().eval()
    size = input_size(40, 2)
    for position in (margin(2) + 16, margin(2) + 21):
        image = torch.randn(1, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        changed = image.clone()
        changed[..., position, position] += 10
        with torch.no_grad():
            touched = (net(image) - net(changed)).abs().sum(dim=(0, 1)).nonzero()
        centre = position - margin(2)
        assert touched.min() >= centre - margin(2) - 3
        assert touched.max() <= centre + margin(2) + 3
        assert [centre, centre] in touched.tolist()


def test_the_concatenation_holds_the_upsampled_map_first_then_the_centre_of_the_skip():
    config = UNetConfig(base_channels=2, depth=1, relu_after_up=False)
    net, seen = UNet(config).eval(), {}
    net.contracting[0].register_forward_hook(lambda m, i, o: seen.update(skip=o.clone()))
    net.up[0].register_forward_hook(lambda m, i, o: seen.update(up=o.clone()))
    net.expansive[0].register_forward_hook(lambda m, i, o: seen.update(joined=i[0].clone()))
    net(torch.randn(1, 1, 30, 34))
    assert torch.equal(seen["joined"][:, :2], seen["up"])
    assert torch.equal(seen["joined"][:, 2:], seen["skip"][:, :, 4:-4, 4:-4])


def test_centre_crop():
    x = torch.arange(36).reshape(1, 1, 6, 6)
    assert centre_crop(x, (2, 4)).flatten().tolist() == [13, 14, 15, 16, 19, 20, 21, 22]


def test_dropout_of_a_sample_hangs_on_its_seed_and_not_on_its_place():
    net = UNet(UNetConfig(base_channels=4, depth=2, dropout=0.5)).double().train()
    x = torch.randn(3, 1, 44, 44, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    together = net(x, [5, 6, 7])
    for n, seed in enumerate((5, 6, 7)):
        torch.testing.assert_close(net(x[n : n + 1], [seed])[0], together[n])
    assert not torch.allclose(net(x[:1], [6])[0], together[0])


def test_dropout_is_at_the_end_of_the_contracting_path_and_only_in_training():
    config = UNetConfig(base_channels=8, depth=3, dropout=0.5)
    net, shares = UNet(config), {}
    for level in range(3):
        net.contracting[level + 1].register_forward_pre_hook(
            lambda m, i, level=level: shares.update({level: float((i[0] == 0).float().mean())})
        )
    net.up[2].register_forward_pre_hook(lambda m, i: shares.update({3: float((i[0] == 0).float().mean())}))
    x = torch.randn(1, 1, 124, 124, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    net.train()(x)
    training = dict(shares)
    net.eval()(x)
    assert training[0] == shares[0]
    assert training[1] == shares[1]
    assert training[2] > shares[2]  # after d2b, the last level before the bottom
    assert training[3] > shares[3]  # after the bottom
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("init", ["paper", "release"])
def test_weights_have_the_standard_deviation_of_facts(init):
    net = UNet(UNetConfig(base_channels=32, init=init), seed=1)
    for module in convolutions(net):
        assert module.bias.abs().max() == 0
        if isinstance(module, nn.ConvTranspose2d):
            incoming = module.in_channels if init == "paper" else module.out_channels * 4
        else:
            incoming = module.in_channels * math.prod(module.kernel_size)
        count = module.weight.numel()
        assert float(module.weight.detach().std()) == pytest.approx(
            math.sqrt(2 / incoming), rel=5 / math.sqrt(2 * count)
        )
        assert abs(float(module.weight.detach().mean())) < 5 * math.sqrt(2 / incoming / count)


def test_initialisation_keeps_the_variance_of_every_layer():
    """The paper's aim, layer by layer: a rectified unit-variance map in, a unit-variance map out."""
    net, generator = UNet(UNetConfig(base_channels=32), seed=0), torch.Generator().manual_seed(0)
    for module in convolutions(net)[1:-1]:  # the two output neurons are too few for a variance
        x = torch.randn(2, module.in_channels, 24, 24, generator=generator).relu()
        with torch.no_grad():
            assert float(module(x).pow(2).mean()) == pytest.approx(1, rel=0.25)


def test_unit_variance_input_gives_feature_maps_of_about_unit_variance_in_every_layer():
    """Through the whole network max pooling, which picks the largest of four, raises it up to about five, no more."""
    net, variances = UNet(UNetConfig(base_channels=32), seed=0).eval(), []
    for module in convolutions(net):
        module.register_forward_hook(lambda m, i, o: variances.append(float(o.relu().var())))
    with torch.no_grad():
        net(torch.randn(1, 1, 220, 220, generator=torch.Generator().manual_seed(0)))
    assert len(variances) == 23
    assert all(0.3 < variance < 6 for variance in variances[:-1]), variances


def test_the_same_seed_gives_the_same_network():
    first, second, other = (UNet(UNetConfig(base_channels=2), seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.output.weight, other.output.weight)


@pytest.mark.parametrize("tiles", [1, 3])
def test_a_frozen_network_is_the_normalised_one_on_the_tiles_it_was_measured_on(tiles):
    net = UNet(UNetConfig(base_channels=4, depth=3, normalization="image"), seed=3).double()
    for parameter in net.parameters():
        if parameter.ndim == 1:  # biases, and factors and offsets of the normalisation
            torch.nn.init.normal_(parameter, 0.5, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    images = torch.randn(tiles, 1, 100, 108, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1
    frozen = freeze(net, images)
    assert frozen.config.normalization == "none"
    with torch.inference_mode():
        torch.testing.assert_close(frozen(images), net.eval()(images), rtol=1e-9, atol=1e-9)


def test_in_training_every_sample_is_normalised_by_itself():
    net = UNet(UNetConfig(base_channels=4, depth=2, dropout=0.0, normalization="image")).double().train()
    images = torch.randn(3, 1, 52, 52, dtype=torch.float64) * torch.tensor([1.0, 5.0, 9.0])[:, None, None, None]
    together = net(images)
    for index in range(3):
        torch.testing.assert_close(together[index : index + 1], net(images[index : index + 1]))


@pytest.mark.parametrize(
    "config", [paper_2015(), UNetConfig(base_channels=3, depth=2, in_channels=2, wide_last_up=True)]
)
def test_weights_are_counted(config):
    assert n_weights(config) == sum(p.numel() for p in UNet(config).parameters() if p.ndim == 4)
