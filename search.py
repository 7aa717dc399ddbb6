"""Index a collection with a run's student or teacher, and search it.

python search.py index runs/mmarco-hi-ot-seed0 documents.tsv --output index/    # --help has more
"""

from __future__ import annotations

from foundations.commands import run_main
from lightning_modules.commands.arguments import search


def main() -> None:
    """Entry point."""
    run_main("search.py", search)


if __name__ == "__main__":
    main()
