"""Compare runs: means with intervals, differences to a baseline, paired significance tests.

python compare.py runs/mse runs/ot    # --help has more
"""

from __future__ import annotations

from foundations.commands import run_main
from lightning_modules.commands.arguments import compare


def main() -> None:
    """Entry point."""
    run_main("compare.py", compare)


if __name__ == "__main__":
    main()
