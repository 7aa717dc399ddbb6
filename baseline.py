"""Baselines beside a neural number: BM25, fusion of runs, reranking. Each writes a TREC run.

python baseline.py bm25 runs/wikiclir-sw-ot-seed0 --translations queries.sw.tsv --output bm25.run
python baseline.py bm25 --queries queries.tsv --documents documents.tsv --output bm25.run
python baseline.py fuse bm25.run runs/wikiclir-sw-ot-seed0/test.pooled.run --output fused.run
python baseline.py rerank runs/wikiclir-sw-ot-seed0 --run bm25.run --output reranked.run
"""

from __future__ import annotations

import argparse

from foundations.commands import Parser, run_main
from foundations.errors import InputError


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    options = Parser("baseline.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = options.add_subparsers(dest="command", metavar="COMMAND", required=True)
    bm25 = commands.add_parser("bm25", help="search the words of the documents")
    bm25.add_argument("folder", nargs="?", help="run folder whose test collection is searched")
    bm25.add_argument("--queries", metavar="FILE", help="id<TAB>text, instead of a run folder")
    bm25.add_argument("--documents", metavar="FILE", help="id<TAB>text, instead of a run folder")
    bm25.add_argument("--translations", metavar="FILE", help="translated queries, id<TAB>text: replace the queries")
    bm25.add_argument("--lexicon", metavar="FILE", help="word<TAB>translation: translate the queries word by word")
    bm25.add_argument("--k1", type=float, default=0.9, help="saturation of repeated words (default %(default)s)")
    bm25.add_argument("--b", type=float, default=0.4, help="discount of long documents (default %(default)s)")
    fuse = commands.add_parser("fuse", help="one run from several")
    fuse.add_argument("runs", nargs="+", metavar="RUN", help="TREC run files, at least two")
    fuse.add_argument("--method", choices=["rrf", "linear"], default="rrf", help="default %(default)s")
    fuse.add_argument("--weights", nargs="+", type=float, metavar="W", help="one for each run (default 1)")
    fuse.add_argument("--normalisation", choices=["min_max", "z", "none"], default="min_max", help="linear: of scores")
    fuse.add_argument("--rrf-k", type=int, default=60, help="rrf: weight / (k + rank) (default %(default)s)")
    rerank = commands.add_parser("rerank", help="score the documents of a run again with a run folder's student")
    rerank.add_argument("folder", help="run folder that train.py wrote")
    rerank.add_argument("--run", required=True, metavar="FILE", help="TREC run to rerank")
    rerank.add_argument("--depth", type=int, default=100, help="first documents to rerank (default %(default)s)")
    rerank.add_argument("--score", choices=["pooled", "maxsim"], help="default: as in training")
    for command in (bm25, rerank):
        command.add_argument("--collection", help="of the run folder's data (default: test)")
    for command in (bm25, fuse):
        command.add_argument("--k", type=int, default=1000, help="documents for each query (default %(default)s)")
    for command in (bm25, fuse, rerank):
        command.add_argument("--output", required=True, metavar="FILE", help="TREC run to write")
    return options


def baseline(arguments: list[str]) -> None:
    """Run one command."""
    options = parser().parse_args(arguments)
    from lightning_modules.commands.baseline import COMMANDS

    try:
        COMMANDS[options.command](options)
    except InputError:
        raise
    except ValueError as error:  # an option out of range
        raise InputError(str(error)) from error


def main() -> None:
    """Entry point."""
    run_main("baseline.py", baseline)


if __name__ == "__main__":
    main()
