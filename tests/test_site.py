"""The build of the site: links that leave docs/, the command reference, no resource from another server."""

import importlib.util
from pathlib import Path

import pytest
import typer

from septum import cli

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(cli.app)
specification = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
hooks = importlib.util.module_from_spec(specification)
specification.loader.exec_module(hooks)


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
