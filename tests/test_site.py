"""The site: links that leave docs/, generated pages, no resource from another server, a tutorial that runs."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from mkdocs.exceptions import PluginError

from septum import cli
from septum.config import TrainConfig, paper_2015
from septum.report.settings import dotted

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(cli.app)


def module(name):
    """A module of docs/, which is no package."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    return loaded


hooks = module("hooks")


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://unpkg.com/a.js"></script>',
        "<link rel=stylesheet href=//fonts.googleapis.com/css>",
        '<img alt="a" src="http://example.org/a.png">',
        "@font-face { src: url('https://example.org/a.woff2') }",
        '@import "https://example.org/a.css";',
    ],
)
def test_what_a_browser_would_fetch_from_another_server_is_found(html):
    assert hooks.external_references(html) == [hooks.LOADED.search(html)[0]]


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://arxiv.org/abs/1505.04597">paper</a>',
        '<script src="assets/a.js"></script>',
        "@font-face { src: url(../fonts/a.woff2) }",
    ],
)
def test_links_and_local_files_are_no_external_resources(html):
    assert hooks.external_references(html) == []


def test_a_site_that_loads_from_another_server_is_refused(tmp_path):
    (tmp_path / "good.html").write_text('<img src="a.png">', encoding="utf-8")
    hooks.on_post_build(SimpleNamespace(site_dir=tmp_path))
    (tmp_path / "style.css").write_text("@import 'https://example.org/a.css';", encoding="utf-8")
    with pytest.raises(PluginError, match=r"style\.css loads from another server: @import"):
        hooks.on_post_build(SimpleNamespace(site_dir=tmp_path))


@pytest.mark.parametrize(
    ("page", "link", "on_site"),
    [
        ("docs/results.md", "../benchmarks/results/a.json", "benchmarks/results/a.json"),
        ("docs/results.md", "data.md", "data.md"),
        ("ARCHITECTURE.md", "docs/baseline.md", "baseline.md"),
        ("benchmarks/README.md", "../docs/data.md", "../data.md"),
        ("benchmarks/README.md", "results/a.json", "results/a.json"),
        ("docs/data.md", "https://example.org/a", "https://example.org/a"),
    ],
)
def test_links_between_files_lead_to_the_same_files_on_the_site(page, link, on_site):
    assert (
        hooks.relink(f"[text]({link}#part) and [more]({link})", page) == f"[text]({on_site}#part) and [more]({on_site})"
    )


def test_every_option_of_every_command_is_in_the_command_reference():
    sections = dict(part.split("\n", 1) for part in hooks.command_reference(cli.app).split("## septum ")[1:])
    commands = {name: command for name, command in COMMANDS.commands.items() if name != "data"}
    commands |= {f"data {name}": command for name, command in COMMANDS.commands["data"].commands.items()}
    assert set(sections) == set(commands)
    for name, command in commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        options = {option for each in command.params if each.param_type_name == "option" for option in each.opts}
        assert {option for option in options if option not in sections[name]} == set()
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        assert all(f"| `{each.get_help_record(context)[0]}" in sections[name] for each in arguments)


def test_every_setting_is_in_the_reference_with_its_values():
    lines = hooks.settings_reference().splitlines()
    table = dict(line.strip("| ").split(" | ", 1) for line in lines[2:])
    assert set(table) == {f"`{name}`" for name in dotted(TrainConfig(unet=paper_2015()).model_dump())}
    assert table["`weight_map.balance`"].startswith("frequency, freiburg, none | ")
    assert table["`unet.relu_after_up`"].startswith("true, false | ")
    assert table["`learning_rate`"].startswith("number | ")
    assert table["`steps`"].startswith("whole number, none | ")


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run(tmp_path):
    printed = module("pictures").run_tutorial(tmp_path, lambda line: line.replace("--steps 300", "--steps 2"))
    assert list(printed) == ["check", "train", "report", "predict", "evaluate"]
    results = ["run/report.html", "masks/c_labels.tif", "masks/c_probabilities.tif", "masks/c_overlay.png"]
    for file in [*results, "masks/objects.csv", "errors.html"]:
        assert (tmp_path / file).is_file()
    assert "F1" in printed["evaluate"]
