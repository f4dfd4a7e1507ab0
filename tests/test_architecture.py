"""The documents say what is there: files, names, layers, links, commands, settings."""

import ast
import functools
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

import septum
from septum import cli
from septum.cli import arguments
from septum.config import TtaConfig
from septum.data.dataset import from_arrays
from septum.training.recipe import recipe
from septum.words import parse_duration

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "septum"
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BASELINE = (ROOT / "docs" / "baseline.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
TEXT = "\n".join(PAGES.values())
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMMANDS = typer.main.get_command(cli.app)


def fenced(text, language=""):
    """The code blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def named_files(text):
    return set(re.findall(r"[\w./]*\w\.(?:py|toml|jinja)\b(?!\.)", text))


def path_of(name):
    return next((place / name for place in (SOURCE, ROOT) if (place / name).is_file()), None)


@functools.cache
def paper_recipe():
    labels = np.kron([[1, 0, 2]], np.ones((8, 8), int))
    return recipe("paper", from_arrays([1.0 * labels], [labels]), torch.device("cpu"))


def lines_of_commands():
    """Every call of septum in the code of the README and of docs/, and in the examples of --help."""
    lines = [line for block in fenced(TEXT) for line in block.splitlines()]
    for here in [*COMMANDS.commands.values(), *COMMANDS.commands["data"].commands.values()]:
        lines += [line.strip() for line in (here.epilog or "").splitlines()]
    lines += [inner for line in lines for inner in re.findall(r"\$\((.*?)\)", line)]
    calls = [re.sub(r"\$\(.*?\)", "FOLDER", re.split(r"\s#", line)[0]) for line in lines if line.startswith("septum ")]
    return sorted(set(calls))


def command_of(words):
    """The command that words such as ``data get isbi2012`` call, and the arguments that are left."""
    here = COMMANDS
    while hasattr(here, "commands"):
        assert words, "septum alone does nothing"
        assert words[0] in here.commands, f"there is no command {words[0]}"
        here, words = here.commands[words[0]], words[1:]
    return here, words


def test_every_file_that_the_architecture_names_exists():
    assert {name for name in named_files(ARCHITECTURE) if path_of(name) is None} == set()


def test_every_file_of_the_source_has_a_line_in_the_architecture():
    listed = "\n".join(fenced(ARCHITECTURE))
    files = [path for path in SOURCE.rglob("*") if path.suffix in (".py", ".jinja") and path.stat().st_size]
    assert {path.relative_to(SOURCE).as_posix() for path in files} - named_files(listed) == set()


@pytest.mark.parametrize("document", [ARCHITECTURE, BASELINE], ids=["architecture", "baseline"])
def test_every_name_that_a_document_points_at_is_defined_there(document):
    pointers = re.findall(r"([\w/]+\.py)::(\w+)", document)
    assert len(pointers) > 20
    for file, name in pointers:
        text = path_of(file).read_text(encoding="utf-8")
        assert re.search(rf"^(def |class |){name}\b", text, re.MULTILINE), f"{file} defines no {name}"


def test_every_test_that_the_baseline_names_exists():
    named = set(re.findall(r"`(test_\w+)`", BASELINE))
    assert len(named) > 20
    defined = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    assert named - set(re.findall(r"^def (test_\w+)", defined, re.MULTILINE)) == set()


def test_the_picture_shows_the_layers_that_import_linter_enforces():
    rows = re.findall(r"^((?:\w+(?:/|\.py)(?: \| )?)+) ", fenced(ARCHITECTURE)[0], re.MULTILINE)
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    assert [re.findall(r"(\w+)(?:/|\.py)", row) for row in rows] == [
        re.findall(r"septum\.(\w+)", layer) for layer in contract["layers"]
    ]


def test_every_dependency_is_in_the_table_with_its_licence():
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", ARCHITECTURE.split("## Dependencies")[1], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"[\w-]+", re.sub(r"\(.*?\)", "", row))}
    assert {re.match(r"[\w-]+", one)[0] for one in wanted} - named == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files_and_headings(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), f"{document.name} links to {link}"
        if heading:
            titles = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_number_is_left_open(document):
    assert re.findall(r"\{\{\w+\}\}", document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("line", lines_of_commands())
def test_commands_are_understood(line):
    command, words = command_of(shlex.split(line)[1:])
    given = command.make_context(command.name, words).params  # refuses unknown options and missing arguments
    if given.get("budget"):
        parse_duration(given["budget"])
    TtaConfig.of(given.get("tta"))
    paper_recipe().with_changes(arguments.parse_settings(list(given.get("settings", ()))))


def test_options_that_the_text_names_exist():
    calls = [words.split() for words in re.findall(r"`septum ((?:[\w./*-]+ ?)+)`", TEXT)]
    assert any("--final" in words for words in calls)
    for words in calls:
        if words == ["--help"]:
            continue
        command, rest = command_of(words)
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in rest if word.startswith("-")} <= known, words
    every = {option for command in COMMANDS.commands.values() for p in command.params for option in p.opts}
    assert set(re.findall(r"`(--[\w-]+)", TEXT)) <= every | {"--help"}


def test_targets_of_make_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"^make (\w+)", "\n".join(fenced(README)), re.MULTILINE) == ["demo", "test"]
    everywhere = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    named = re.findall(r"(?:^|`)make ([\w-]+)", everywhere, re.MULTILINE)
    assert {"demo", "test", "check", "docs"} <= set(named) <= set(targets)


def test_python_in_the_readme_calls_what_is_there():
    calls = 0
    for block in fenced(README, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert all(hasattr(septum, alias.name) for alias in node.names)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = {"septum": septum, "model": septum.Model}[node.func.value.id]
                signature = inspect.signature(getattr(owner, node.func.attr))
                receiver = [] if owner is septum else [None]
                signature.bind(*receiver, *node.args, **{keyword.arg: None for keyword in node.keywords})
                calls += 1
    assert calls >= 5


def test_settings_of_the_baseline_are_those_of_recipe_paper():
    stated = re.findall(r"`([\w.]+)=([^`]+)`", BASELINE)
    assert {"learning_rate", "schedule", "unet.init", "unet.relu_after_up", "unet.dropout"} <= {
        name for name, _ in stated
    }
    for name, value in stated:
        assert arguments.parse_settings([f"{name}={value}"])[name] == functools.reduce(
            getattr, name.split("."), paper_recipe()
        )
    averaging = re.search(r"`TtaConfig\((.*?)\)`", BASELINE)[1]
    assert dict(re.findall(r"(\w+)=\"?(\w+)", averaging)) == {k: str(v) for k, v in TtaConfig().model_dump().items()}


def test_settings_that_examples_change_exist():
    examples = re.findall(r"--set ([\w.]+=\w+)", TEXT)
    assert examples
    assert paper_recipe().with_changes(arguments.parse_settings(examples)) != paper_recipe()


def test_every_benchmark_has_a_line():
    files = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert files == {Path(name).name for name in named_files(BENCHMARKS)}


def readable_width(line):
    """The characters of a line that a reader of the text sees: without the targets of links."""
    return len(re.sub(r"\]\([^)]*\)", "]", line))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_of_tables_and_of_the_architecture_fit_into_a_terminal(document):
    lines = document.read_text(encoding="utf-8").splitlines()
    limited = lines if document.name == "ARCHITECTURE.md" else [line for line in lines if line.startswith("|")]
    assert [line for line in limited if readable_width(line) > 160] == []


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_pictures_of_the_documents_are_small():
    pictures = list((ROOT / "docs" / "pictures").glob("*.webp"))
    assert pictures
    assert {picture.name for picture in pictures if picture.stat().st_size > 150_000} == set()
