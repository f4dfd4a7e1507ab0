"""How fast is the paper's network on a GPU: a training step, 512 x 512 pixels (paper: below 1 s), 16,384 x 16,384?

    python benchmarks/gpu.py

Goal: 512 x 512 in at most 5 ms. A prediction goes from the image in memory to labels; "network alone" excludes reading,
normalising and decoding. The large image has 16,384 x 16,384 random grey values and goes from memory to probabilities
in memory. "share of peak" compares its multiply-adds per second with those of a product of two 8192 x 8192 matrices in
the same precision (float32, TF32 off), measured in the same run.
"""

from __future__ import annotations

import sys

import numpy as np
import record
import torch

from septum.config import UNetConfig, paper_2015
from septum.core.layout import plan_layout
from septum.core.tiling import ArraySource
from septum.core.unet import UNet, input_size
from septum.data.dataset import from_arrays
from septum.data.simulate import membranes
from septum.machine.generators import drain
from septum.machine.memory import DEFAULT_MEMORY
from septum.model.predict import predict_probabilities, segment
from septum.training.holdout import nothing_held_out
from septum.training.patches import draw_batch, prepare
from septum.training.recipe import recipe
from septum.training.step import new_state, train_step

LARGE = 16384  # pixels per side
MATRIX = 8192


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: not measured")
    device = torch.device("cuda")
    image, labels = membranes((512, 512), 200, seed=0)
    dataset = from_arrays([image], [labels])
    config = recipe("paper", dataset, device)
    images = prepare(dataset, config, nothing_held_out(), device)
    state = new_state(config, device)

    def step() -> None:
        train_step(state, images, config, 1000)
        torch.cuda.synchronize()

    def draw() -> None:
        draw_batch(images, config, 0, range(config.batch))
        torch.cuda.synchronize()

    def predict() -> None:
        drain(segment(state.net.eval(), config, ArraySource(np.ascontiguousarray(image))))

    net = UNet(paper_2015()).eval().to(device)
    tile = torch.zeros(1, 1, *[input_size(512, 4)] * 2, device=device)
    pixels = np.random.default_rng(0).random((1, LARGE, LARGE), np.float32)
    matrix = torch.ones(MATRIX, MATRIX, device=device)

    @torch.inference_mode()
    def alone() -> None:
        with torch.backends.cudnn.flags(allow_tf32=False):
            net(tile)
        torch.cuda.synchronize()

    def large() -> None:
        drain(predict_probabilities(net, ArraySource(pixels)))

    def product() -> None:
        torch.mm(matrix, matrix)
        torch.cuda.synchronize()

    results = {
        "training_step": record.seconds(step, repeats=15, warmups=3),
        "drawing_and_warping_of_a_step": record.seconds(draw, repeats=15, warmups=3),
        "prediction_512": record.seconds(predict, repeats=15, warmups=3),
        "network_alone_512": record.seconds(alone, repeats=15, warmups=3),
        "matrix_product": record.seconds(product, repeats=15, warmups=3),
        "prediction_16384": record.seconds(large, repeats=3),
    }
    large_adds = plan_layout((LARGE, LARGE), net.config, DEFAULT_MEMORY).multiply_adds
    seconds = {name: timed["median_s"] for name, timed in results.items()}
    speed = {
        "pixels_per_second_16384": LARGE**2 / seconds["prediction_16384"],
        "share_of_peak_16384": large_adds / seconds["prediction_16384"] / (MATRIX**3 / seconds["matrix_product"]),
    }
    record.save(
        "gpu",
        settings={"network": UNetConfig().model_dump(), "patch": config.patch, "batch": config.batch},
        results=results | speed,
        device=record.gpu_name(),
    )


if __name__ == "__main__":
    main()
