"""How do time, memory, work and exactness compare with sliding windows of MONAI and nnU-Net, on two CPU cores?

    SEPTUM_DATA=... python benchmarks/tiling_peers.py em-membrane
    SEPTUM_DATA=... python benchmarks/tiling_peers.py paper-width [CONTESTANT...]

All use the same network and image: the shipped EM network with its normalisation built in, on a mosaic of the first 16
slices of ISBI 2012 (2048 x 2048); and paper width with random weights on the first four (1024 x 1024). Septum's network
loses a margin, which is mirrored. The peers' inferers get a twin with the same weights, whose 3x3 convolutions are
padded with zeros, 512 x 512 pixels at a time. The plain loop is the paper's: tiles of 572, 388 apart. Timed is the path
from the normalised array to float32 probabilities in memory, each in its own process; everything is in float32.

PyTorch's default memory layout is channels first; "channels last" gives a contestant the layout that Septum chooses on
CPUs with AVX-512. "one tile" is a single forward pass over the whole image with its margin. It is the reference for all
differences, and for the speed of the CPU's convolutions. With "memory kept" the allocator returns no memory to the
system between calls, so no page is cleared twice.

Contestants run one by one leave their results in scratch/; the record is written once all are complete.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from septum.config import paper_2015
from septum.core.layout import plan_layout
from septum.core.normalize import NormalizedSource, measure_normalization
from septum.core.tiling import ArraySource, read_mirrored
from septum.core.unet import UNet, input_size, margin
from septum.data.catalog import find
from septum.data.images import open_image
from septum.machine.generators import drain
from septum.machine.memory import DEFAULT_MEMORY
from septum.model.model import load
from septum.model.predict import fit_to_image, predict_probabilities

CASES = {"em-membrane": 4, "paper-width": 2}  # slices along a side of the mosaic
WINDOW = 512  # of the peers: nnU-Net's plan for images of this kind; MONAI has no default
LAST = ", channels last"
CONTESTANTS = (
    "septum", "one tile", "one tile" + LAST, "one tile, channels last, memory kept", "MONAI", "MONAI" + LAST,
    "nnU-Net", "nnU-Net" + LAST, "572 tiles", "572 tiles" + LAST,
)  # fmt: skip
KEPT = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=34359738368:glibc.malloc.trim_threshold=34359738368"}
Predict = Callable[[Tensor], Tensor]  # (1, C, Y, X) -> (K, Y, X) logits


class Twin(nn.Module):
    """The network with the same weights and zero-padded convolutions: the output has the size of the input."""

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        for module in self.net.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.padding = (1, 1)
        self.windows = 0

    def forward(self, x: Tensor) -> Tensor:
        net, skips = self.net, []
        self.windows += len(x)
        for level, block in enumerate(net.contracting):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for level in reversed(range(net.config.depth)):
            up = net.up[level](x)
            up = nn.functional.relu_(up) if net.config.relu_after_up else up
            x = net.expansive[level](torch.cat([up, skips[level]], dim=1))
        logits: Tensor = net.output(x)
        return logits


def case(name: str) -> tuple[UNet, np.ndarray]:
    """The network without normalisation layers, and the normalised image (1, Y, X)."""
    paths = sorted((find("isbi2012") / "images").glob("*.png"))
    side = CASES[name]
    slices = [open_image(path).frames[0].read((slice(None), slice(None)))[0] for path in paths[: side**2]]
    mosaic = np.block([slices[row * side : (row + 1) * side] for row in range(side)])[None]
    torch.manual_seed(0)
    model = load("em-membrane")
    source = NormalizedSource(ArraySource(mosaic), measure_normalization(mosaic, model.card.config.normalize))
    net = fit_to_image(model.net, source) if name == "em-membrane" else UNet(paper_2015()).eval()
    return net, np.ascontiguousarray(source.read((slice(None), slice(None))), np.float32)


def with_margin(net: UNet, image: np.ndarray) -> Tensor:
    """(1, C, Y, X) with the mirrored margin, large enough for one pass."""
    lost, depth = margin(net.config.depth), net.config.depth
    region = tuple(slice(-lost, input_size(size, depth) - lost) for size in image.shape[1:])
    return torch.from_numpy(np.ascontiguousarray(read_mirrored(ArraySource(image), region)))[None]


def contestant(name: str, net: UNet, image: np.ndarray) -> tuple[Callable[[], np.ndarray], Callable[[], int]]:
    """Return the function to time, and its multiply-adds."""
    size = image.shape[1:]
    if name == "septum":
        layout = plan_layout(size, net.config, DEFAULT_MEMORY)
        return lambda: drain(predict_probabilities(net, ArraySource(image))), lambda: layout.multiply_adds
    twin = Twin(net)
    network = net if name.startswith(("one", "572")) else twin
    if LAST in name:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if name.startswith("one"):
        tile = with_margin(net, image)

        def one() -> np.ndarray:
            logits = net(tile)[0, :, : size[0], : size[1]]
            return torch.softmax(logits, dim=0).numpy()

        return one, lambda: count(net, tile.shape[2:])
    if name.startswith("572"):
        tiles = -(-size[0] // 388) * -(-size[1] // 388)
        return lambda: plain_loop(net, image), lambda: tiles * count(net, (572, 572))
    predict = monai_windows(twin) if name.startswith("MONAI") else nnunet_windows(twin, net.config.n_classes)

    def windows() -> np.ndarray:
        twin.windows = 0
        return torch.softmax(predict(torch.from_numpy(image)[None]), dim=0).numpy()

    return windows, lambda: twin.windows * count(twin, (WINDOW, WINDOW))


def plain_loop(net: UNet, image: np.ndarray) -> np.ndarray:
    """The paper's tiles one after the other, over the image with a mirrored margin."""
    size = image.shape[1:]
    tiles = [-(-length // 388) for length in size]
    padded = np.pad(image, [(0, 0), *[(92, 92 + n * 388 - length) for n, length in zip(tiles, size, strict=True)]],
                    mode="reflect")  # fmt: skip
    result = np.zeros((net.config.n_classes, *[388 * n for n in tiles]), np.float32)
    for y in range(0, 388 * tiles[0], 388):
        for x in range(0, 388 * tiles[1], 388):
            tile = torch.from_numpy(np.ascontiguousarray(padded[:, y : y + 572, x : x + 572]))
            result[:, y : y + 388, x : x + 388] = torch.softmax(net(tile[None])[0], dim=0).numpy()
    return result[:, : size[0], : size[1]]


def monai_windows(twin: Twin) -> Predict:
    """MONAI's inferer with its defaults: windows overlap by a quarter and weigh the same."""
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(roi_size=(WINDOW, WINDOW))
    return lambda image: inferer(image, twin)[0]


def nnunet_windows(twin: Twin, classes: int) -> Predict:
    """nnU-Net's predictor with its defaults (overlap of a half, Gaussian weights), without averaging over mirrors."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
    )
    heads = SimpleNamespace(num_segmentation_heads=classes)
    plans = SimpleNamespace(get_label_manager=lambda dataset: heads)
    window = SimpleNamespace(patch_size=(WINDOW, WINDOW))
    predictor.manual_initialization(twin, plans, window, None, {}, "", None)
    return lambda image: predictor.predict_sliding_window_return_logits(image.transpose(0, 1))[:, 0].float()


def count(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of one forward pass, counted by PyTorch."""
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(network).to("meta")(torch.zeros(1, 1, *shape, device="meta"))
    return counter.get_total_flops() // 2


def memory(key: str) -> int:
    """VmHWM or VmRSS of this process in bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1]) * 1024


@torch.inference_mode()
def run(name: str, case_name: str, repeats: int, folder: Path) -> None:
    """Run one contestant in this process; writes its probabilities and results."""
    torch.set_num_threads(2)
    net, image = case(case_name)
    predict, multiply_adds = contestant(name, net, image)
    before = memory("VmRSS")
    times = []
    for _ in range(1 + repeats):
        begin = time.perf_counter()
        probabilities = predict()
        times.append(time.perf_counter() - begin)
    figures: dict[str, Any] = {
        "median_s": statistics.median(times[1:]),
        "repeats_s": times[1:],
        "peak_bytes": memory("VmHWM"),
        "bytes_before": before,
        "multiply_adds": multiply_adds(),
    }
    figures["gflop_per_s"] = 2e-9 * figures["multiply_adds"] / figures["median_s"]
    np.save(folder / f"{name}.npy", probabilities)
    (folder / f"{name}.json").write_text(json.dumps(figures))


def compare(folder: Path, names: list[str]) -> dict[str, Any]:
    """All results, with differences from one pass and the ratios to be reported."""
    results = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
    whole = np.load(folder / "one tile.npy")
    ours = results["septum"]
    for name, figures in results.items():
        probabilities = np.load(folder / f"{name}.npy")
        figures["largest_difference"] = float(np.abs(probabilities - whole).max())
        figures["pixels_that_differ"] = float((probabilities.argmax(0) != whole.argmax(0)).mean())
        figures["time_over_septum"] = figures["median_s"] / ours["median_s"]
        figures["multiply_adds_over_septum"] = figures["multiply_adds"] / ours["multiply_adds"]
        figures["septum_speed_over_it"] = ours["gflop_per_s"] / figures["gflop_per_s"]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("names", nargs="*", help=f"of: {'; '.join(CONTESTANTS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--here", action="store_true", help="measure the named contestant in this process")
    arguments = parser.parse_args()
    names = arguments.names or list(CONTESTANTS)
    folder = Path("scratch") / f"tiling_peers_{arguments.case}"
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.here:
        run(names[0], arguments.case, arguments.repeats, folder)
        return
    for name in names:
        environment = os.environ | (KEPT if "memory kept" in name else {})
        command = [sys.executable, __file__, arguments.case, name, "--here", f"--repeats={arguments.repeats}"]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        print(name, (folder / f"{name}.json").read_text(), flush=True)
    if any(not (folder / f"{name}.json").exists() for name in CONTESTANTS):
        return
    record.save(
        f"tiling_peers_{arguments.case}",
        settings={"threads": 2, "window": WINDOW, "mosaic": CASES[arguments.case], "repeats": arguments.repeats},
        results=compare(folder, list(CONTESTANTS)),
        packages=("monai", "nnunetv2"),
    )


if __name__ == "__main__":
    main()
