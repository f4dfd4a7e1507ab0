"""How long does the network wait for the reader, with and without reading ahead?

    python benchmarks/reading.py

A base-4 network with random weights passes over 4,096 x 4,096 grey values in compressed files: a tiled TIFF (zlib) and
an OME-Zarr (zstd). Tiles and bands are those of a plan for 1 GB. The network waits from requesting a band until it has
it. Without reading ahead, each band is read when it is requested.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record
import tifffile
import torch
import zarr
from scipy import ndimage

from septum.config import UNetConfig
from septum.core.layout import plan_layout
from septum.core.normalize import NormalizedSource, measure_normalization
from septum.core.tiling import tiles
from septum.core.unet import UNet
from septum.data.images import fit_channels, open_image
from septum.machine.queues import ahead
from septum.model import predict

SIDE, REPEATS = 4096, 3


def files(folder: Path) -> dict[str, Path]:
    """Smooth grey values with noise, like a camera's."""
    rng = np.random.default_rng(0)
    smooth = ndimage.zoom(rng.random((SIDE // 16, SIDE // 16)), 16, order=1)
    image = (200 * smooth + 10 * rng.random((SIDE, SIDE))).astype(np.uint8)
    tifffile.imwrite(folder / "a.tif", image, tile=(512, 512), compression="zlib")
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    multiscales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    attributes = {"ome": {"version": "0.5", "multiscales": multiscales}}
    group = zarr.open_group(folder / "a.ome.zarr", mode="w", attributes=attributes)
    group.create_array("0", data=image, chunks=(512, 512))
    return {"zlib TIFF": folder / "a.tif", "zstd OME-Zarr": folder / "a.ome.zarr"}


def passage(path: Path, net: UNet, read_ahead: bool) -> dict[str, float]:
    """One pass over an image: total seconds, and the share of them that the network waits."""
    waited = 0.0

    def timed(items: Iterable[Any]) -> Iterator[Any]:
        nonlocal waited
        line = iter(ahead(items) if read_ahead else items)
        while True:
            begin = time.perf_counter()
            item = next(line, None)
            waited += time.perf_counter() - begin
            if item is None:
                return
            yield item

    predict.ahead = timed  # type: ignore[assignment]
    source = fit_channels(open_image(path).frames[0], 1)
    image = NormalizedSource(source, measure_normalization(source, "standardize"))
    source = fit_channels(open_image(path).frames[0], 1)  # no cache of decoded tiles
    image = NormalizedSource(source, image.normalization)
    layout = plan_layout((SIDE, SIDE), net.config, 500_000_000, step=512)
    begin = time.perf_counter()
    for tile in tiles((SIDE, SIDE), layout.stride, net.config.depth):
        for _ in predict.predict_tile(net, image, tile, layout.rows):
            pass
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "waiting": waited / seconds}


def main() -> None:
    net = predict.in_fastest_order(UNet(UNetConfig(base_channels=4)).eval())
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files(Path(folder)).items():
            for read_ahead in (False, True):
                passage(path, net, read_ahead)
                repeats = [passage(path, net, read_ahead) for _ in range(REPEATS)]
                results[f"{name}, {'ahead' if read_ahead else 'when asked for'}"] = {
                    "median_seconds": float(np.median([one["seconds"] for one in repeats])),
                    "median_waiting": float(np.median([one["waiting"] for one in repeats])),
                    "repeats": repeats,
                }
    settings = {"side": SIDE, "base_channels": 4, "threads": torch.get_num_threads(), "seed": 0}
    record.save("reading", settings=settings, results=results, packages=("tifffile", "zarr", "imagecodecs"))


if __name__ == "__main__":
    main()
