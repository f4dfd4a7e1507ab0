"""How long do one training step and one 512 x 512 prediction take at paper width on a GPU? (The paper: under a second.)

python benchmarks/gpu.py
"""

from __future__ import annotations

import numpy as np
import record
import torch

from septum.config import UNetConfig
from septum.core.tiling import ArraySource
from septum.data.dataset import from_arrays
from septum.data.simulate import membranes
from septum.engine.holdout import nothing_held_out
from septum.engine.patches import draw_batch, prepare
from septum.engine.plan import recipe
from septum.engine.predict import drain, segment
from septum.engine.step import new_state, train_step


def main() -> None:
    if not torch.cuda.is_available():
        print("no CUDA device here: not measured")
        return
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

    record.save(
        "gpu",
        settings={"network": UNetConfig().model_dump(), "patch": config.patch, "batch": config.batch},
        results={
            "training_step": record.seconds(step, repeats=15, warmups=3),
            "drawing_and_warping_of_a_step": record.seconds(draw, repeats=15, warmups=3),
            "prediction_512": record.seconds(predict, repeats=15, warmups=3),
        },
        device=record.gpu_name(),
    )


if __name__ == "__main__":
    main()
