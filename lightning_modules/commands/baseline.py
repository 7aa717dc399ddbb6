"""What baseline.py does: TREC runs of BM25, of fused runs, and of reranked ones."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.text_files import read_rows, read_texts
from foundations.errors import InputError
from foundations.files import write_json
from retrieval.collection import Collection
from retrieval.fusion import linear_fusion, reciprocal_rank_fusion
from retrieval.index.bm25 import BM25, WeightedWords, make_lexicon, translate
from retrieval.trec import read_run, write_run

if TYPE_CHECKING:
    from lightning_modules.cli.cli import PotstillCLI


def bm25(options: Namespace) -> None:
    """Search with BM25; see ``baseline.py bm25 --help``."""
    if (options.folder is None) == (options.queries is None) or (options.queries is None) != (
        options.documents is None
    ):
        raise InputError("expected either a run folder, or --queries FILE and --documents FILE")
    _check_output(options)
    texts: Mapping[str, str]
    documents: Mapping[str, str]
    if options.folder is None:
        texts, documents = read_texts(Path(options.queries)), read_texts(Path(options.documents))
    else:
        from lightning_modules.commands.evaluate import open_run

        collection = _collection(open_run(options.folder), options.collection)
        texts, documents = collection.queries, collection.documents
    if options.translations:
        texts = _translated(texts, Path(options.translations))
    queries: dict[str, str | WeightedWords] = dict(texts)
    if options.lexicon:
        lexicon = make_lexicon(
            (word, text) for _, (word, text) in read_rows(Path(options.lexicon), "word<TAB>translation")
        )
        queries = {query: translate(text, lexicon) for query, text in texts.items()}
    run = BM25(documents, options.k1, options.b).search(queries, options.k)
    if not run:
        raise InputError("no query has a word that is in the documents, so there is nothing to write")
    write_run(options.output, run, "bm25")
    print(f"{options.output}: {len(run):,} of {len(queries):,} queries found something")


def fuse(options: Namespace) -> None:
    """Fuse runs; see ``baseline.py fuse --help``."""
    if len(options.runs) < 2:
        raise InputError(f"found {len(options.runs)} run, expected at least two to fuse")
    weights = options.weights or [1.0] * len(options.runs)
    if len(weights) != len(options.runs):
        raise InputError(f"there are {len(weights)} weights for {len(options.runs)} runs, expected one for each")
    _check_output(options)
    runs = [read_run(path) for path in options.runs]
    if not set(runs[0]).intersection(*runs[1:]):
        warnings.warn("no query is in all of the runs: are they of the same queries?", stacklevel=2)
    if options.method == "rrf":
        fused = reciprocal_rank_fusion(runs, options.k, options.rrf_k, weights)
    else:
        fused = linear_fusion(runs, options.k, weights, options.normalisation)
    write_run(options.output, fused, options.method)
    print(f"{options.output}: {len(fused):,} queries from {len(runs)} runs")


def rerank(options: Namespace) -> None:
    """Rerank a run with a student; see ``baseline.py rerank --help``."""
    _check_output(options)
    run = read_run(options.run)
    if options.depth < 1:
        raise InputError(f"--depth is {options.depth}, expected at least 1")
    from lightning_modules.commands.evaluate import load_weights, open_run, run_options
    from lightning_modules.evaluation.reranking import rerank_run

    path = Path(options.folder) / "checkpoints" / "best.ckpt"
    cli = open_run(options.folder, run_options(options), path)
    collection = _collection(cli, options.collection)
    load_weights(cli.model, path)
    kind = cli.evaluation.query_weights(cli.model.score)
    reranked = rerank_run(cli.model, collection, run, options.depth, options.run, kind)
    write_run(options.output, reranked, "reranked")
    print(f"{options.output}: {len(reranked):,} queries, the first {options.depth} documents of each reranked")


def tune(options: Namespace) -> None:
    """Choose the weights of the hybrid score; see ``baseline.py tune --help``."""
    from lightning_modules.commands.evaluate import load_weights, open_run, run_options
    from lightning_modules.evaluation.hybrid import HYBRID_FILE, try_weights

    path = Path(options.folder) / "checkpoints" / "best.ckpt"
    options.score = "hybrid"
    cli = open_run(options.folder, run_options(options), path)
    data: Any = cli.datamodule
    data.setup("test")
    dev = {name: each for name, each in data.collections.items() if each.split == "dev"}
    cli.evaluation.check(dev, "hybrid")
    load_weights(cli.model, path)
    metric, kind = cli.evaluation.metrics[0], cli.evaluation.query_weights("hybrid")
    trials = try_weights(cli.model.eval(), list(dev.values()), metric, cli.evaluation.k, kind)
    (weights, value), alone = (
        trials[0],
        next(one for each, one in trials if each == {"pooled": 1, "maxsim": 0, "bm25": 0}),
    )
    written = Path(options.folder) / HYBRID_FILE
    tried = [{"weights": dict(each), "value": one} for each, one in trials]
    write_json(written, {"weights": dict(weights), "token_weights": kind, "metric": metric, "tried": tried})
    chosen = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    print(f"{written}: {chosen}: dev {metric} {value:.3f}, pooled alone {alone:.3f}, {len(trials)} weights tried")


COMMANDS: dict[str, Callable[[Namespace], None]] = {"bm25": bm25, "fuse": fuse, "rerank": rerank, "tune": tune}


def _check_output(options: Namespace) -> None:
    """Complain about the output before the work, not after it."""
    path = Path(options.output)
    if path.is_dir() or not path.parent.is_dir():
        raise InputError("expected the name of a file to write, in a folder that exists", path)
    if getattr(options, "k", 1) < 1:
        raise InputError(f"--k is {options.k}, expected at least 1")


def _collection(cli: PotstillCLI, name: str | None) -> Collection:
    """A collection of a run's data; by default the test one."""
    cli.datamodule.setup("test")
    collections: dict[str, Collection] = cli.datamodule.collections  # type: ignore[attr-defined]
    name = name or "test"
    if name not in collections:
        names = ", ".join(collections)
        raise InputError(f"the data have no collection {name!r}; expected --collection with one of {names}")
    return collections[name]


def _translated(texts: Mapping[str, str], path: Path) -> dict[str, str]:
    """The queries with their translations; each must have one."""
    translations = read_texts(path)
    if lacking := [query for query in texts if query not in translations]:
        raise InputError(
            f"no line for the query {lacking[0]!r} ({len(lacking)} of {len(texts)} queries are missing)", path
        )
    return {query: translations[query] for query in texts}
