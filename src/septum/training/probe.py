"""How a training begins: memory and time are probed, and what they allow is written down."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from septum.config import DataSource, TrainConfig
from septum.core.layout import OVERHEAD
from septum.core.unet import margin
from septum.data.dataset import Dataset
from septum.errors import ConfigError
from septum.machine.memory import resident, trim_heap, without_cached_memory
from septum.model.model import Model
from septum.model.versions import versions
from septum.training.holdout import HoldOut, largest, pixels_of
from septum.training.memory import libraries_bytes, limit_memory, smaller, state_bytes, step_bytes, tile_memory
from septum.training.patches import Images
from septum.training.processes import Processes
from septum.training.run import RunConfig
from septum.training.schedule import Probe, plan_steps
from septum.training.step import State, new_state, price_of_determinism, train_step
from septum.training.validate import Part, bytes_kept, choose_decoding, judged, predictions


def begin_run(
    dataset: Dataset,
    config: TrainConfig,
    held_out: HoldOut,
    budget: float | None,
    max_memory: int | None,
    images: Images,
    device: torch.device,
    start: Model | None,
    begin: float,
    source: DataSource | None,
    processes: Processes,
) -> RunConfig:
    """Probe memory and time with steps that leave no trace, and write down what they say."""
    if config.steps is None and budget is None:
        raise ConfigError("how long to train is not said; give --budget such as 20min, or --steps")
    context = margin(config.unet.depth)
    wanted, one = config, largest(held_out, dataset)  # which stands for all that is held out
    trim_heap()
    libraries = libraries_bytes()
    held, state_takes = resident() if device.type == "cpu" else 0, state_bytes(config)
    kept = bytes_kept(held_out, dataset, config) - bytes_kept(one, dataset, config)
    shapes = [dataset.samples[index].labels.shape for index in held_out.blocks]
    tiles = tile_memory(max_memory, (max_memory or 0) - held - state_takes - kept, config.unet, shapes)
    if max_memory is not None:
        if processes.count > 1:
            raise ConfigError("--max-memory is for one process; with several give smaller patches by --set patch=N")

        def work(tried: TrainConfig) -> None:
            """All that takes memory in a training: a step, one with all that the optimiser keeps, a validation."""
            state = new_state(tried, device, start)
            for number in range(2):
                _step(state, images, tried, processes, number)
            with without_cached_memory(max_memory):
                judged(predictions(state.average, tried, dataset, one, tiles), tried.decoding, tried, dataset)
            _step(state, images, tried, processes, 2)

        def counted(tried: TrainConfig) -> int:
            tile = tiles - OVERHEAD // 2 if shapes else 0  # the rest of it is counted among the libraries
            return held + state_takes + libraries + max(step_bytes(tried), tile)

        config = limit_memory(wanted, max_memory, device, work, counted, kept)
    while True:
        state = new_state(config, device, start)
        probe = Probe(
            step=partial(_step, state, images, config, processes),
            predict=partial(_predict, max_memory, state.average, config, dataset, one, tiles),
            score=partial(_score, max_memory, config=config, dataset=dataset),
            predicted=pixels_of(held_out, dataset, context) / max(1, pixels_of(one, dataset, context)),
            scored=pixels_of(held_out, dataset) / max(1, pixels_of(one, dataset)),
        )
        try:
            spent = processes.clock() - begin
            schedule = plan_steps(config.steps, None if config.steps else budget, spent, probe, processes.clock)
        except (MemoryError, RuntimeError) as error:
            config = smaller(config, error)
            if processes.count > 1:
                raise
        else:
            break
    price = None
    if torch.are_deterministic_algorithms_enabled():
        price = price_of_determinism(probe.step) if device.type == "cuda" else 1.0
    plan = asdict(schedule)
    settings = RunConfig(
        train=wanted.with_changes({"steps": plan.pop("steps")}),
        budget=budget,
        max_memory=max_memory,
        tile_memory=tiles,
        deterministic=price,
        source=source,
        held_out=held_out.description,
        data=dataset.hashes,
        device=device.type,
        threads=torch.get_num_threads(),
        versions=versions(),
        **plan,
    )
    if config == wanted:
        return settings
    sizes = {"batch": config.batch, "patch": config.patch}
    was = f"{wanted.batch} x {wanted.patch}"
    why = f"for want of memory a step has {config.batch} x {config.patch} pixels per side instead of {was}"
    return settings.lowered(sizes, why)


def _step(state: State, images: Images, config: TrainConfig, processes: Processes, number: int) -> None:
    state.step = number
    train_step(state, images, config, 1000, processes)


def _predict(limit: int | None, *arguments: Any) -> list[Part]:
    with without_cached_memory(limit):
        return list(predictions(*arguments))


def _score(limit: int | None, parts: list[Part], config: TrainConfig, dataset: Dataset) -> None:
    with without_cached_memory(limit):
        choose_decoding(parts, config, dataset)
