"""The options of all scripts but train.py and those of studies, read before anything heavy is imported."""

from __future__ import annotations

import re

from foundations.commands import Parser
from foundations.errors import InputError, as_input_error
from lightning_modules.cli.front_door import class_path, split_options
from lightning_modules.models.trust import trusting

TOKEN_WEIGHTS = ["uniform", "norm", "idf"]
TRUST_HELP = "let the run folder name classes from anywhere, and models with code of their own: it can do what you can"
WEIGHTS_HELP = "how much each token of a query counts in MaxSim (default: as in training)"


def evaluate(arguments: list[str]) -> None:
    """Score a run folder's checkpoint on its test collection, or a TREC run against judgments."""
    parser = Parser(evaluate.__doc__)
    parser.add_argument("folder", nargs="?", help="run folder that train.py wrote")
    parser.add_argument("--checkpoint", help="checkpoint file (default: checkpoints/best.ckpt of the folder)")
    parser.add_argument("--score", choices=["pooled", "maxsim", "both", "hybrid"], help="default: as in training")
    parser.add_argument("--token_weights", choices=TOKEN_WEIGHTS, help=WEIGHTS_HELP)
    parser.add_argument("--run", help="TREC run to score instead of a checkpoint; needs --qrels")
    parser.add_argument("--qrels", help="TREC judgments")
    parser.add_argument("--metrics", nargs="+", help="such as map ndcg@10 (default: those of the run folder)")
    parser.add_argument("--json", help="write means and per-query values to this file")
    parser.add_argument("--text_noise", help="noise in what the student reads of the test, such as keyboard")
    parser.add_argument("--image_noise", help="noise in the images of the test, such as jpeg")
    parser.add_argument("--severity", type=int, help="of the noise, 0 (none) to 5")
    parser.add_argument("--noise_seed", type=int, default=0, help="seed of the noise (default: 0)")
    parser.add_argument("--lexicon", help="word<TAB>translation, for --text_noise code_switch")
    parser.add_argument("--translations", help="text<TAB>machine translation, for --text_noise mt")
    parser.add_argument("--data", metavar="NAME", help="test on another dataset; its options follow as --data.OPTION")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    arguments, data = _take_data_options(arguments)
    options = parser.parse_args(arguments)
    if (options.folder is None) == (options.run is None) or (options.run is None) != (options.qrels is None):
        parser.error("expected either a run folder, or --run FILE and --qrels FILE")
    kinds = options.text_noise or options.image_noise
    if options.run is not None and data:
        parser.error("--data needs a run folder")
    if (kinds is None) != (options.severity is None) or (options.run is not None and kinds is not None):
        parser.error("noise needs a run folder, --severity, and --text_noise or --image_noise")
    from lightning_modules.commands.evaluate import score_checkpoint, score_trec_run

    if options.run is not None:
        score_trec_run(options)
    else:
        with trusting(options.trust):
            score_checkpoint(options, data)


