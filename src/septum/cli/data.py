"""The commands check, data list and data get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from septum.cli.arguments import ChannelOption, JsonOption, KindOption, LabelsOption, QuietOption, UnlabeledOption


def check(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A folder with images/ and labels/, or another layout (see docs/data.md)."),
    ],
    labels: LabelsOption = None,
    kind: KindOption = None,
    channel: ChannelOption = None,
    unlabeled: UnlabeledOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a data set: how it is read, what is wrong, how to fix it."""
    from septum.data.check import examine
    from septum.words import plural

    notes, findings = examine(data, labels=labels, kind=kind, channel=channel, unlabeled=unlabeled)
    errors = sum(finding.level == "error" for finding in findings)
    if as_json:
        print(json.dumps([finding.__dict__ for finding in findings], indent=1, default=str))
    else:
        for note in notes:
            print(note)
        for finding in findings:
            print(f"{finding.level}: {finding}")
        found = f"{plural(errors, 'error')}, {plural(len(findings) - errors, 'warning')}"
        print(found if findings else "no problems found")
    if errors:
        raise typer.Exit(2)


def data_list(as_json: JsonOption = False) -> None:
    """List the public data sets that Septum can download."""
    from dataclasses import asdict

    from septum.data.catalog import CATALOG
    from septum.words import table

    if as_json:
        print(json.dumps([asdict(entry) for entry in CATALOG.values()], indent=1, default=str))
    else:
        rows = [[entry.name, entry.title, entry.terms] for entry in CATALOG.values()]
        print(table(["name", "what", "terms"], rows))


def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from septum data list.")],
    quiet: QuietOption = False,
) -> None:
    """Find or download a data set and print its folder.

    It is downloaded only if it is neither in $SEPTUM_DATA nor in the cache.
    """
    from septum.cli.display import CountDisplay
    from septum.data.catalog import find

    with CountDisplay(quiet, name) as display:
        folder = find(name, progress=display.show)
    print(folder)
