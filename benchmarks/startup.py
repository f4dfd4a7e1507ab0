"""How long do `import septum` and `septum --help` take? The goal is at most 0.3 s each.

Times whole processes, from start to exit, and for comparison a Python that does nothing. The commands take turns, so
that other load on the machine affects all of them.
Run: python benchmarks/startup.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import record

REPEATS, WARMUPS = 7, 2
AIM_S = 0.3
HELP = "import sys; from septum.cli import main; sys.argv = ['septum', '--help']; main()"  # what the script does
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import septum": [sys.executable, "-c", "import septum"],
    "septum --help": [sys.executable, "-c", HELP],
}


def wait(command: list[str], environment: dict[str, str]) -> float:
    """Run a process and return its seconds."""
    start = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    sources = str(Path(__file__).parents[1] / "src")  # works without an installation of septum
    environment = os.environ | {"PYTHONPATH": sources}
    repeats: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(WARMUPS + REPEATS):
        for name, command in COMMANDS.items():
            seconds = wait(command, environment)
            if number >= WARMUPS:
                repeats[name].append(seconds)
    results: dict[str, Any] = {
        name: {"median_s": statistics.median(times), "repeats_s": times} for name, times in repeats.items()
    }
    record.save(
        "startup",
        settings={"repeats": REPEATS, "warmups": WARMUPS, "aim_s": AIM_S},
        results=results,
        packages=("typer", "pydantic"),
    )


if __name__ == "__main__":
    main()
