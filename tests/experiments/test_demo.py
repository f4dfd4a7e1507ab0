"""The demo: what it prints and what its report says, on a few simulated cells."""

import pytest
from typer.testing import CliRunner

from septum.cli.commands import app
from septum.data.simulate import cells
from septum.experiments import demo


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "nuclei", lambda: cells((48, 96), 10, 0, diameter=12))
    monkeypatch.setattr(demo, "CHANGES", {"unet.base_channels": 2, "unet.depth": 1, "patch": 16})
    monkeypatch.setattr(demo, "STEPS", 3)


@pytest.mark.parametrize(("limit", "early"), [(1e-6, True), (600.0, False)])
def test_scores_have_names_and_the_report_says_whether_time_was_up(small, monkeypatch, tmp_path, limit, early):
    monkeypatch.setattr(demo, "LIMIT", limit)
    outcome = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "out"), "--quiet"])
    names = [line[:32].strip() for line in outcome.stdout.splitlines()]
    assert names[1:4] == ["panoptic quality", "F1", "mean IoU of matched objects"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("The training ended early. It was slower than estimated: time was up at step 1 of 3" in page) == early
