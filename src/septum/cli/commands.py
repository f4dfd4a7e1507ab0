"""All commands of septum with their examples, and the entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from septum import __version__
from septum.cli.data import check, data_get, data_list
from septum.cli.evaluate import evaluate
from septum.cli.experiments import demo, reproduce
from septum.cli.predict import predict
from septum.cli.runs import info, report
from septum.cli.train import train
from septum.errors import SeptumError


class Command(TyperCommand):
    """A command that also takes --version."""

    def parse_args(self, context: Any, words: list[str]) -> list[str]:
        show_version("--version" in words)
        try:
            return super().parse_args(context, words)
        except typer.BadParameter as error:
            error.message = error.message.replace("Value error, ", "")  # pydantic's words
            raise


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"septum {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=show_version, help="Show the version and exit.")
]
app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def septum(version: Version = False) -> None:
    """Learn to segment biomedical images from a few annotated ones."""


@data_app.callback()
def data(version: Version = False) -> None:
    """List and download public data sets."""


def add(command: Callable[..., None], *examples: str, name: str | None = None, to: typer.Typer = app) -> None:
    """Add a command whose help ends with the examples, one a line."""
    lines = ["\b", "Example:" if len(examples) == 1 else "Examples:", *(f"  {example}" for example in examples)]
    to.command(name, cls=Command, epilog="\n".join(lines))(command)


add(check, "septum check cells")
add(
    train,
    "septum train cells --output run --budget 20min",
    "septum train cells --output run --resume",
)
add(
    predict,
    "septum predict run images/*.tif --output masks",
    "septum predict run stack.tif -o out --tta 7",
)
add(
    evaluate,
    "septum evaluate masks cells/labels",
    "septum evaluate maps truth.tif --metrics isbi --report errors.html",
    "septum evaluate 01_RES 01_GT --json",
)
add(report, "septum report run")
add(info, "septum info run")
add(demo, "septum demo --output septum-demo")
add(
    reproduce,
    "septum reproduce em --output em --budget 20min",
    "septum reproduce dic-hela --output hela --recipe paper --folds 01",
)
app.add_typer(data_app, name="data")
add(data_list, "septum data list", name="list", to=data_app)
add(data_get, 'septum train "$(septum data get isbi2012)" --output run', name="get", to=data_app)


def main() -> None:
    """Run the command line. User errors print one sentence and exit with 2; Ctrl-C exits with 130 (typer does that)."""
    try:
        app(prog_name="septum")
    except SeptumError as error:
        public = next(kind for kind in type(error).__mro__ if kind.__module__ == SeptumError.__module__)
        print(f"{public.__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:  # raised by looking at a path below a folder that the user may not enter
        print(f"PermissionError: {error.filename}: {error.strerror}; check path and permissions", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
