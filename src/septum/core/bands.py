"""The network on an image that passes through it in bands of rows: the same logits, in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from septum.config import UNetConfig
from septum.core.unet import UNet, cropped


def logits_in_bands(net: UNet, bands: Iterable[Tensor], rows: int) -> Iterator[Tensor]:
    """Run the network over an image from top to bottom, a few rows at a time; the result is that of `UNet.forward`.

    Every layer works on the rows that have arrived, and keeps the few that the next rows need. No feature map of the
    whole image exists, no row is computed twice, and memory depends only on the width and on `rows`.

    Parameters
    ----------
    net : UNet
        In evaluation mode, without normalisation layers (`septum.core.unet.freeze` builds them in).
    bands : iterable of (1, C, rows, X) tensors
        The rows of one image of an admissible size, in order, in bands of any height.
    rows : int
        Rows that each layer works on at a time, at every level: more are faster and need more memory.

    Yields
    ------
    (1, K, rows, X - 2 * margin) tensors
        Logits in order; together as many rows as the image has less twice the margin.

    Examples
    --------
    >>> net = UNet(UNetConfig(base_channels=2, depth=2)).eval()
    >>> bands = torch.zeros(1, 1, 60, 44).split(16, dim=2)
    >>> [tuple(logits.shape[2:]) for logits in logits_in_bands(net, bands, rows=8)]
    [(4, 4), (8, 4), (8, 4)]
    """
    assert net.config.normalization == "none"
    assert not net.training
    depth = net.config.depth
    skips = [_Rows(cropped=cropped(level, depth)) for level in range(depth)]
    flow = _in_parts(iter(bands), rows)
    for level in range(depth):
        flow = _in_parts(_pool(_keep(_convolve(net.contracting[level], _overlapping(flow)), skips[level])), rows)
    flow = _convolve(net.contracting[depth], _overlapping(flow))
    for level in reversed(range(depth)):
        flow = _convolve(net.expansive[level], _join(net, level, flow, skips[level], rows))
    return map(net.output, flow)


def band_memory(config: UNetConfig, height: int, width: int, rows: int) -> int:
    """Return the peak memory of `logits_in_bands`, in bytes of float32 values, for an image of (height, width) pixels.

    Counted are the rows that wait at the skips, the two rows that each convolution keeps, those gathered before the
    pooled levels, and the input (with the pieces it was joined from), output and weights of the active convolution.
    """
    values: int = 0
    for level in range(config.depth + 1):
        row = config.base_channels * 2**level * (width // 2**level + 1)
        if level < config.depth:
            values += row * min(waiting(level, config.depth, rows), height // 2**level + 1)
        values += row * (8 + rows + 4)
    active: int = config.base_channels * (width + 2**config.depth) * 8 * (rows + 4)
    weights: int = 9 * (config.base_channels * 2**config.depth) ** 2
    total: int = 4 * (values + active + weights)
    return total


def waiting(level: int, depth: int, rows: int) -> int:
    """Return the largest number of rows that wait at a skip, if each layer works on a power of two of rows at a time.

    Examples
    --------
    >>> [waiting(level, depth=4, rows=8) for level in range(4)]
    [216, 104, 48, 20]
    """
    below = depth - level
    left_over = max(0, rows // 2 - 4) * (2 ** (below + 1) - 2)  # at each of the poolings, until there are enough
    rows_waiting: int = cropped(level, depth) + rows * 2**below + left_over
    return rows_waiting


# In these generators only what is still needed keeps a name while later layers run.


def _in_parts(bands: Iterator[Tensor], rows: int) -> Iterator[Tensor]:
    """The same rows, `rows` at a time; the first part has four more, which two convolutions remove."""
    waiting, wanted = _Rows(), rows + 4
    for band in bands:
        waiting.add(band)
        del band
        while waiting.count >= wanted:
            yield waiting.take(wanted)
            wanted = rows
    if waiting.count:
        yield waiting.take(waiting.count)


def _convolve(block: nn.Module, rows: Iterator[Tensor]) -> Iterator[Tensor]:
    """Two valid 3x3 convolutions with ReLU, of rows that overlap."""
    first, second = (module for module in block.children() if isinstance(module, nn.Conv2d))
    return _apply(second, _overlapping(_apply(first, rows)))


def _apply(convolution: nn.Module, rows: Iterator[Tensor]) -> Iterator[Tensor]:
    def layer(part: Tensor) -> Tensor:
        return nn.functional.relu_(convolution(part))

    return map(layer, rows)  # a generator would still name the part while the next layers run


def _overlapping(bands: Iterator[Tensor]) -> Iterator[Tensor]:
    """Rows for a valid 3x3 convolution: the last two of what came are the first of what comes."""
    rows: list[Tensor] = []
    for band in bands:
        rows.append(band)
        del band
        rows = [torch.cat(rows, dim=2)]
        if rows[0].shape[2] > 2:
            rows.append(rows[0][:, :, -2:].clone())
            yield rows.pop(0)


def _keep(bands: Iterator[Tensor], skip: _Rows) -> Iterator[Tensor]:
    for band in bands:
        skip.add(band)
        yield band
        del band


def _pool(bands: Iterator[Tensor]) -> Iterator[Tensor]:
    """2x2 max pooling; an odd row waits for its partner."""
    waiting = _Rows()
    for band in bands:
        waiting.add(band)
        del band
        if waiting.count > 1:
            yield nn.functional.max_pool2d(waiting.take(waiting.count // 2 * 2), 2)


def _join(net: UNet, level: int, bands: Iterator[Tensor], skip: _Rows, rows: int) -> Iterator[Tensor]:
    """Up-convolution, joined with the rows of the skip; the bands that are yielded overlap by two rows."""
    above: Tensor | None = None
    for band in bands:
        for part in torch.split(band, max(1, rows // 2), dim=2):
            up = net.up[level](part)
            if net.config.relu_after_up:
                nn.functional.relu_(up)
            joined = [_beside(up, skip.parts_of(up.shape[2]), above)]
            del up
            above = joined[0][:, :, -2:].clone()
            if joined[0].shape[2] > 2:
                yield joined.pop()


def _beside(up: Tensor, skips: list[Tensor], above: Tensor | None) -> Tensor:
    """Concatenate two maps along the channels, below rows that are joined already; each value is copied once."""
    first = 0 if above is None else above.shape[2]
    channels = up.shape[1]
    joined = torch.empty(
        (1, channels + skips[0].shape[1], first + up.shape[2], up.shape[3]),
        dtype=up.dtype,
        device=up.device,
        memory_format=torch.channels_last if up.is_contiguous(memory_format=torch.channels_last) else None,
    )
    if above is not None:
        joined[:, :, :first] = above
    joined[:, :channels, first:] = up
    for part in skips:
        joined[:, channels:, first : first + part.shape[2]] = part
        first += part.shape[2]
    return joined


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
        taken = self.parts_of(rows)
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim=2)

    def parts_of(self, rows: int) -> list[Tensor]:
        taken = []
        self.count -= rows
        while rows:
            part = self.parts.pop(0)
            if part.shape[2] > rows:
                self.parts.insert(0, part[:, :, rows:])
                part = part[:, :, :rows]
            taken.append(part)
            rows -= part.shape[2]
        return taken
