"""The options of search.py; nothing heavy is imported here."""

from __future__ import annotations

import argparse

from lightning_modules.front_door import Parser


def search_parser(description: str) -> Parser:
    """The options of the command line.

    Args:
        description: shown by ``--help``.
    """
    options = Parser("search.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = options.add_subparsers(dest="command", required=True, metavar="index|query")
    index = commands.add_parser("index", help="encode a collection; goes on where an earlier start was interrupted")
    index.add_argument("run", help="run folder that train.py wrote")
    index.add_argument("documents", help="id<TAB>text, or JSONL with id and text")
    index.add_argument("--output", required=True, help="folder to write")
    index.add_argument("--dtype", choices=["fp32", "fp16"], default="fp32", help="of the vectors on disk (fp32)")
    index.add_argument("--tokens", action="store_true", help="token vectors as well, for --score maxsim")
    index.add_argument("--block", type=int, help="texts in a block (50000; 5000 with --tokens)")
    index.add_argument("--batch-size", type=int, default=256, help="texts that are encoded together (256)")
    query = commands.add_parser("query", help="search, and write a TREC run")
    query.add_argument("folder", help="what index wrote")
    query.add_argument("queries", nargs="?", help="id<TAB>text, or JSONL with id and text")
    query.add_argument("--text", help="one query; prints what is found")
    query.add_argument("--run", required=True, help="run folder whose student reads the queries")
    query.add_argument("--output", help="TREC run to write")
    query.add_argument("--k", type=int, help="documents for each query (1000; 10 with --text)")
    query.add_argument("--score", choices=["pooled", "maxsim"], default="pooled", help="one vector a text, or tokens")
    query.add_argument("--memory-mb", type=int, default=512, help="memory for the blocks of exact search (512)")
    query.add_argument("--index", choices=["exact", "flat", "ivf", "hnsw"], default="exact", help="others are FAISS")
    for name, what in (("nlist", "ivf: clusters"), ("nprobe", "ivf: clusters to search"), ("ef-search", "hnsw")):
        query.add_argument(f"--{name}", type=int, help=f"{what} (by the size of the collection)")
    query.add_argument("--m", type=int, default=32, help="hnsw: links of a document (32)")
    for command in (index, query):
        side = "documents" if command is index else "queries"
        command.add_argument("--side", choices=["student", "teacher"], default="student", help=f"who reads the {side}")
        command.add_argument("--checkpoint", help="checkpoint file (checkpoints/best.ckpt of the run)")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda:0 and so on")
    return options
