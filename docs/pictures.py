"""Make what the README and the tutorial show: run the tutorial and the demo, draw results, photograph pages.

    python docs/pictures.py [FOLDER]     (FOLDER keeps the runs; needs Chromium in PATH)

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
from skimage.color import label2rgb
from skimage.segmentation import find_boundaries

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
            done = subprocess.run(
                [sys.executable, "-m", "septum", *words], cwd=folder, check=True, capture_output=True, text=True
            )
            printed[words[0]] = done.stdout
    return printed


def in_colour(image: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """An image (Y, X) as RGB, twice as large, with its objects in colours if there are labels."""
    low, high = np.percentile(image, [1, 99.8])
    grey = np.kron(np.clip((image - low) / (high - low), 0, 1), np.ones((2, 2)))
    if labels is None:
        return (255 * np.dstack([grey] * 3)).astype(np.uint8)
    large = np.kron(labels, np.ones((2, 2), int))
    drawn = label2rgb(large, grey, alpha=0.35, bg_label=0)
    drawn[find_boundaries(large, mode="inner")] = 1
    return (255 * drawn).astype(np.uint8)


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


def photograph(page: Path, width: int = 1100, height: int = 1000) -> Image.Image:
    """The top of an HTML page, as Chromium shows it."""
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        sys.exit("pictures of pages need Chromium or Chrome in PATH")
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={width},{height}",
        ]
        shot = Path(folder) / "shot.png"
        subprocess.run(
            [browser, *options, f"--screenshot={shot}", page.resolve().as_uri()], check=True, capture_output=True
        )
        return Image.open(shot).convert("RGB")


def save(picture: Image.Image, name: str) -> None:
    """Write a picture of at most 1,100 pixels' width for the pages."""
    picture.thumbnail((1100, 1100))
    picture.save(PICTURES / name, quality=75, method=6)
    print(f"{name}: {(PICTURES / name).stat().st_size / 1000:.0f} KB")


def make_pictures(folder: Path) -> None:
    """Run everything in `folder` and write docs/pictures/."""
    PICTURES.mkdir(exist_ok=True)
    for name, text in run_tutorial(folder).items():
        if name in ("check", "train", "evaluate"):
            lines = [line.rstrip() for line in text.strip().splitlines()]
            (PICTURES / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "septum", "demo", "--output", "demo", "--quiet"], cwd=folder, check=True)
    image, labels = nuclei()
    left, right = np.hsplit(image[0], 2)
    found = tifffile.imread(folder / "demo" / "right_half_labels.tif")
    result = [
        ("annotated", in_colour(left, np.hsplit(labels, 2)[0])),
        ("new", in_colour(right)),
        ("found", in_colour(right, found)),
    ]
    save(side_by_side(result), "result.webp")
    save(photograph(folder / "demo" / "report.html"), "report.webp")
    pairs = [
        (tifffile.imread(folder / f"cells/images/{n}.tif"), tifffile.imread(folder / f"cells/labels/{n}.tif"))
        for n in "ab"
    ]
    panels = [
        (f"{n}.tif", np.hstack([in_colour(i), in_colour(i, drawn)])) for n, (i, drawn) in zip("ab", pairs, strict=True)
    ]
    save(side_by_side(panels), "training.webp")
    new, masks = (tifffile.imread(folder / path) for path in ("new/c.tif", "masks/c_labels.tif"))
    save(
        side_by_side([("new/c.tif", in_colour(new)), ("masks/c_labels.tif", in_colour(new, masks))]), "prediction.webp"
    )
    save(photograph(folder / "run" / "report.html"), "tutorial-report.webp")
    save(photograph(folder / "errors.html"), "tutorial-errors.webp")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        make_pictures(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            make_pictures(Path(temporary))
