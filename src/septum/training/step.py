"""One step of training, and the state between two steps."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from septum.config import TrainConfig
from septum.core.loss import dice_loss
from septum.core.randomness import torch_seed
from septum.core.targets import TARGETS
from septum.core.unet import UNet
from septum.machine.device import fastest_order
from septum.model.model import Model
from septum.training.patches import Batch, Images, draw_batch
from septum.training.processes import SINGLE_PROCESS, Processes

SAME_ANSWER = 1e-3  # share of the largest answer, below which differences between pixels do not count


@dataclass
class State:
    """The state of a training between two steps."""

    net: UNet
    average: UNet  # exponential average of the weights, or the same network
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = -math.inf
    seconds: float = 0.0
    losses: tuple[float, ...] = ()  # since the last log line
    collapsed_steps: int = 0  # in a row, with the same answer for every pixel

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that a resumed training needs."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        if self.average is not self.net:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items() if value is not None}
        return {name: value.detach() for name, value in tensors.items()}

    def load(self, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        """Continue from what `tensors` and `numbers` returned; empties `tensors`, to free memory on the way."""
        for prefix, net in (("net.", self.net), ("average.", self.average)):
            part = {name.removeprefix(prefix): tensors.pop(name) for name in [*tensors] if name.startswith(prefix)}
            if part:
                net.load_state_dict(part)
            del part
        states: dict[int, dict[str, torch.Tensor]] = {}
        parameters = list(self.net.parameters())
        for name in [name for name in tensors if name.startswith("optimizer.")]:
            _, number, key = name.split(".", 2)
            value, like = tensors.pop(name), parameters[int(number)]
            if value.shape == like.shape:  # a fused optimiser expects the memory order of the weights
                value = torch.empty_like(like, requires_grad=False).copy_(value)
            else:
                value = value.clone()
            states.setdefault(int(number), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        self.step, self.seconds = numbers["step"], numbers["seconds"]
        self.best = -math.inf if numbers["best"] is None else numbers["best"]
        self.losses, self.collapsed_steps = tuple(numbers["losses"]), numbers.get("blind", 0)

    def numbers(self) -> dict[str, Any]:
        """All numbers that a resumed training needs."""
        best = None if math.isinf(self.best) else self.best
        losses = list(self.losses)
        return {
            "step": self.step,
            "seconds": self.seconds,
            "best": best,
            "losses": losses,
            "blind": self.collapsed_steps,
        }


def new_state(config: TrainConfig, device: torch.device, start: Model | None = None, seconds: float = 0.0) -> State:
    """Return the first state: weights drawn by the seed, or those of a model."""
    net = UNet(config.unet, config.seed)
    if start is not None:
        net.load_state_dict(start.net.state_dict())
    net = net.to(device).to(memory_format=memory_format(config, device))  # type: ignore[call-overload]
    average = copy.deepcopy(net) if config.weight_average else net
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            net.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(
            net.parameters(),
            config.learning_rate,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
    return State(net, average, optimizer, seconds=seconds)


def train_step(
    state: State, images: Images, config: TrainConfig, steps: int, processes: Processes = SINGLE_PROCESS
) -> float:
    """Take one step: draw a batch, predict, compute the loss, update the weights. Returns the loss."""
    samples = range(processes.rank, config.batch, processes.count)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.step, steps)
    batch = draw_batch(images, config, state.step, samples)
    seeds = [torch_seed(config.seed, state.step, f"dropout of sample {sample}") for sample in samples]
    order, device = memory_format(config, batch.images.device), batch.images.device.type
    with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits = state.net.train()(batch.images.contiguous(memory_format=order), seeds)
    logits = logits.float()
    loss = TARGETS[config.target].loss(logits, batch.classes, batch.weights, config.loss_normalization, processes.sum)
    if config.dice:
        loss = loss + config.dice * dice_loss(logits, batch.classes, batch.weights, processes.sum)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    processes.sum_gradients(state.net)
    state.optimizer.step()
    if state.average is not state.net:
        keep = min(config.weight_average, (1 + state.step) / (10 + state.step))  # a short average at first
        with torch.no_grad():
            torch._foreach_lerp_(list(state.average.parameters()), list(state.net.parameters()), 1 - keep)
    collapsed = is_collapsed(logits, batch, processes)
    if collapsed is not None:
        state.collapsed_steps = state.collapsed_steps + 1 if collapsed else 0
    result: float = loss.item()
    return result


def is_collapsed(logits: torch.Tensor, batch: Batch, processes: Processes = SINGLE_PROCESS) -> bool | None:
    """Whether the network gives all pixels the same answer; None if all have the same class.

    Units that are stuck at zero, as after steps with too high a learning rate, pass on nothing of the image.
    """
    counts, n_classes = batch.weights > 0, logits.shape[1]
    several = batch.classes.where(counts, n_classes).amin() < batch.classes.where(counts, -1).amax()
    spread = logits.amax((2, 3)) - logits.amin((2, 3))
    different = (spread > SAME_ANSWER * (1 + logits.abs().amax())).any()
    any_several, any_different = processes.sum(torch.stack([several, different]).float()).tolist()
    return not any_different if any_several else None


def determinism_slowdown(step: Callable[[int], object]) -> float:
    """Return how many times as long a step takes with deterministic algorithms, by the median of a few."""
    medians = []
    try:
        for deterministic in (False, True):
            torch.use_deterministic_algorithms(deterministic)
            times = []
            for number in range(6):
                begin = time.perf_counter()
                step(number)
                times.append(time.perf_counter() - begin)
            medians.append(statistics.median(times[1:]))  # without the first, which pays for allocations
    finally:
        torch.use_deterministic_algorithms(True)
    return medians[1] / medians[0]


def memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    """Channels last for bfloat16, where it is the faster order; for float32 as in predictions."""
    return torch.channels_last if config.precision == "bfloat16" else fastest_order(device)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step: a linear rise in the warm-up, then constant or a cosine decay to zero.

    Examples
    --------
    >>> from septum.config import UNetConfig
    >>> config = TrainConfig(unet=UNetConfig(), learning_rate=1.0, warmup=0.1)
    >>> [round(learning_rate(config, step, 100), 2) for step in (0, 4, 9, 55, 99)]
    [0.1, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = config.warmup * steps
    if step < warmup:
        return config.learning_rate * (step + 1) / max(1.0, warmup)
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - warmup) / max(1.0, steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
