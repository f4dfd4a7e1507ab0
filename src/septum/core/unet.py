"""The network: contracting path, expansive path, normalisation by image, admissible sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from septum.config import UNetConfig
from septum.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


def margin(depth: int) -> int:
    """Pixels lost per side by the valid convolutions: 6 * 2**depth - 4.

    Examples
    --------
    >>> margin(4)
    92
    """
    pixels: int = 6 * 2**depth - 4
    return pixels


def is_admissible(size: int, depth: int) -> bool:
    """Return whether an input of this size is even at every pooling and leaves at least one output pixel."""
    return size > 2 * margin(depth) and (size - 4 * (2**depth - 1)) % 2**depth == 0


def input_size(output: int, depth: int) -> int:
    """Smallest admissible input size (pixels per side) that yields at least `output` pixels.

    Examples
    --------
    >>> [input_size(n, depth=4) for n in (1, 388, 389, 512)]
    [188, 572, 588, 700]
    """
    # Admissible outputs are 4, 4 + 2**depth, 4 + 2 * 2**depth, ... (2, 4, 6, ... for depth 1).
    smallest = 4 if depth > 1 else 2
    outputs: int = smallest + 2**depth * math.ceil(max(0, output - smallest) / 2**depth)
    return outputs + 2 * margin(depth)


def output_size(size: int, depth: int) -> int:
    """Output pixels per side of an admissible input size; ImageError names the nearest sizes otherwise.

    Examples
    --------
    >>> output_size(572, depth=4)
    388
    """
    if not is_admissible(size, depth):
        larger = input_size(max(1, size - 2 * margin(depth)), depth)
        smaller = larger - 2**depth
        nearest = f"{smaller} or {larger}" if is_admissible(smaller, depth) else f"{larger}"
        raise ImageError(
            f"a U-Net of depth {depth} cannot take an input of {size} pixels per side; the nearest: {nearest}"
        )
    return size - 2 * margin(depth)


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. 2015, Fig. 1: valid convolutions and cropped skips.

    Each level of the contracting path has two 3x3 convolutions with ReLU, then 2x2 max pooling; each level of the
    expansive path a 2x2 up-convolution, the cropped skip beside it, and two 3x3 convolutions with ReLU. A 1x1
    convolution gives one logit per class. No convolution is padded, so the output is smaller than the input by
    `margin(depth)` pixels on every side (92 for the paper's depth of 4), and only some sizes are admissible.

    Layers that normalise each channel by its statistics over the image are an option of the settings.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.

    Examples
    --------
    >>> net = UNet(UNetConfig(base_channels=2, depth=2))
    >>> image = torch.zeros(1, 1, input_size(5, depth=2), input_size(8, depth=2))  # at least 5 x 8 pixels of output
    >>> image.shape, net(image).shape
    (torch.Size([1, 1, 48, 48]), torch.Size([1, 2, 8, 8]))
    """

    def __init__(self, config: UNetConfig | None = None, seed: int = 0) -> None:
        """Build the network with random weights.

        Weights are drawn as the paper says: from a Gaussian of standard deviation sqrt(2 / N), with N the number of
        incoming nodes of one neuron (He et al. 2015). Biases are 0.

        Parameters
        ----------
        config : UNetConfig, optional
            Width, depth, channels, classes, and what the paper leaves open. Default: ``paper_2015()``, Fig. 1.
        seed : int
            Same seed, same weights.
        """
        super().__init__()
        self.config = config = config or UNetConfig()
        widths = [config.base_channels * 2**level for level in range(config.depth + 1)]
        ups = widths[:-1]  # what each up-convolution returns
        if config.wide_last_up:
            ups = [widths[1], *ups[1:]]
        self.contracting = nn.ModuleList(
            _double_convolution(before, width, config.normalization)
            for before, width in zip([config.in_channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], ups[level], kernel_size=2, stride=2) for level in range(config.depth)
        )
        self.expansive = nn.ModuleList(
            _double_convolution(ups[level] + widths[level], widths[level], config.normalization)
            for level in range(config.depth)
        )
        self.output = nn.Conv2d(widths[0], config.n_classes, kernel_size=1)
        initialize(self, seed)

    def forward(self, image: Float[Tensor, "N ..."], seeds: Sequence[int] = ()) -> Float[Tensor, "N K y x"]:
        """Return the logits of every class.

        Parameters
        ----------
        image : (N, in_channels, Y, X) tensor
            Normalised images, Y and X of an admissible size: see `input_size`.
        seeds : sequence of N int, optional
            For training: each sample's dropout masks are drawn from its own seed, wherever in a batch it is, and in
            whichever process. Default: from PyTorch's global generator.

        Returns
        -------
        (N, n_classes, Y - 2 * margin, X - 2 * margin) tensor
            Scores before the softmax. The output pixel (y, x) belongs to the input pixel (y + margin, x + margin).

        Raises
        ------
        ImageError
            For another number of axes or channels, or a size that is not admissible; it names the nearest sizes.
        """
        config = self.config
        generators: Sequence[torch.Generator | None] = [None] * len(image)
        if seeds:
            generators = [torch.Generator(image.device).manual_seed(seed) for seed in seeds]
        if image.ndim != 4 or image.shape[1] != config.in_channels:
            raise ImageError(
                f"the network takes images of shape (N, {config.in_channels}, Y, X), got {tuple(image.shape)}; "
                f"give {config.in_channels} channel{'s' * (config.in_channels > 1)}, and an axis for the batch"
            )
        for size in image.shape[2:]:
            output_size(size, config.depth)
        skips: list[Tensor] = []
        x = image
        for level, convolutions in enumerate(self.contracting):
            x = convolutions(x)
            if level >= config.depth - 1 and self.training and config.dropout:
                x = dropout(x, config.dropout, generators)
            if level < config.depth:
                x, skip = _PoolAndCrop.apply(x, cropped(level, config.depth))  # type: ignore[no-untyped-call]
                skips.append(skip)
        for level in reversed(range(config.depth)):
            x = self.up[level](x)
            if config.relu_after_up:
                x = nn.functional.relu(x, inplace=True)
            x = torch.cat([x, skips.pop()], dim=1)
            x = self.expansive[level](x)
        logits: Tensor = self.output(x)
        return logits


