"""The network on an image that passes through it as bands of rows: the same logits, in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from septum.config import UNetConfig
from septum.core.unet import UNet


def logits_in_bands(net: UNet, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Run the network over an image from top to bottom: what `UNet.forward` gives, band by band.

    Every layer works on the rows that have arrived, and keeps the few that the next ones need. No feature map of the
    whole image is ever there, no row is computed twice, and memory depends on width and height of a band only.

    Parameters
    ----------
    net : UNet
        In evaluation mode, without normalisation layers (`septum.core.unet.freeze` builds them in).
    bands : iterable of (1, C, rows, X) tensors
        The rows of one image of an admissible size, in order, any number at a time. Few rows at a time are slow:
        ``8 * 2**depth`` keep the deepest level busy.

    Yields
    ------
    (1, K, rows, X - 2 * margin) tensors
        Logits in order; together as many rows as the image has less twice the margin.

    Examples
    --------
    >>> net = UNet(UNetConfig(base_channels=2, depth=2)).eval()
    >>> bands = torch.zeros(1, 1, 60, 44).split(16, dim=2)
    >>> [tuple(logits.shape[2:]) for logits in logits_in_bands(net, bands)]
    [(8, 4), (12, 4)]
    """
    assert net.config.normalization == "none"
    assert not net.training
    depth = net.config.depth
    skips = [_Rows(cropped=_cropped(level, depth)) for level in range(depth)]
    flow: Iterator[Tensor] = iter(bands)
    for level in range(depth):
        flow = _pool(_keep(_convolve(net.contracting[level], flow), skips[level]))
    flow = _convolve(net.contracting[depth], flow)
    for level in reversed(range(depth)):
        flow = _convolve(net.expansive[level], _join(net, level, flow, skips[level]))
    return map(net.output, flow)


def band_memory(config: UNetConfig, width: int, rows: int) -> int:
    """Bytes of float32 values that `logits_in_bands` holds at its worst moment, for input bands of `rows` x `width`.

    What waits at the skips, and around the widest convolution its input, the copy that joins it to the rows before,
    and its output.
    """
    values, active = 0, 0
    for level in range(config.depth + 1):
        channels = config.base_channels * 2**level
        columns, height = width // 2**level + 1, max(1, rows // 2**level)
        if level < config.depth:
            values += channels * columns * (_cropped(level, config.depth) + 2 * height)
        active = max(active, columns * (height + 2) * channels * 5)
        values += columns * channels * 8  # the two rows that each of its four convolutions keeps
    return 4 * (values + active)


def _cropped(level: int, depth: int) -> int:
    """Pixels that a skip loses per side before it meets the up-sampled map."""
    pixels: int = 12 * 2 ** (depth - 1 - level) - 8
    return pixels


# In these generators nothing but what is still needed keeps a name while the layers after them run.


def _convolve(block: nn.Module, bands: Iterator[Tensor]) -> Iterator[Tensor]:
    for convolution in block.children():
        if isinstance(convolution, nn.Conv2d):
            bands = _convolve_once(convolution, bands)
    return bands


def _convolve_once(convolution: nn.Conv2d, bands: Iterator[Tensor]) -> Iterator[Tensor]:
    """A valid 3x3 convolution and ReLU; the last two rows of what came are the first of what comes."""
    before: Tensor | None = None
    for band in bands:
        rows = band if before is None else torch.cat([before, band], dim=2)
        del band
        before = rows[:, :, -2:].clone()
        if rows.shape[2] <= 2:
            continue
        after = convolution(rows)
        del rows
        yield nn.functional.relu_(after)


def _keep(bands: Iterator[Tensor], skip: _Rows) -> Iterator[Tensor]:
    for band in bands:
        skip.add(band)
        yield band


def _pool(bands: Iterator[Tensor]) -> Iterator[Tensor]:
    """2x2 max pooling; an odd row waits for its partner."""
    waiting = _Rows()
    for band in bands:
        waiting.add(band)
        del band
        if waiting.count > 1:
            yield nn.functional.max_pool2d(waiting.take(waiting.count // 2 * 2), 2)


def _join(net: UNet, level: int, bands: Iterator[Tensor], skip: _Rows) -> Iterator[Tensor]:
    """Up-convolution, and beside it the rows of the skip."""
    for band in bands:
        up = net.up[level](band)
        del band
        if net.config.relu_after_up:
            nn.functional.relu_(up)
        joined = torch.cat([up, skip.take(up.shape[2])], dim=1)
        del up
        yield joined


class _Rows:
    """Rows of a feature map that wait in line; `cropped` are left out at the top, left and right."""

    def __init__(self, cropped: int = 0) -> None:
        self.cropped, self.above = cropped, cropped
        self.count = 0
        self.parts: list[Tensor] = []

    def add(self, band: Tensor) -> None:
        left_out = min(self.above, band.shape[2])
        self.above -= left_out
        self.count += band.shape[2] - left_out
        if left_out < band.shape[2]:
            self.parts.append(band[:, :, left_out:, self.cropped : band.shape[3] - self.cropped])

    def take(self, rows: int) -> Tensor:
        taken = []
        self.count -= rows
        while rows:
            part = self.parts.pop(0)
            if part.shape[2] > rows:
                self.parts.insert(0, part[:, :, rows:])
                part = part[:, :, :rows]
            taken.append(part)
            rows -= part.shape[2]
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim=2)
