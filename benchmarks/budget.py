"""Does a training take the time that it was given? Measured from start to end of the command, in ten settings.

    SEPTUM_DATA=... python benchmarks/budget.py            (takes six minutes; run nothing else)
    SEPTUM_DATA=... python benchmarks/budget.py 0 1 2      (some of the ten settings)

Appends one line per setting to results/budget.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

from septum.data.catalog import find
from septum.training.run import RunFolder

LOG = record.RESULTS / "budget.jsonl"
RUNS: list[tuple[str, str, int, list[str]]] = [  # data set, folder in it, budget in seconds, options
    ("isbi2012", "", 40, []),
    ("isbi2012", "", 40, ["batch=2", "patch=132"]),
    ("isbi2012", "", 40, ["recipe=paper", "unet.base_channels=8"]),
    ("dic-hela", "01", 25, []),
    ("dic-hela", "02", 40, []),
    ("dic-hela", "01", 40, ["unet.base_channels=32"]),
    ("dsb2018", "", 20, []),
    ("dsb2018", "", 30, ["batch=2"]),
    ("dsb2018", "", 20, ["unet.depth=2", "unet.base_channels=8", "patch=100"]),
    ("dsb2018", "", 30, ["precision=float32"]),
]


def measure(data: str, part: str, budget: int, settings: list[str]) -> dict[str, Any]:
    """Run one training in its own process."""
    options = [f"--recipe={s.removeprefix('recipe=')}" if s.startswith("recipe=") else f"--set={s}" for s in settings]
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "septum", "train", str(find(data) / part), "--output", f"{temporary}/run"]
        begin = time.perf_counter()
        done = subprocess.run([*command, f"--budget={budget}s", "--quiet", *options], capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if done.returncode:
            return {"data": data, "settings": settings, "budget_s": budget, "refused": done.stderr.splitlines()[-1]}
        run = RunFolder(Path(temporary) / "run")
        plan, early = run.config(), any("ended_early" in line for line in run.records())
    return {
        "data": f"{data}/{part}".rstrip("/"),
        "settings": settings,
        "budget_s": budget,
        "seconds": round(seconds, 2),
        "seconds_over_budget": round(seconds / budget, 4),
        "steps": plan.train.steps,
        "step_seconds_probed": plan.step_seconds,
        "finish_seconds_probed": plan.finish_seconds,
        "ended_early": early,
        "threads": plan.threads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="*")
    for number in parser.parse_args().runs or range(len(RUNS)):
        about = {"commit": record.commit(), "hardware": record.hardware(), "date": datetime.date.today().isoformat()}
        entry = {"run": number, **measure(*RUNS[number]), **about, "versions": record.versions("torch", "numpy")}
        with LOG.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