class _PoolAndCrop(torch.autograd.Function):
    """2x2 max pooling of a map, and its centre for the skip. Both gradients go into one array.

    Autograd would add a second array with zeros around the centre, in another memory order. That takes three times as
    long: 15 % of a narrow network's step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, crop: int) -> tuple[Tensor, Tensor]:
        pooled, places = nn.functional.max_pool2d_with_indices(x, (2, 2))
        ctx.save_for_backward(x, places)
        ctx.crop = crop
        return pooled, x[:, :, crop : x.shape[2] - crop, crop : x.shape[3] - crop]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        of_pooled, of_centre = gradients
        x, places = ctx.saved_tensors
        gradient = torch.ops.aten.max_pool2d_with_indices_backward(
            of_pooled, x, [2, 2], [2, 2], [0, 0], [1, 1], False, places
        )
        centre_crop(gradient, of_centre.shape[2:]).add_(of_centre)
        return gradient, None


def _double_convolution(before: int, width: int, normalization: str) -> nn.Sequential:
    modules: list[nn.Module] = []
    for channels in (before, width):
        modules.append(nn.Conv2d(channels, width, kernel_size=3))
        if normalization == "image":
            modules.append(ImageNorm(width))
        modules.append(nn.ReLU(inplace=True))
    return nn.Sequential(*modules)


class ImageNorm(nn.Module):
    """Normalise each channel by its mean and standard deviation over an image, then scale and shift it.

    In training the statistics are those of each sample (a patch). Otherwise the samples of a batch are tiles of one
    image, and the statistics are those of all of them together.
    """

    EPSILON = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "N C Y X"]) -> Float[Tensor, "N C Y X"]:
        def normalize(part: Tensor) -> Tensor:
            return nn.functional.batch_norm(part, None, None, self.weight, self.bias, True, eps=self.EPSILON)

        if len(x) == 1 or not self.training:
            return normalize(x)
        return torch.cat([normalize(part) for part in torch.split(x, 1)])


def freeze(net: UNet, tiles: Float[Tensor, "T C Y X"]) -> UNet:
    """Measure the layers' statistics on tiles of one image, and return a network with these statistics built in.

    The result has no normalisation layers: with fixed statistics, each is a factor and an offset per channel, which go
    into the weights of the convolution before it. So tiles of the image meet exactly, as without normalisation.

    Parameters
    ----------
    net : UNet
        With ``normalization="image"``.
    tiles : (T, C, Y, X) tensor
        Tiles of one image, of an admissible size, on the network's device.

    Returns
    -------
    UNet
        In evaluation mode. Over these tiles it gives the same logits as `net`, to rounding.
    """
    frozen = UNet(net.config.with_changes({"normalization": "none"})).to(tiles.device, tiles.dtype).eval()
    frozen.up.load_state_dict(net.up.state_dict())
    frozen.output.load_state_dict(net.output.state_dict())
    parts, skips = list(torch.split(tiles, 1)), []  # one tile after the other goes through a layer
    with torch.no_grad():
        for level, block in enumerate(net.contracting):
            _freeze_block(block, frozen.contracting[level], parts)
            if level < net.config.depth:
                shape = [size - 2 * cropped(level, net.config.depth) for size in parts[0].shape[2:]]
                skips.append([centre_crop(part, shape).clone() for part in parts])
                for number in range(len(parts)):
                    parts[number] = nn.functional.max_pool2d(parts[number], 2)
        for level in reversed(range(net.config.depth)):
            skip = skips.pop()
            for number in range(len(parts)):
                up = net.up[level](parts[number])
                up = nn.functional.relu_(up) if net.config.relu_after_up else up
                parts[number] = torch.cat([up, skip.pop(0)], dim=1)
            _freeze_block(net.expansive[level], frozen.expansive[level], parts)
    return frozen


def _freeze_block(block: Any, frozen: Any, parts: list[Tensor]) -> None:
    """Two layers of `freeze`; replaces the tiles by what comes out of them."""
    for k in range(2):
        convolution, norm, plain = block[3 * k], block[3 * k + 1], frozen[2 * k]
        for number in range(len(parts)):
            parts[number] = convolution(parts[number])
        moments = [torch.var_mean(part, dim=(0, 2, 3), correction=0) for part in parts]
        variances, means = (torch.stack(values).double() for values in zip(*moments, strict=True))
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)  # tiles are of one size
        factor = norm.weight.double() / (variance + ImageNorm.EPSILON).sqrt()
        plain.weight.copy_(convolution.weight.double() * factor[:, None, None, None])
        plain.bias.copy_((convolution.bias.double() - mean) * factor + norm.bias.double())
        centre, slope = (value.to(parts[0].dtype)[:, None, None] for value in (mean, factor))
        for part in parts:
            nn.functional.relu_(part.sub_(centre).mul_(slope).add_(norm.bias[:, None, None]))


def freeze_memory(config: UNetConfig, count: int, side: int) -> int:
    """Return the peak memory of `freeze`, in bytes of float32 values, for square tiles of `side` pixels.

    The peak is in the first level, or in the last, where each tile has twice the channels.
    """
    last = side - 2 * margin(config.depth) + 4
    return 4 * config.base_channels * max((count + 1) * side**2, (2 * count + 2) * last**2)


def cropped(level: int, depth: int) -> int:
    """Pixels that a skip loses per side before it meets the up-sampled map.

    Examples
    --------
    >>> [cropped(level, depth=4) for level in range(4)]
    [88, 40, 16, 4]
    """
    pixels: int = 12 * 2 ** (depth - 1 - level) - 8
    return pixels


def dropout(
    x: Float[Tensor, "N C Y X"], share: float, generators: Sequence[torch.Generator | None]
) -> Float[Tensor, "N C Y X"]:
    """Set a share of the values to 0 and divide the others by 1 - share; one generator per sample."""
    masks = torch.empty_like(x)
    for mask, generator in zip(masks, generators, strict=True):
        mask.bernoulli_(1 - share, generator=generator)
    return x * masks.div_(1 - share)


def centre_crop(x: Shaped[Tensor, "N C Y X"], shape: Sequence[int]) -> Shaped[Tensor, "N C {shape[0]} {shape[1]}"]:
    """Cut the centre of (N, C, Y, X) to (N, C, *shape)."""
    top, left = (x.shape[2] - shape[0]) // 2, (x.shape[3] - shape[1]) // 2
    return x[:, :, top : top + shape[0], left : left + shape[1]]


def initialize(net: UNet, seed: int) -> None:
    """Draw all weights from a Gaussian of standard deviation sqrt(2 / N); biases are 0.

    N is the number of incoming nodes of one neuron. For an up-convolution the paper's rule gives N = its input
    channels (an output pixel sees one tap of each), the release's N = its output channels * 4.
    The 1x1 output is drawn by the same rule.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        if not isinstance(module, nn.ConvTranspose2d):
            incoming = module.in_channels * math.prod(module.kernel_size)
        elif net.config.init == "paper":
            incoming = module.in_channels
        else:
            incoming = module.out_channels * math.prod(module.kernel_size)
        assert module.bias is not None
        with torch.no_grad():
            module.weight.normal_(0.0, math.sqrt(2 / incoming), generator=generator)
            module.bias.zero_()


