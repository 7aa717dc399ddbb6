"""The hybrid score: pooled vectors, MaxSim and BM25, each standardised over all documents, in a weighted sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from datamodules.images import is_image
from foundations.cache import Array
from foundations.checks import check_choice
from foundations.errors import InputError
from foundations.files import read_json
from foundations.progress import delayed_progress
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.encoding import EncodedTexts, encode, encoder_of
from lightning_modules.students.base import TextSide
from retrieval.collection import Collection, Run
from retrieval.index.bm25 import BM25
from retrieval.index.exact import TopDocuments, spans
from retrieval.index.search import score_all, to_run
from retrieval.index.shards import Shards
from retrieval.index.tokens import TokenMatrix
from retrieval.metrics import evaluate_run, mean_over_queries
from strategies.functional import Marginals

Weights = Mapping[str, float]
"""``pooled``, ``maxsim`` and ``bm25`` -> weight; what is missing does not count."""

DEFAULT_WEIGHTS: Weights = {"pooled": 1.0, "maxsim": 0.5, "bm25": 0.15}
HYBRID_FILE = "hybrid.json"
"""In a run folder: the weights that were chosen on dev."""
MOST_DOCUMENTS = 1_000_000
"""Documents of which BM25 is held in memory, beside an index."""
GRID: Sequence[Weights] = [
    {"pooled": pooled, "maxsim": maxsim, "bm25": bm25}
    for pooled, maxsim, bm25 in product((1.0, 0.0), (0.0, 0.25, 0.5, 1.0), (0.0, 0.05, 0.15, 0.3, 0.5, 1.0))
    if pooled or maxsim == 1
]
"""The weights that are tried on dev."""
_CELLS = 1 << 24
"""Scores of one kind that are in memory at once."""


@dataclass(frozen=True)
class Hybrid:
    """The score w_pooled z(pooled) + w_maxsim z(MaxSim) + w_bm25 z(BM25), where z standardises over all documents.

    z subtracts the mean over all N documents of a query, and divides by the deviation. BM25 reads the query as it
    is written.

    Args:
        engine: BM25 of all the documents.
        texts: query id -> text.
        weights: MaxSim counts only where both sides were encoded with tokens.
    """

    engine: BM25 = field(repr=False)
    texts: Mapping[str, str] = field(repr=False)
    weights: Weights = field(default_factory=lambda: DEFAULT_WEIGHTS)

    def search(
        self, queries: EncodedTexts, documents: EncodedTexts | Shards, k: int, memory_mb: int = 256
    ) -> tuple[Tensor, Tensor]:
        """The first k documents of each query, exactly: scores and positions, both (Q, min(k, N))."""
        used = [name for name, weight in self.weights.items() if weight]
        top = TopDocuments(len(queries.ids), k, documents.ids, len(documents.ids), torch.device("cpu"))
        everything = torch.arange(len(documents.ids))
        for rows, parts in self.parts(queries, documents, used, memory_mb):
            top.add(rows, weighted_sum(parts, self.weights), everything)
        return top.result()

    def search_words(self, k: int) -> Run:
        """The first k documents of each query by BM25 alone; see `BM25.search`."""
        return self.engine.search(self.texts, k)

    def parts(
        self, queries: EncodedTexts, documents: EncodedTexts | Shards, used: Sequence[str], memory_mb: int = 256
    ) -> Iterator[tuple[slice, dict[str, Array]]]:
        """Standardised scores of blocks of queries with all documents: kind -> (q, N), float64."""
        positions = {name: number for number, name in enumerate(self.engine.document_ids)}
        columns = torch.tensor([positions[name] for name in documents.ids])
        with delayed_progress("search", len(queries.ids)) as advance:
            for rows in spans(len(queries.ids), max(1, _CELLS // len(documents.ids))):
                block = queries.select(range(rows.start, rows.stop))
                scores: dict[str, Tensor] = {}
                if "pooled" in used:
                    pooled = [documents.pooled] if isinstance(documents.pooled, Tensor) else documents.pooled
                    scores["pooled"] = score_all(block.pooled, pooled, memory_mb)
                if "maxsim" in used and block.tokens is not None and documents.tokens is not None:
                    tokens = [documents.tokens] if isinstance(documents.tokens, TokenMatrix) else documents.tokens
                    scores["maxsim"] = score_all(block.tokens, tokens, memory_mb)
                if "bm25" in used:
                    scores["bm25"] = self.engine.score_all([self.texts[name] for name in block.ids])[:, columns]
                yield rows, {name: standardised(each) for name, each in scores.items()}
                advance(len(block.ids))


def lexical_runs(
    hybrid: Hybrid, queries: EncodedTexts, documents: EncodedTexts | Shards, score: str, k: int
) -> dict[str, Run]:
    """The lists of the rows ``bm25`` and, unless that is the student's own score, ``hybrid``."""
    runs = {"bm25": hybrid.search_words(k)}
    if score != "hybrid":
        runs["hybrid"] = to_run(*hybrid.search(queries, documents, k), queries.ids, documents.ids)
    return runs


