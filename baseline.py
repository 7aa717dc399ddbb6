"""Baselines in addition to a neural number: BM25, fusion of runs, reranking.

python baseline.py bm25 runs/wikiclir-sw-ot-seed0 --output bm25.run    # --help has more
"""

from __future__ import annotations

from foundations.commands import run_main
from lightning_modules.commands.arguments import baseline


def main() -> None:
    """Entry point."""
    run_main("baseline.py", baseline)


if __name__ == "__main__":
    main()