def layers(config: UNetConfig, shape: Sequence[int]) -> Iterator[tuple[str, int, int, int, tuple[int, ...]]]:
    """Yield (name, input channels, output channels, taps, output shape) of every convolution, in order.

    `shape` is the input (Y, X); taps is the number of multiply-adds per output value and input channel.
    """
    for size in shape:
        output_size(size, config.depth)
    sizes = tuple(shape)
    before, width = config.in_channels, config.base_channels
    for level in range(config.depth + 1):
        width = config.base_channels * 2**level
        for half, channels in (("a", before), ("b", width)):
            sizes = tuple(size - 2 for size in sizes)
            yield f"contracting{level}{half}", channels, width, 9, sizes
        if level < config.depth:
            sizes = tuple(size // 2 for size in sizes)
        before = width
    for level in reversed(range(config.depth)):
        width = config.base_channels * 2**level
        up = 2 * width if config.wide_last_up and level == 0 else width
        sizes = tuple(size * 2 for size in sizes)
        yield f"up{level}", 2 * width, up, 1, sizes
        for half, channels in (("a", up + width), ("b", width)):
            sizes = tuple(size - 2 for size in sizes)
            yield f"expansive{level}{half}", channels, width, 9, sizes
    yield "output", width, config.n_classes, 1, sizes


def multiply_adds(config: UNetConfig, shape: Sequence[int]) -> int:
    """Multiply-adds of one forward pass over an input of shape (Y, X).

    Examples
    --------
    >>> from septum.config import paper_2015
    >>> round(multiply_adds(paper_2015(), (572, 572)) / 1e9, 2)
    150.43
    """
    return sum(before * after * taps * math.prod(sizes) for _, before, after, taps, sizes in layers(config, shape))


def n_weights(config: UNetConfig) -> int:
    """Weights of all convolutions, without biases."""
    shape = [input_size(1, config.depth)] * 2
    return sum(
        before * after * (4 if name.startswith("up") else taps)  # an up-convolution has one tap per output pixel
        for name, before, after, taps, _ in layers(config, shape)
    )


def check_stride(stride: int, depth: int) -> None:
    """Raise ConfigError unless tiles of this stride meet exactly."""
    step = 2**depth
    if stride % step or stride < step:
        nearest = max(step, round(stride / step) * step)
        raise ConfigError(
            f"stride must be a multiple of 2**depth = {step} so that tiles meet without seams, got {stride}; "
            f"the nearest valid value is {nearest}"
        )
