"""How large is the code, how do its packages depend on one another, and how wide are its functions?

Counts the sources of one checkout, this one by default; arrows are imports between the top-level modules and packages.
Run: python benchmarks/structure.py [--checkout ANOTHER]
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import record

WIDEST = 10  # functions that are listed


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of parameters of a function, without self and cls."""
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


def widest_functions(source: Path) -> dict[str, int]:
    """Return the functions with the most parameters, without the command line, whose parameters are options."""
    found = {
        f"{path.relative_to(source).as_posix()}::{node.name}": parameters(node)
        for path in source.rglob("*.py")
        if "cli" not in path.relative_to(source).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return dict(Counter(found).most_common(WIDEST))


def arrows(source: Path) -> list[tuple[str, str]]:
    """Return which top-level package or module of septum imports which."""
    import grimp

    sys.path.insert(0, str(source.parent))
    graph = grimp.build_graph("septum", cache_dir=None)
    found = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            one, other = (name.split(".")[1:2] for name in (importer, imported))
            if one and other and one != other:
                found.add((one[0], other[0]))
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    source = parser.parse_args().checkout / "src" / "septum"
    files = [path for path in source.rglob("*.py") if path.stat().st_size]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    folders = Counter(path.parent.relative_to(source).as_posix() for path in files)
    between = arrows(source)
    results: dict[str, Any] = {
        "lines": sum(lines.values()),
        "files": len(files),
        "largest_folder": dict(folders.most_common(1)),
        "longest_file": {path.relative_to(source).as_posix(): n for path, n in Counter(lines).most_common(1)},
        "arrows_between_packages": len(between),
        "widest_functions": widest_functions(source),
    }
    record.save("structure", settings={"checkout": source.parents[1].name}, results=results, packages=("grimp",))


if __name__ == "__main__":
    main()