def _take_data_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part a command line of evaluate.py: the others, and the options of another dataset, with its class path."""
    words, others, options, chosen = arguments[::-1], [], [], None
    typed: list[str] = []
    while words:
        word = words.pop()
        if re.match(r"--data(?=[.=]|$)", word):
            typed += [word, *([words.pop()] if "=" not in word and words and not words[-1].startswith("--") else [])]
        else:
            others.append(word)
    for key, value, option in split_options(typed):
        if key != "data":
            options.append(option)
        elif value:
            chosen = class_path(key, value)
        else:
            raise InputError("--data needs the name of a dataset, such as flickr30k_entities")
    if chosen is None and options:
        raise InputError(f"{options[0].partition('=')[0]} is an option of another dataset: name it, --data NAME")
    # The teacher has no need of the pairs, only the vocabulary had, which the checkpoint holds.
    return others, [] if chosen is None else [f"--data={chosen}", "--data.cache_pairs=false", *options]


def baseline(arguments: list[str]) -> None:
    """Baselines beside a neural number: BM25, fusion of runs, reranking. Each writes a TREC run.

    python baseline.py bm25 runs/wikiclir-sw-ot-seed0 --translations queries.sw.tsv --output bm25.run
    python baseline.py bm25 --queries queries.tsv --documents documents.tsv --output bm25.run
    python baseline.py fuse bm25.run runs/wikiclir-sw-ot-seed0/test.pooled.run --output fused.run
    python baseline.py rerank runs/wikiclir-sw-ot-seed0 --run bm25.run --output reranked.run
    python baseline.py tune runs/wikiclir-sw-ot-seed0
    """
    parser = Parser(baseline.__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
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
    fuse.add_argument("--normalisation", choices=["min_max", "z", "none"], default="min_max", help="linear: of "
                      "scores; what a run did not retrieve gets its lowest score of the query")  # fmt: skip
    fuse.add_argument("--rrf-k", type=int, default=60, help="rrf: weight / (k + rank) (default %(default)s)")
    rerank = commands.add_parser("rerank", help="score the documents of a run again with a run folder's student")
    rerank.add_argument("folder", help="run folder that train.py wrote")
    rerank.add_argument("--run", required=True, metavar="FILE", help="TREC run to rerank")
    rerank.add_argument("--depth", type=int, default=100, help="first documents to rerank (default %(default)s)")
    rerank.add_argument("--score", choices=["pooled", "maxsim"], help="default: as in training")
    tune = commands.add_parser("tune", help="choose the weights of --score hybrid on dev, and keep them with the run")
    tune.add_argument("folder", help="run folder that train.py wrote")
    for command in (rerank, tune):
        command.add_argument("--token_weights", choices=TOKEN_WEIGHTS, help=WEIGHTS_HELP)
    for command in (bm25, rerank, tune):
        command.add_argument("--trust", action="store_true", help=TRUST_HELP)
    for command in (bm25, rerank):
        command.add_argument("--collection", help="of the run folder's data (default: test)")
    for command in (bm25, fuse):
        command.add_argument("--k", type=int, default=1000, help="documents for each query (default %(default)s)")
    for command in (bm25, fuse, rerank):
        command.add_argument("--output", required=True, metavar="FILE", help="TREC run to write")
    options = parser.parse_args(arguments)
    from lightning_modules.commands.baseline import COMMANDS

    with as_input_error(), trusting(getattr(options, "trust", False)):
        COMMANDS[options.command](options)


def search(arguments: list[str]) -> None:
    """Index a collection with a run's student or teacher, and search it.

    python search.py index runs/mmarco-hi-ot-seed0 documents.tsv --output index/
    torchrun --nproc_per_node 8 search.py index runs/mmarco-hi-ot-seed0 documents.jsonl --output index/ --side teacher
    python search.py query index/ queries.tsv --run runs/mmarco-hi-ot-seed0 --output hindi.run
    python search.py query index/ --text "maji ni uhai" --run runs/mmarco-hi-ot-seed0
    """
    parser = Parser(search.__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="index|query")
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
    query.add_argument("--score", choices=["pooled", "maxsim", "hybrid"], default="pooled", help="one vector a text, "
                       "tokens, or both with BM25")  # fmt: skip
    query.add_argument("--token_weights", choices=TOKEN_WEIGHTS, help=WEIGHTS_HELP)
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
        command.add_argument("--trust", action="store_true", help=TRUST_HELP)
    options = parser.parse_args(arguments)
    if options.command == "query":
        if (options.queries is None) == (options.text is None):
            parser.error("expected either a file of queries or --text")
        if options.output is None and options.text is None:
            parser.error("expected --output, the run to write")
        if options.score != "pooled" and options.index != "exact":
            parser.error(f"--score {options.score} needs --index exact")
        if options.k is None:
            options.k = 1000 if options.text is None else 10
    from lightning_modules.commands.search import COMMANDS

    with trusting(options.trust):
        COMMANDS[options.command](options)


def export(arguments: list[str]) -> None:
    """Write a run's student as a folder that sentence-transformers opens, without Potstill and without the network.

    python export.py runs/starter-sw-ot-seed0 --to exported
    python export.py runs/starter-sw-ot-seed0 --to tokens --score maxsim --token_weights norm
    python export.py runs/starter-sw-ot-seed0 --to small --int8 --push organisation/swahili-student
    """
    parser = Parser(export.__doc__)
    parser.add_argument("run", help="run folder that train.py wrote")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="to write; it must not exist, or be empty")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="default: %(default)s")
    parser.add_argument("--score", choices=["pooled", "maxsim"], help="a vector a text, or a token (as in training)")
    parser.add_argument("--token_weights", choices=TOKEN_WEIGHTS, help=WEIGHTS_HELP)
    parser.add_argument("--license", metavar="ID", help="for the model card, such as mit (that of the first weights)")
    parser.add_argument("--onnx", action="store_true", help="write onnx/model.onnx as well, for onnxruntime")
    parser.add_argument("--int8", action="store_true", help="and onnx/model_int8.onnx; what it loses is measured")
    parser.add_argument("--push", metavar="NAME", help="upload the folder to the Hugging Face hub under this name")
    parser.add_argument("--private", action="store_true", help="where --push creates it, for your eyes only")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    options = parser.parse_args(arguments)
    from lightning_modules.commands.export import export_run

    with as_input_error(), trusting(options.trust):
        export_run(options)


def compare(arguments: list[str]) -> None:
    """Compare runs: means with intervals, differences to a baseline, paired significance tests.

    python compare.py runs/mse runs/ot                               # the test rows of two run folders
    python compare.py runs/ot:undistilled runs/ot                    # another row of the same folder
    python compare.py runs/sw-ot runs/sw+so-ot:test/sw               # one language of a run on several
    python compare.py a.run b.run --qrels test.qrels --metrics map   # TREC run files
    """
    parser = Parser(compare.__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, FOLDER:ROW[/LANGUAGE], or a TREC run")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="e.g. map ndcg@10 (default: all in common)")
    parser.add_argument("--baseline", metavar="RUN", help="which of the runs the others are compared with (the first)")
    parser.add_argument("--qrels", metavar="FILE", help="relevance judgments, for TREC run files")
    parser.add_argument("--json", metavar="FILE", help="write all numbers to this file as well")
    options = parser.parse_args(arguments)
    from retrieval.compare import print_comparison

    with as_input_error():
        print_comparison(options.runs, options.baseline, options.qrels, options.metrics, options.json)
