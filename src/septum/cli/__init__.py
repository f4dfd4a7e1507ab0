"""The command line: parses, calls one function, prints, sets the exit code."""

from septum.cli.commands import app, main

__all__ = ["app", "main"]
