"""Export a run's student: a folder that sentence-transformers opens.

python export.py runs/starter-sw-ot-seed0 --to exported    # --help has more
"""

from __future__ import annotations

from foundations.commands import run_main
from lightning_modules.commands.arguments import export


def main() -> None:
    """Entry point."""
    run_main("export.py", export)


if __name__ == "__main__":
    main()
