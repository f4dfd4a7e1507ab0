"""The command train."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from septum.cli.arguments import (
    ChannelOption,
    DeviceOption,
    KindOption,
    LabelsOption,
    QuietOption,
    RecipeOption,
    SetOption,
    UnlabeledOption,
    interruptible,
    parse_bytes,
    parse_settings,
)


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The annotated images: a folder or one image.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder: settings, log, checkpoint, model.")],
    labels: LabelsOption = None,
    recipe: RecipeOption = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Training time, e.g. 90s or 1h30min. Default: 20min.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Number of training steps, instead of a budget.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Random seed. Same seed, data, steps and machine: the same network.")
    ] = None,
    settings: SetOption = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory limit, e.g. 4GB; uses smaller patches or tells you how much is needed."
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="MODEL", help="Start from the weights of this model.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output.")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Same weights on the same GPU, bit for bit; reports the slowdown.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard curves into --output (extra: track).")
    ] = False,
    final: Annotated[
        bool, typer.Option("--final", help="Then train again on all images, for the same number of steps.")
    ] = False,
    kind: KindOption = None,
    channel: ChannelOption = None,
    unlabeled: UnlabeledOption = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train a network on annotated images.

    To train with several processes, start it with torchrun -m septum train.
    """
    begin = time.perf_counter()
    from septum.cli.display import TrainingDisplay
    from septum.machine.device import pick_device
    from septum.training.files import TrainOptions, train_files
    from septum.training.processes import joined
    from septum.training.tensorboard import TensorBoard
    from septum.words import parse_duration

    options = TrainOptions(
        data=data,
        labels=labels,
        output=output,
        recipe=recipe,
        budget=parse_duration(budget) if budget is not None else None,
        steps=steps,
        max_memory=parse_bytes(max_memory) if max_memory is not None else None,
        begin=begin,
        deterministic=deterministic,
        seed=seed,
        changes=parse_settings(settings or []),
        start=start,
        resume=resume,
        final=final,
        kind=kind,
        channel=channel,
        unlabeled=unlabeled,
    )
    chosen = pick_device(device)
    with joined(chosen) as processes, TrainingDisplay(quiet or not processes.writes) as display:
        board = TensorBoard(output) if tensorboard and processes.writes else None
        records = train_files(options, chosen, processes)
        with interruptible() as interrupted:
            for record in records:
                display.show(record)
                if board:
                    board.show(record)
                if interrupted:
                    records.close()
                    again = f"septum train {data} --output {output} --resume{' --final' * final}"
                    display.say(f"stopped, everything is saved; continue with: {again}")
                    raise typer.Exit(130)
        if board:
            board.close()
