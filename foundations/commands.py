"""What every command does: parse options without abbreviations, and report bad input in one line."""

from __future__ import annotations

import argparse
import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from foundations.errors import InputError, StoppedError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, in one line, and whose options are not abbreviated.

    Args:
        description: shown by ``--help`` with its line breaks; the docstring of the command.
        options: of `argparse.ArgumentParser`.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        name = Path(sys.argv[0]).name
        if Path(name).stem in ("potstill", "__main__"):
            name = " ".join(["potstill", *sys.argv[1:2]])
        defaults: dict[str, Any] = {"prog": name, "allow_abbrev": False}
        defaults["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(description=inspect.cleandoc(description or ""), **defaults | options)

    def error(self, message: str) -> NoReturn:
        """Raise InputError instead of printing the usage."""
        raise InputError(f"{message} (see --help)")


def run_main(name: str, command: Callable[[list[str]], int | None], arguments: Sequence[str] | None = None) -> None:
    """Run a command: bad input gives its message and exit status 2, and no traceback.

    Args:
        name: what the message begins with.
        command: takes the arguments, and may return an exit status.
        arguments: None for those of the command line.
    """
    # MKL takes fewer threads when the machine is busy, and sums in another order then: runs would not repeat.
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a table in a terminal of ASCII is better than none
    try:
        if status := command(list(sys.argv[1:] if arguments is None else arguments)):
            sys.exit(status)
    except InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except StoppedError as error:
        print(f"{name}: stopped: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
