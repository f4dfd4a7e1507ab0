"""Make what the README and the tutorial show: run the tutorial and the demo, draw results, photograph pages.

    python docs/pictures.py FOLDER     (a new folder for the runs; needs Chromium in PATH)

Images: img2d.tif of stardist, BSD-3-Clause.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageDraw, ImageFont

from septum.core.overlay import overlay, to_rgb
from septum.experiments.demo import nuclei

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
Change = Callable[[str], str]


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks of a page, in order, each with its language ('' for commands)."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_tutorial(folder: Path, change: Change = str) -> dict[str, str]:
    """Run the Python and the commands of docs/tutorial.md in `folder`; what each command printed."""
    printed = {}
    for language, code in code_blocks((DOCS / "tutorial.md").read_text(encoding="utf-8")):
        if language == "python":
            subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
        for line in [] if language else code.splitlines():
            words = shlex.split(change(line), comments=True)[1:]
            print("septum", *words, flush=True)
            command = [sys.executable, "-m", "septum", *words]
            done = subprocess.run(
                command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            printed[words[0]] = "".join(line for line in done.stdout.splitlines(True) if "━" not in line)  # bars
    return printed


def enlarged(image: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """An image (Y, X) as RGB, twice as large, with its objects in colours if there are labels."""
    large = np.kron(image, np.ones((2, 2), image.dtype))[None]
    return to_rgb(large) if labels is None else overlay(large, np.kron(labels, np.ones((2, 2), labels.dtype)))


def side_by_side(panels: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Panels in a row, each under its caption."""
    gap, head = 12, 34
    height, width = max(panel.shape[0] for _, panel in panels), sum(panel.shape[1] + gap for _, panel in panels) - gap
    picture = Image.new("RGB", (width, height + head), "white")
    x = 0
    for caption, panel in panels:
        ImageDraw.Draw(picture).text((x, 4), caption, fill="black", font=ImageFont.load_default(22))
        picture.paste(Image.fromarray(panel), (x, head))
        x += panel.shape[1] + gap
    return picture


def photograph(page: Path, part: slice) -> Image.Image:
    """Rows of an HTML page, as Chromium shows it, in a window of 1,100 pixels; rows count from the end if negative."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("pictures of pages need Chromium or Chrome in PATH")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,8000"]
        command = [browser, *options, f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        pixels = np.asarray(Image.open(shot).convert("RGB"))
    used = np.flatnonzero((pixels != pixels[-1, -1]).any((1, 2)))  # the page ends where only background follows
    return Image.fromarray(pixels[: used[-1] + 30][part])


def save(picture: Image.Image, name: str) -> None:
    """Write a picture of at most 1,100 pixels' width for the pages."""
    picture.thumbnail((1100, 1100))
    picture.save(PICTURES / name, quality=75, method=6)
    print(f"{name}: {(PICTURES / name).stat().st_size / 1000:.0f} KB")


def run_all(folder: Path) -> None:
    """Run the tutorial and the demo in `folder`, and keep what the tutorial's page shows of their output."""
    for name, text in run_tutorial(folder).items():
        if name in ("check", "train", "evaluate"):
            lines = text.strip().splitlines()
            shown = lines if len(lines) < 20 else [*lines[:8], "...", *lines[-5:]]
            (PICTURES / f"{name}.txt").write_text("\n".join([*shown, ""]), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "septum", "demo", "--output", "demo", "--quiet"], cwd=folder, check=True)


def draw_all(folder: Path) -> None:
    """Write docs/pictures/ from what `run_all` has left in `folder`."""
    image, labels = nuclei()
    left, right = np.hsplit(image[0], 2)
    found = tifffile.imread(folder / "demo" / "right_half_labels.tif")
    part = slice(130, 430)  # rows
    result = [
        ("annotated", enlarged(left[part], np.hsplit(labels, 2)[0][part])),
        ("new", enlarged(right[part])),
        ("found", enlarged(right[part], found[part])),
    ]
    save(side_by_side(result), "result.webp")
    pairs = [
        (tifffile.imread(folder / f"cells/images/{n}.tif"), tifffile.imread(folder / f"cells/labels/{n}.tif"))
        for n in "ab"
    ]
    panels = [
        (f"{n}.tif", np.hstack([enlarged(i), enlarged(i, drawn)])) for n, (i, drawn) in zip("ab", pairs, strict=True)
    ]
    save(side_by_side(panels), "training.webp")
    new, masks = (tifffile.imread(folder / path) for path in ("new/c.tif", "masks/c_labels.tif"))
    found_in_new = [("new/c.tif", enlarged(new[part])), ("masks/c_labels.tif", enlarged(new[part], masks[part]))]
    save(side_by_side(found_in_new), "prediction.webp")
    save(photograph(folder / "run" / "report.html", slice(1050)), "report.webp")
    save(photograph(folder / "errors.html", slice(-1455, -400)), "tutorial-errors.webp")


if __name__ == "__main__":
    kept = Path(sys.argv[1])
    kept.mkdir(parents=True)
    run_all(kept)
    draw_all(kept)
