"""Retrieval evaluation as a callback: encode a collection once, merge by id over the ranks, search, score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, get_args

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from datamodules.pairs import TextBatch
from lightning_modules.distillation import DistillationModule
from lightning_modules.encoder import TextSide
from lightning_modules.large_collections import LargeCollections, merge_runs, own_share
from lightning_modules.teacher import Teacher
from lightning_modules.vectors import unit_token_matrix
from retrieval.collection import Collection, Run
from retrieval.metrics import DEFAULT_METRICS, PerQuery, evaluate_run, mean_over_queries, parse_metric
from retrieval.rows import named
from retrieval.search import search, search_tokens, to_run
from retrieval.shards import Shards
from retrieval.tokens import TokenMatrix
from strategies.base import Embeddings

_CHUNK = 256


@dataclass(frozen=True)
class EncodedTexts:
    """The texts of one side of a collection, encoded.

    Args:
        ids: N ids.
        pooled: (N, D).
        tokens: the tokens of the N texts, or None where only pooled vectors are compared.
    """

    ids: list[str]
    pooled: Tensor
    tokens: TokenMatrix | None

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedTexts]) -> EncodedTexts:
        """Parts as one, each id once, in the order of the ids."""
        ids = [name for part in parts for name in part.ids]
        first: dict[str, int] = {}
        for row, name in enumerate(ids):
            first.setdefault(name, row)
        rows = torch.tensor([first[name] for name in sorted(first)])
        tokens = [part.tokens for part in parts if part.tokens is not None]
        merged = TokenMatrix.concatenate(tokens).select(rows) if tokens else None
        return cls(sorted(first), torch.cat([part.pooled for part in parts])[rows], merged)

    def own_share(self) -> EncodedTexts:
        """The texts of this rank: r, r + W, ..."""
        rows = torch.tensor(own_share(range(len(self.ids))), dtype=torch.int64)
        tokens = None if self.tokens is None else self.tokens.select(rows)
        return EncodedTexts([self.ids[row] for row in rows.tolist()], self.pooled[rows], tokens)

    @classmethod
    def from_embeddings(cls, ids: Sequence[str], embeddings: Embeddings) -> EncodedTexts:
        """The vectors of a batch, moved to the CPU; tokens are kept in half precision."""
        tokens = None if embeddings.tokens is None else unit_token_matrix(embeddings)
        return cls(list(ids), embeddings.pooled.detach().float().cpu(), tokens)


@dataclass(frozen=True)
class Result:
    """How one system did on one collection.

    Args:
        means: metric -> mean over the queries.
        per_query: metric -> query id -> value.
        runs: ``pooled`` or ``maxsim`` -> the ranked lists.
    """

    means: dict[str, float]
    per_query: PerQuery
    runs: dict[str, Run]


def encode_with_teacher(
    teacher: Teacher, texts: Mapping[str, str], tokens: bool, side: TextSide = "queries"
) -> EncodedTexts:
    """Encode one side of a collection with the teacher."""
    items = list(texts.items())
    parts = []
    for start in range(0, len(items), _CHUNK):
        ids, chunk = zip(*items[start : start + _CHUNK], strict=True)
        parts.append(EncodedTexts.from_embeddings(ids, teacher.encode(list(chunk), tokens=tokens, side=side)))
    return EncodedTexts.concatenate(parts)


def rank(
    queries: EncodedTexts,
    documents: EncodedTexts | Shards,
    collection: Collection,
    metrics: Sequence[str],
    score: str,
    k: int,
) -> Result:
    """Search and score.

    Args:
        queries: the encoded queries.
        documents: the encoded documents. Where they are shards, the ranks search together, each for some queries.
        collection: gives the judgments.
        metrics: names as in `retrieval.metrics.parse_metric`.
        score: ``pooled``, ``maxsim`` or ``both``; with ``both`` the metrics of MaxSim are named ``maxsim/...``.
        k: documents to retrieve for each query.
    """
    if isinstance(documents, EncodedTexts):
        runs = _search(queries, documents, score, k)
    else:
        runs = merge_runs(_search(queries.own_share(), documents, score, k), queries.ids)
    per_query: PerQuery = {}
    for name, run in runs.items():
        prefix = "maxsim/" if name == "maxsim" and score == "both" else ""
        values = evaluate_run(run, collection.qrels, metrics)
        per_query.update({prefix + metric: by_query for metric, by_query in values.items()})
    return Result(mean_over_queries(per_query), per_query, runs)


def _search(queries: EncodedTexts, documents: EncodedTexts | Shards, score: str, k: int) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    if len(queries.ids) == 0:
        return runs
    bar = isinstance(documents, Shards)
    if score in ("pooled", "both"):
        scores, indices = search(queries.pooled, documents.pooled, k, documents.ids, progress=bar)
        runs["pooled"] = to_run(scores, indices, queries.ids, documents.ids)
    if score in ("maxsim", "both"):
        if queries.tokens is None or documents.tokens is None:
            raise ValueError("MaxSim needs token states, but the texts were encoded without")
        scores, indices = search_tokens(queries.tokens, documents.tokens, k, documents.ids, progress=bar)
        runs["maxsim"] = to_run(scores, indices, queries.ids, documents.ids)
    return runs


class RetrievalEvaluation(Callback):
    """Ranks the collections with what the student encoded, and logs ``dev/map``, ``test/map`` and so on.

    After a test, `results` also has the two rows to compare with: ``undistilled``, the teacher reading both sides
    of the test collection, and ``teacher``, the teacher on the English twin of it, where there is one. With several
    languages, the logs have ``dev/sw/map``, ``dev/so/map`` and their mean ``dev/map``; `results` has ``test/sw``, ...

    Args:
        metrics: what to compute; see `retrieval.metrics.parse_metric`.
        k: documents to retrieve for each query.
        shard_texts: documents up to which a collection is held in memory; those of a larger one are encoded into
            files, spread over the ranks, and searched in blocks.
        undistilled: let the teacher read the student's side of the test as well, for the row to compare with. For
            millions of foreign documents that takes as long as encoding them with the student.

    Raises:
        ValueError: no such metric, or a number is out of range.
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT_METRICS,
        k: int = 100,
        shard_texts: int = 200_000,
        undistilled: bool = True,
    ) -> None:
        self.metrics, self.k, self.undistilled = list(metrics), k, undistilled
        self.large = LargeCollections(shard_texts)
        for metric in self.metrics:
            parse_metric(metric)
        self.results: dict[str, Result] = {}
        self._parts: dict[tuple[str, str], list[EncodedTexts]] = defaultdict(list)
        self._read_by_teacher: dict[tuple[str, str], EncodedTexts | Shards] = {}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Tell the datamodule what not to give."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data.shard_texts, data.undistilled = self.large.most, self.undistilled

    def on_validation_epoch_start(self, *_: Any) -> None:
        """Forget what was encoded with older weights."""
        self._parts.clear()

    def on_test_epoch_start(self, *_: Any) -> None:
        """Forget what was encoded with other weights."""
        self._parts.clear()

    def on_validation_batch_end(self, _: Trainer, __: Any, outputs: Any, batch: TextBatch, *___: Any) -> None:
        """Keep the vectors of a batch."""
        self._parts[batch.collection, batch.side].append(EncodedTexts.from_embeddings(batch.ids, outputs))

    def on_test_batch_end(self, _: Trainer, __: Any, outputs: Any, batch: TextBatch, *___: Any) -> None:
        """Keep the vectors of a batch."""
        self._parts[batch.collection, batch.side].append(EncodedTexts.from_embeddings(batch.ids, outputs))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Rank and log."""
        self._evaluate(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Rank and log, the two rows to compare with as well."""
        self._evaluate(trainer, pl_module)
        collections: dict[str, Collection] = trainer.datamodule.collections  # type: ignore[attr-defined]
        rows = {"test": "undistilled", "english": "teacher"} if self.undistilled else {"english": "teacher"}
        for collection in collections.values():
            row = named(rows.get(collection.split, ""), collection.language)
            if collection.split in rows and row not in self.results:  # the teacher does not change
                self.results[row] = self._rank_with_teacher(trainer, pl_module, collection)

    def _evaluate(self, trainer: Trainer, module: DistillationModule) -> None:
        parts = _merged_over_ranks(dict(self._parts))
        by_language: dict[str, list[dict[str, float]]] = defaultdict(list)
        names = {name for name, _ in parts}
        for name, collection in trainer.datamodule.collections.items():  # type: ignore[attr-defined]
            if name not in names:
                continue
            sides: dict[TextSide, EncodedTexts | Shards] = {
                side: self._side(trainer, module, collection, side, parts.get((name, side)))
                for side in get_args(TextSide)
            }
            result = self._rank(sides, collection, module.score)
            self.results[name] = result
            if collection.language:
                by_language[collection.split].append(result.means)
            self._log(module, name, result.means, bar=not collection.language)
        for split, means in by_language.items():
            average = {metric: fmean(each[metric] for each in means) for metric in means[0]}
            self._log(module, split, average, bar=True)
        self._parts.clear()
        self.large.clean(trainer)

    def _side(
        self,
        trainer: Trainer,
        module: DistillationModule,
        collection: Collection,
        side: TextSide,
        found: EncodedTexts | None,
    ) -> EncodedTexts | Shards:
        """One side of a collection, encoded by whoever reads it; ``found`` is what the student encoded in batches."""
        if found is None:
            return self._teacher_reads(trainer, module, collection, side)
        if side == "documents" and self.large.has(collection):
            return self.large.read(trainer, module, collection, "student")
        return found

    def _log(self, module: DistillationModule, name: str, means: dict[str, float], bar: bool) -> None:
        # Every rank has all vectors, hence the same values; there is nothing to reduce.
        for metric, value in means.items():
            module.log(f"{name}/{metric}", value, prog_bar=bar and metric == self.metrics[0])

    def _rank_with_teacher(self, trainer: Trainer, module: DistillationModule, collection: Collection) -> Result:
        sides = {side: self._teacher_reads(trainer, module, collection, side) for side in get_args(TextSide)}
        return self._rank(sides, collection, module.score)

    def _rank(self, sides: Mapping[TextSide, EncodedTexts | Shards], collection: Collection, score: str) -> Result:
        queries = sides["queries"]
        assert isinstance(queries, EncodedTexts)
        return rank(queries, sides["documents"], collection, self.metrics, score, self.k)

    def _teacher_reads(
        self, trainer: Trainer, module: DistillationModule, collection: Collection, side: TextSide
    ) -> EncodedTexts | Shards:
        """What the teacher makes of one side; the teacher does not change, so this is done once."""
        key = (collection.name, side)
        if key in self._read_by_teacher:
            return self._read_by_teacher[key]
        if side == "documents" and self.large.has(collection):
            self._read_by_teacher[key] = self.large.read(trainer, module, collection, "teacher")
        else:
            texts = collection.queries if side == "queries" else collection.documents
            self._read_by_teacher[key] = encode_with_teacher(module.teacher, texts, module.score != "pooled", side)
        return self._read_by_teacher[key]


def _merged_over_ranks(parts: dict[tuple[str, str], list[EncodedTexts]]) -> dict[tuple[str, str], EncodedTexts]:
    """The texts of all ranks, each once: the ranks' shares were padded by repeating."""
    gathered: list[Any] = [parts]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, parts)
    merged: dict[tuple[str, str], list[EncodedTexts]] = defaultdict(list)
    for share in gathered:
        for key, encoded in share.items():
            merged[key].extend(encoded)
    return {key: EncodedTexts.concatenate(encoded) for key, encoded in merged.items()}
