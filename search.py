"""Index a collection with a run's student or teacher, and search it.

python search.py index runs/mmarco-hi-ot-seed0 documents.tsv --output index/
torchrun --nproc_per_node 8 search.py index runs/mmarco-hi-ot-seed0 documents.jsonl --output index/ --side teacher
python search.py query index/ queries.tsv --run runs/mmarco-hi-ot-seed0 --output hindi.run
python search.py query index/ --text "maji ni uhai" --run runs/mmarco-hi-ot-seed0
"""

from __future__ import annotations

from foundations.commands import run_main
from lightning_modules.commands.search import search_parser


def run(arguments: list[str]) -> None:
    """Run with the given command line arguments."""
    parser = search_parser(__doc__ or "")
    options = parser.parse_args(arguments)
    if options.command == "query":
        if (options.queries is None) == (options.text is None):
            parser.error("expected either a file of queries or --text")
        if options.output is None and options.text is None:
            parser.error("expected --output, the run to write")
        if options.score == "maxsim" and options.index != "exact":
            parser.error("--score maxsim needs --index exact")
        if options.k is None:
            options.k = 1000 if options.text is None else 10
    from lightning_modules.commands.search import build, query

    build(options) if options.command == "index" else query(options)


def main() -> None:
    """Entry point."""
    run_main("search.py", run)


if __name__ == "__main__":
    main()
