"""Steps of the site's build: files outside docs/, the command reference, and a check for external resources."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")  # pages kept outside docs/
LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
LOADED = re.compile(  # what a browser fetches by itself; a plain link <a href> is not fetched
    r"""<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|href|srcset|data)=["']?\s*(?:https?:)?//[^>]*>"""
    r"""|url\(\s*["']?(?:https?:)?//[^)]*\)|@import[^;]*//[^;]*;""",
    re.IGNORECASE,
)


def in_repository(file: File) -> str:
    """The path of a page in the repository."""
    return Path(file.abs_src_path or "").resolve().relative_to(ROOT).as_posix()


def linked_files(path: str) -> set[str]:
    """Files outside docs/, by their path in the repository, that the page at `path` links to."""
    links = LINK.findall((ROOT / path).read_text(encoding="utf-8"))
    targets = {posixpath.normpath(posixpath.join(posixpath.dirname(path), link)) for link in links if ":" not in link}
    return {target for target in targets if not target.startswith("docs/") and (ROOT / target).is_file()}


def relink(markdown: str, path: str) -> str:
    """Links between files of the repository, rewritten for the site, where what is in docs/ is at the top."""
    here = posixpath.dirname(path)

    def on_site(match: re.Match[str]) -> str:
        if ":" in match[0]:
            return match[0]
        target = posixpath.normpath(posixpath.join(here, match[0])).removeprefix("docs/")
        return posixpath.relpath(target, here.removeprefix("docs").removeprefix("/") or ".")

    return LINK.sub(on_site, markdown)


def command_reference(app: typer.Typer) -> str:
    """Every command with its arguments, options and examples, from the text of --help."""
    parts = []

    def describe(command: Any, context: Any) -> None:
        if hasattr(command, "commands"):
            for name in command.list_commands(context):
                inner = command.commands[name]
                describe(inner, type(context)(inner, info_name=name, parent=context))
            return
        rows = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
        examples = [line.strip() for line in (command.epilog or "").splitlines() if "septum" in line]
        parts.extend([f"## {context.command_path}", "", command.help.strip(), "", "```", *examples, "```", ""])
        parts.extend(["| argument or option | meaning |", "|---|---|"])
        parts.extend(f"| `{name}` | {cell(text)} |" for name, text in rows)
        parts.append("")

    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

    group = typer.main.get_command(app)
    describe(group, group.context_class(group, info_name="septum"))
    return "\n".join(parts)


def settings_reference() -> str:
    """Every setting with its values and its meaning."""
    from septum.config import TrainConfig
    from septum.report.settings import MEANINGS

    schema = TrainConfig.model_json_schema()

    def values(name: str) -> str:
        field: Any = schema
        for part in name.split("."):
            while "$ref" in field:
                field = schema["$defs"][field["$ref"].rsplit("/", 1)[1]]
            field = field["properties"][part]
        choices = field.get("anyOf", [field])
        words = {"boolean": "true, false", "integer": "whole number", "number": "number", "null": "none"}
        return ", ".join(", ".join(one["enum"]) if "enum" in one else words[one["type"]] for one in choices)

    rows = [f"| `{name}` | {values(name)} | {meaning} |" for name, meaning in MEANINGS.items()]
    return "\n".join(["| setting | values | meaning |", "|---|---|---|", *rows])


def external_references(text: str) -> list[str]:
    """Parts of an HTML page or a style sheet that make a browser fetch something from another server."""
    return [match[0] for match in LOADED.finditer(text)]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/, and every file that a page links to."""
    inside = [in_repository(file) for file in files.documentation_pages()]
    for path in sorted({*PAGES, *(target for page in [*inside, *PAGES] for target in linked_files(page))}):
        if path == "README.md":
            raise PluginError("a page links to README.md, which is not on the site; link to docs/index.md")
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links; fill the generated pages."""
    if page.file.src_uri == "commands.md":
        from septum import cli

        markdown += "\n\n" + command_reference(cli.app)
    if page.file.src_uri == "settings.md":
        markdown += "\n\n" + settings_reference()
    return relink(markdown, in_repository(page.file))


def on_post_build(config: Any) -> None:
    """Refuse a site that loads scripts, styles, fonts or pictures from elsewhere."""
    for file in sorted(Path(config.site_dir).rglob("*")):
        if file.suffix in (".html", ".css") and (found := external_references(file.read_text(encoding="utf-8"))):
            raise PluginError(f"{file} loads from another server: {found[0]}")
