"""The page about Python runs from top to bottom, and what it trains has learned something."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_page_about_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    names = {}
    for block in re.finditer(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        line = page[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(PAGE), "exec"), names)  # errors name the line of the page
    for sample, image, labels in zip(names["samples"], names["images"], names["labels"], strict=True):
        np.testing.assert_array_equal(sample.image, image[None])
        np.testing.assert_array_equal(sample.labels, labels)
    assert len(names["losses"]) == 20
    assert len(names["scores"]) > 1
    assert names["f1"] == names["scored"].per_threshold[0].f1 > 0.3
    assert not np.array_equal(names["averaged"].probabilities, names["prediction"].probabilities)
    assert np.mean(names["own_losses"][-3:]) < np.mean(names["own_losses"][:3]) / 2
    found = names["metrics"].match(names["labels"][3], names["found"])
    assert found.scores.per_threshold[0].f1 > 0.3
