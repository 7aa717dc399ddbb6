"""What every script does: parse options without abbreviations, and report bad input in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from foundations.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, in one line, and whose options are not abbreviated."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage.

        Raises:
            InputError: always.
        """
        raise InputError(f"{message} (see --help)")


def run_main(script: str, main: Callable[[list[str]], None]) -> None:
    """Run a script: bad input gives its message and exit status 2, and no traceback.

    Args:
        script: its name, which the message begins with.
        main: takes the command line arguments.
    """
    # MKL takes fewer threads when the machine is busy, and sums in another order then: runs would not repeat.
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
