"""The commands report and info: what a run folder or a model says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from septum.cli.arguments import JsonOption, ModelArgument


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as written by septum train.")],
) -> None:
    """Write report.html of a run: scores, curves and overlays."""
    from septum.report.run import report_run

    print(report_run(run))


def info(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show what a model was trained on, its settings and scores."""
    from septum.model.model import load

    loaded = load(model, "cpu")
    if as_json:
        print(loaded.card.model_dump_json(indent=1))
        return
    for name, value in loaded.describe():
        print(f"{name:20} {value}")
