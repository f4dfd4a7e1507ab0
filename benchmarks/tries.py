"""Training variants that Septum does not have, for `contest.py --try NAME`; one that wins there moves into Septum.

deep-supervision: every level of the expansive path except the deepest gets an output through a 1x1 convolution, which
is discarded after training. Each output is enlarged to the size of the network's own and compared with the same classes
and weights. As in nnU-Net, an output at half the resolution counts half, and so on.
noise: a quarter of the patches are smoothed by a Gaussian of 0.5 to 1.25 pixels, then half of the patches get Gaussian
noise of up to 0.3 standard deviations of the image, much like the usual transforms of nnU-Net and MONAI.
compilation: TorchInductor compiles the network's passes; the first step takes the time for it, within the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from septum.core.targets import TARGETS
from septum.core.unet import UNet, centre_crop
from septum.training import fit as train
from septum.training import probe, step
from septum.training.step import State

# Septum's own
LOSSES = {target.__name__: target.loss for target in TARGETS.values()} | {"dice": step.dice_loss}
DRAW = step.draw_batch


def deep_supervision(net: UNet, state: State) -> None:
    """Give the levels below the last one outputs too, and add their losses."""
    answers: dict[int, torch.Tensor] = {}
    for level in range(1, net.config.depth):
        head = torch.nn.Conv2d(net.config.base_channels * 2**level, net.config.n_classes, kernel_size=1)
        for values in head.parameters():
            torch.nn.init.zeros_(values)  # the network starts as it would without them
        state.optimizer.add_param_group({"params": head.parameters()})

        def answer(module: Any, _: Any, out: torch.Tensor, level: int = level, head: Any = head) -> None:
            if module.training:
                answers[level] = head(out)

        net.expansive[level].register_forward_hook(answer)

    def supervised(loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def of_all(logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
            total = loss(logits, *arguments)
            for level, low in answers.items():
                large = torch.nn.functional.interpolate(low.float(), scale_factor=2**level, mode="bilinear")
                total = total + 0.5**level * loss(centre_crop(large, logits.shape[2:]), *arguments)
            return total

        return of_all

    for target in TARGETS.values():
        target.loss = supervised(LOSSES[target.__name__])  # type: ignore[attr-defined]
    step.dice_loss = supervised(LOSSES["dice"])


def compilation(net: UNet, _: State) -> None:
    """Compile the network for the shape of a training step; predictions and validations are not compiled."""
    compiled = torch.compile(net.forward, dynamic=False)
    net.forward = lambda image, seeds=(): compiled(image)  # type: ignore[method-assign]  # recipe fast has no dropout


def noise(*_: Any) -> None:
    """Smooth some patches of a step and add noise to some."""

    def noisy(images: Any, config: Any, number: int, *arguments: Any) -> Any:
        batch = DRAW(images, config, number, *arguments)
        rng = np.random.default_rng([config.seed, number])
        patches = batch.images.numpy().copy()
        for patch in patches:
            if rng.random() < 0.25:
                patch[:] = ndimage.gaussian_filter(patch, (0, *[rng.uniform(0.5, 1.25)] * 2))
            if rng.random() < 0.5:
                patch += rng.normal(0, rng.uniform(0, 0.3), patch.shape)
        return replace(batch, images=torch.from_numpy(patches))

    step.draw_batch = noisy


TRIES = {"deep-supervision": deep_supervision, "noise": noise, "compilation": compilation}


def apply(name: str) -> None:
    """Make all later trainings of this process use this variant."""
    begin = step.new_state

    def new_state(*arguments: Any) -> State:
        state = begin(*arguments)
        if state.average is state.net:
            raise SystemExit("a try changes the network that is trained, not its average; use weight_average")
        TRIES[name](state.net, state)
        return state

    probe.new_state = train.new_state = new_state  # type: ignore[attr-defined]
