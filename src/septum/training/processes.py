"""Several processes that train one network: their ranks, sums over all of them, one clock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

T = TypeVar("T")


class _Sum(torch.autograd.Function):
    """Sum over all processes; its gradient is that of this process's part."""

    @staticmethod
    def forward(context: Any, part: Tensor) -> Tensor:
        whole = part.clone()
        torch.distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


@dataclass(frozen=True)
class Processes:
    """All processes of a training, seen from one of them. Each takes its share of the samples of a step.

    All processes must decide alike, or they wait for one another for ever. So every decision depends on sums over all
    of them, or on a value of the first one, such as its clock.
    """

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this one writes the files and talks to the user."""
        return self.rank == 0

    def sum(self, part: Tensor) -> Tensor:
        """Add up over all processes. The gradient is that of this process's part: their sum is the whole gradient."""
        return part if self.count == 1 else _Sum.apply(part)  # type: ignore[no-untyped-call]

    def sum_gradients(self, net: torch.nn.Module) -> None:
        """Give every process the gradient of the whole batch."""
        if self.count > 1:
            for parameter in net.parameters():
                gradient = parameter.grad
                assert gradient is not None
                whole = gradient.contiguous()  # gloo takes no other order
                torch.distributed.all_reduce(whole)
                gradient.copy_(whole)

    def clock(self) -> float:
        """Seconds by the clock of the first process."""
        return self.from_first(time.perf_counter())

    def from_first(self, value: T) -> T:
        """Return the value of the first process; the others wait for it."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]


SINGLE_PROCESS = Processes()


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun has started; without torchrun there is only this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield SINGLE_PROCESS
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()
