"""Ways of training that Septum does not have, for contest.py to try (`--try NAME`): kept out until one of them wins.

deep-supervision: the paper's expansive path answers at every level but the deepest, through a 1x1 convolution that
is thrown away after training. Each answer is enlarged to the size of the network's own and compared with the same
classes and weights; one at half the resolution counts half, and so on, as in nnU-Net.
noise: half of the patches get Gaussian noise of up to 0.3 standard deviations of the image, a quarter is smoothed by a
Gaussian of 0.5 to 1.25 pixels before, much as nnU-Net and MONAI's usual transforms do it.
compilation: the network's passes are compiled by TorchInductor; the first step pays for it, within the budget.
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

# as they are in Septum
LOSSES = {target.__name__: target.loss for target in TARGETS.values()} | {"dice": step.dice_loss}
DRAW = step.draw_batch


def deep_supervision(net: UNet, state: State) -> None:
    """Let the levels below the last one answer too, and add what they cost to every loss."""
    answers: dict[int, torch.Tensor] = {}
    for level in range(1, net.config.depth):
        head = torch.nn.Conv2d(net.config.base_channels * 2**level, net.config.n_classes, kernel_size=1)
        for values in head.parameters():
            torch.nn.init.zeros_(values)  # at first the network is as it would be without
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
    """Smooth some patches of a step and let noise fall on some."""

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
    """Train in this way from now on, in this process."""
    begin = step.new_state

    def new_state(*arguments: Any) -> State:
        state = begin(*arguments)
        if state.average is state.net:
            raise SystemExit("a try changes the network that is trained, not its average; use weight_average")
        TRIES[name](state.net, state)
        return state

    probe.new_state = train.new_state = new_state  # type: ignore[attr-defined]
