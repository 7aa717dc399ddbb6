"""Put the table at the end of a run into the README.

python -m benchmarks.demo runs/starter-sw-ot-seed0     after make demo
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

from benchmarks.pages import README, replace_section
from lightning_modules.run.results import print_results


def main() -> None:
    """Write the README's section."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {__doc__.splitlines()[2]}")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        print_results(Path(sys.argv[1]))
    lines = "\n".join(line.rstrip() for line in output.getvalue().strip("\n").splitlines())
    replace_section(README, "python -m benchmarks.demo", f"```text\n{lines}\n```")


if __name__ == "__main__":
    main()