def is_of_texts(collection: Collection) -> bool:
    """Whether BM25 can search a collection: it has no image, of which the first text says, and no views."""
    first = [next(iter(collection.texts(side).values()), "") for side in get_args(TextSide)]
    return not collection.views and not any(map(is_image, first))


def standardised(scores: Tensor) -> Array:
    """Scores with mean 0 and deviation 1 in each row, zeros where all are equal; (Q, N), float64.

    NumPy sums each row in the same order whatever the number of rows, so the result does not depend on the blocks.
    """
    values: Array = scores.double().numpy()
    values = values - values.mean(axis=1, keepdims=True)
    deviation = np.sqrt((values * values).mean(axis=1, keepdims=True))
    result: Array = values / np.where(deviation > 0, deviation, 1)
    return result


def weighted_sum(parts: Mapping[str, Array], weights: Weights) -> Tensor:
    """The hybrid score, (Q, N), float32."""
    terms = [weights.get(name, 0.0) * each for name, each in parts.items()]
    return torch.from_numpy(np.sum(terms, axis=0).astype(np.float32))


def stored_weights(folder: Path | None) -> tuple[Weights, Marginals | None]:
    """The weights that were chosen for a run, and what MaxSim's query tokens counted then; else the defaults.

    Raises:
        InputError: the file holds something else.
    """
    path = None if folder is None else folder / HYBRID_FILE
    if path is None or not path.is_file():
        return DEFAULT_WEIGHTS, None
    try:
        content: Any = read_json(path)
        kind: Marginals = content["token_weights"]
        check_choice("token_weights", kind, get_args(Marginals))
        return {name: float(content["weights"][name]) for name in DEFAULT_WEIGHTS}, kind
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("expected weights and token_weights as baseline.py tune writes them", path) from error


def try_weights(
    module: DistillationModule, collections: Sequence[Collection], metric: str, k: int, token_weights: Marginals
) -> list[tuple[Weights, float]]:
    """All weights of the `GRID`, and the mean over the collections of a metric, the best first.

    Args:
        module: student and teacher, with the weights to use.
        collections: of texts, ``dev`` of each language.
        metric: see `retrieval.metrics.parse_metric`.
        k: documents that are ranked for each query.
        token_weights: how much the query's tokens count in MaxSim.
    """
    values: list[list[float]] = [[] for _ in GRID]
    for collection in collections:

        def encoded(side: TextSide, collection: Collection = collection) -> EncodedTexts:
            encoder = encoder_of(module, module.reader_of(collection, side))
            return encode(encoder, collection.texts(side), side, tokens=True, token_weights=token_weights)

        queries, documents = encoded("queries"), encoded("documents")
        runs: list[Run] = [{} for _ in GRID]
        hybrid = Hybrid(BM25(collection.documents), collection.queries)
        for rows, parts in hybrid.parts(queries, documents, list(DEFAULT_WEIGHTS)):
            ids = queries.ids[rows]
            for number, weights in enumerate(GRID):
                top = TopDocuments(len(ids), k, documents.ids, len(documents.ids), torch.device("cpu"))
                top.add(slice(0, len(ids)), weighted_sum(parts, weights), torch.arange(len(documents.ids)))
                runs[number] |= to_run(*top.result(), ids, documents.ids)
        for value, run in zip(values, runs, strict=True):
            value.append(mean_over_queries(evaluate_run(run, collection.qrels, [metric]))[metric])
    trials = [(weights, fmean(each)) for weights, each in zip(GRID, values, strict=True)]
    return sorted(trials, key=lambda trial: (-trial[1], sum(trial[0].values())))
