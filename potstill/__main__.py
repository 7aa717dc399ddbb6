"""The console script: ``potstill train --strategy ot --data starter`` does what ``python train.py`` does."""

from __future__ import annotations

import sys
from importlib import import_module

from foundations.checks import did_you_mean
from foundations.commands import run_main
from foundations.errors import InputError
from potstill import __version__

COMMANDS = {
    "train": ("lightning_modules.commands.train", "distil a teacher into a student"),
    "evaluate": ("lightning_modules.commands.arguments", "score a checkpoint or a TREC run again"),
    "compare": ("lightning_modules.commands.arguments", "compare runs, with intervals and significance tests"),
    "baseline": ("lightning_modules.commands.arguments", "BM25, fusion of runs, reranking"),
    "search": ("lightning_modules.commands.arguments", "index a collection, and search it"),
    "export": ("lightning_modules.commands.arguments", "write a student as a folder of sentence-transformers"),
    "sweep": ("studies.sweep", "run the cells of a grid: strategies x noise x languages x seeds"),
    "report": ("studies.report", "tables, curves and a page about the runs of a study"),
    "list": ("potstill.about", "strategies, datasets, students, models, configs"),
    "doctor": ("potstill.about", "versions, devices, disk, caches, npm: whether this machine has what a run needs"),
}
"""Command -> the module that has a function of that name, and what it does."""
_FUNCTIONS = {"list": "names"}
"""Commands whose name is taken in Python."""


def potstill(arguments: list[str]) -> int | None:
    """Run a command.

    Args:
        arguments: its name, and its own arguments.

    Returns:
        The exit status, if the command gave one.

    Raises:
        InputError: there is no such command, or the command raised it.
    """
    name = arguments[0] if arguments else "--help"
    if name == "--version":
        print(f"potstill {__version__}")
    elif name in ("-h", "--help"):
        lines = [f"  {command:<10}{text}" for command, (_, text) in COMMANDS.items()]
        print("usage: potstill COMMAND [options]\n", *lines, sep="\n")
        print("\npotstill COMMAND --help shows the options of one; potstill --version the version.")
    elif name not in COMMANDS:
        raise InputError(f"unknown command {name!r}{did_you_mean(name, COMMANDS)}\ncommands: {', '.join(COMMANDS)}")
    else:
        status: int | None = getattr(import_module(COMMANDS[name][0]), _FUNCTIONS.get(name, name))(arguments[1:])
        return status
    return None


def main() -> None:
    """Entry point."""
    command = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in COMMANDS else ""
    run_main(f"potstill {command}".rstrip(), potstill)


if __name__ == "__main__":
    main()
