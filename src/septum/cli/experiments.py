"""The commands demo and reproduce."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from septum import choices
from septum.cli.arguments import (
    DeviceOption,
    JsonOption,
    QuietOption,
    RecipeOption,
    SetOption,
    interruptible,
    parse_settings,
)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("septum-demo"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train on one half of a real image and score the other half."""
    from septum.cli.display import TrainingDisplay
    from septum.experiments.demo import run_demo
    from septum.machine.generators import drain
    from septum.training.progress import NAMES
    from septum.training.score import SCORE_NAMES
    from septum.words import table

    with TrainingDisplay(quiet or as_json) as display:
        result = drain(run_demo(output), display.show)
    if as_json:
        print(json.dumps(result.scores, indent=1))
        return
    names = {"score": SCORE_NAMES["instances"], **NAMES}
    rows = [[names[name], f"{value:.3f}"] for name, value in result.scores.items()]
    print(table(["score on the unseen right half", "value"], rows))
    print(f"report: {result.report}")
    print(f"next: septum predict {output / 'run'} IMAGES --output masks, or septum train with your own images")


def reproduce(
    name: Annotated[
        choices.PaperExperiment,
        typer.Argument(metavar="EXPERIMENT", help="ISBI 2012 (em) or one of two from the Cell Tracking Challenge."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for report, figures, networks and challenge files.")
    ],
    recipe: RecipeOption = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Training time per fold, e.g. 10h. Default: 20min.")
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Only these folds, named after their test images, e.g. 24-29,test or 01."),
    ] = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Repeat an experiment of the U-Net paper.

    The report compares your scores with the published ones. An interrupted experiment continues where it stopped.
    """
    from septum.cli.display import CountDisplay, TrainingDisplay, cell_text
    from septum.data.catalog import find
    from septum.experiments.reproduce import EXPERIMENTS, ReproductionOptions
    from septum.experiments.reproduce import reproduce as repeat
    from septum.machine.device import pick_device
    from septum.machine.generators import drain
    from septum.words import parse_duration, table

    options = ReproductionOptions(
        recipe=recipe,
        budget=parse_duration(budget) if budget is not None else None,
        changes=parse_settings(settings) if settings else None,
        folds=folds.split(",") if folds is not None else None,
    )
    with CountDisplay(quiet or as_json, name) as download:
        folder = find(EXPERIMENTS[name].data, progress=download.show)
    with TrainingDisplay(quiet or as_json) as display, interruptible() as interrupted:
        records = repeat(name, folder, output, options, pick_device(device))

        def show(record: Any) -> None:
            display.show(record)
            if interrupted:
                records.close()
                again = f"septum reproduce {name} --output {output}"
                again += f" --folds {folds}" if folds is not None else ""
                again += f" --device {device}" if device != "auto" else ""
                display.say(f"stopped, everything is saved; continue with: {again}")
                raise typer.Exit(130)

        result = drain(records, show)
    if as_json:
        print(json.dumps(result.results, indent=1))
        return
    for each in result.tables:
        header, rows = [str(name) for name in each.header], [[cell_text(cell) for cell in row] for row in each.rows]
        print(f"\n{each.title}\n{table(header, rows)}")
    print(f"networks: one per fold in {output / 'folds'}, for septum predict\nreport: {result.report}")
