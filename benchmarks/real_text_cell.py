"""One run of the benchmark on real text: train on AfriQA's bitext, NTREX and TICO-19, and score the test questions."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cells import build
from datamodules.noise.options import TrainingNoise
from datamodules.pairs import Pair
from datamodules.published.afriqa import AfriQADataModule
from foundations.files import write_whole
from lightning_modules.distillation import DistillationModule, Space
from lightning_modules.evaluation.encoding import encode, encoder_of
from lightning_modules.evaluation.hybrid import standardised, weighted_sum
from lightning_modules.teachers.base import Encoder
from lightning_modules.teachers.whitened import WhitenedTeacher, Whitening
from retrieval.collection import Collection
from retrieval.index.bm25 import BM25
from retrieval.index.exact import TopDocuments
from retrieval.index.search import to_run
from retrieval.index.tokens import TokenMatrix
from retrieval.metrics import evaluate_run

LATE_TEACHER = Path("runs/benchmarks/real_text_late_teacher")
DEPTH = 100
_LONGEST = 80
CHOOSING = "hau"
"""The language that chooses; it is not reported."""
HYBRIDS = [f"{maxsim:g} {bm25:g}" for maxsim, bm25 in product((0, 0.25, 0.5, 1), (0, 0.05, 0.1, 0.15, 0.2, 0.3))]
Scores = dict[str, Tensor]
"""Kind of score -> score of each query with each document, (Q, N)."""

STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "static": (
        "lightning_modules.students.static.StaticEncoder",
        {"model": "starter/e5-small", "vocabulary": "trim", "max_length": 128},
    ),
    "contextual": (
        "lightning_modules.students.transformer.TransformerEncoder",
        {"model": "starter/e5-small", "vocabulary": "trim", "max_length": 128, "layers": 3, "dropout": 0.1},
    ),
}
STUDENTS["late"] = STUDENTS["static"]


@dataclass(frozen=True)
class TextCell:
    """One run.

    Args:
        condition: ``static`` or ``contextual`` student, or ``late``: a static one of a late-interaction teacher.
        row: the strategy as the tables call it.
        strategy: its class path.
        options: its options, as JSON.
        space: the teacher's space, ``plain`` or ``whitened``.
        language: of AfriQA.
        seed: of everything.
        variant: what is done to the pairs, see `VariantData`.
        epochs: passes over the pairs.
        lr: rate of all weights but the token table.
        embedding_lr: rate of the token table.
        english: what the student reads in English.
        hybrid: weights of weighted MaxSim and BM25 beside pooled, "0.5 0.15"; empty tries a grid.
    """

    condition: str
    row: str
    strategy: str
    options: str
    space: Space
    language: str
    seed: int
    variant: str
    epochs: int
    lr: float
    embedding_lr: float
    english: str
    hybrid: str = ""

    @property
    def name(self) -> str:
        """File name; a hash stands for long options."""
        plain = asdict(self) | {"strategy": None}
        if len(self.options) > _LONGEST:
            plain["options"] = hashlib.blake2b(self.options.encode(), digest_size=6).hexdigest()
        values = [str(value) for value in plain.values() if value is not None]
        return "_".join(values).translate({ord(letter): None for letter in ' "{}/:'}).replace(",", "+")


class VariantData(AfriQADataModule):
    """AfriQA with its bitext changed, for the second table.

    Args:
        variant: ``full``; ``words-6``: both sides cut to six words; ``pairs-500``: that many pairs; ``wrong-0.4``: that
            share of wrong pairs; ``truncated``: the second half of each target is missing.
        options: those of the datamodule.
    """

    def __init__(self, variant: str = "full", **options: Any) -> None:
        kind, _, value = variant.partition("-")
        if kind == "wrong":
            options["noise"] = TrainingNoise(rate=float(value))
        elif kind == "pairs":
            options["limit_pairs"] = int(value)
        super().__init__(**options)
        self.kind, self.words = kind, int(value) if kind == "words" and value != "all" else 10**6

    def load_pairs(self) -> list[Pair]:
        """The pairs, cut as the variant says."""
        pairs = super().load_pairs()
        if self.kind == "truncated":
            return [replace(pair, target=_first(pair.target, (len(pair.target.split()) + 1) // 2)) for pair in pairs]
        return [
            replace(pair, source=_first(pair.source, self.words), target=_first(pair.target, self.words))
            for pair in pairs
        ]


def _first(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


def folders(root: Path) -> dict[str, Any]:
    """The options of the data for a folder with AfriQA, NTREX and TICO-19."""
    return {"root": str(root / "afriqa"), "bitext": f"ntrex:{root / 'ntrex'},tico19:{root / 'tico-19'}"}


def teacher_of(condition: str) -> Any:
    """The teacher of a condition, with its cache."""
    from lightning_modules.teachers.cached import CachedTeacher
    from lightning_modules.teachers.online import OnlineTeacher
    from lightning_modules.teachers.run import RunTeacher

    return CachedTeacher(RunTeacher(str(LATE_TEACHER)) if condition == "late" else OnlineTeacher(max_length=256))


def run_cell(cell: TextCell, root: Path) -> dict[str, Any]:
    """Train one cell and score its test questions.

    Returns:
        The cell, seconds of training, number of pairs, and for each score the average precision of each question; where
        the cell has no weights, the mean for each hybrid of a grid.
    """
    from lightning.pytorch import Trainer, seed_everything

    from lightning_modules.cli.cli import TRAINER_DEFAULTS
    from lightning_modules.run.trainer import StepSeed

    seed_everything(cell.seed, verbose=False)
    data = VariantData(cell.variant, language=cell.language, english=cell.english, seed=cell.seed, **folders(root))
    module = DistillationModule(
        build(STUDENTS[cell.condition]),
        teacher_of(cell.condition),
        build((cell.strategy, json.loads(cell.options))),
        lr=cell.lr,
        embedding_lr=cell.embedding_lr,
        score="both",
        space=cell.space,
    )
    trainer = Trainer(
        **{**TRAINER_DEFAULTS, "log_every_n_steps": 1000},
        max_epochs=cell.epochs,
        limit_val_batches=0,
        accelerator="cpu",
        precision="bf16-mixed" if cell.condition == "contextual" else "32-true",
        callbacks=[StepSeed(cell.seed)],
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    began = time.perf_counter()
    trainer.fit(module, datamodule=data)
    seconds = time.perf_counter() - began
    test = data.collections["test"]
    scores = all_scores(encoder_of(module, "student"), encoder_of(module, "teacher"), test)
    result: dict[str, Any] = {"cell": asdict(cell), "seconds": seconds, "pairs": len(data.pairs)}
    if cell.hybrid:
        scores["hybrid"] = hybrid(scores, cell.hybrid)
    else:
        result["hybrids"] = {each: mean(average_precision(hybrid(scores, each), test)) for each in HYBRIDS}
    return result | {"map": {kind: average_precision(each, test) for kind, each in scores.items()}}


def run_baselines(language: str, root: Path) -> dict[str, Any]:
    """What needs no student: BM25, and the teacher on the untranslated and on the English questions.

    Returns:
        Row -> score -> average precision of each question.
    """
    data = AfriQADataModule(language=language, english="documents", **folders(root))
    data.setup()
    test, english = data.collections["test"], data.collections["english"]
    teacher = teacher_of("static")
    space = Whitening()
    space.fit(teacher, (pair.source for pair in data.sample_pairs()))
    whitened = WhitenedTeacher(teacher, space)
    rows = {
        "undistilled": all_scores(teacher, teacher, test),
        "undistilled, whitened": all_scores(whitened, whitened, test),
        "teacher on English": all_scores(teacher, teacher, english),
    }
    del rows["undistilled, whitened"]["bm25"]
    rows |= {
        "BM25, questions as they are": {"bm25": rows["undistilled"].pop("bm25")},
        "BM25, human translations": {"bm25": rows["teacher on English"].pop("bm25")},
    }
    return {
        "language": language,
        "questions": len(test.queries),
        "passages": len(test.documents),
        "map": {
            row: {
                kind: average_precision(each, test, 0.0 if kind == "bm25" else -math.inf)
                for kind, each in scores.items()
            }
            for row, scores in rows.items()
        },
    }


def all_scores(ask: Encoder, hold: Encoder, collection: Collection) -> Scores:
    """The scores of all queries with all documents: pooled, MaxSim, MaxSim weighted by norm, and BM25."""
    queries = encode(ask, collection.queries, "queries", tokens=True, token_weights="norm")
    documents = encode(hold, collection.documents, "documents", tokens=True)
    assert queries.tokens is not None
    assert documents.tokens is not None
    uniform, weighted = token_scores(queries.tokens, documents.tokens)
    engine = BM25({name: collection.documents[name] for name in documents.ids})
    return {
        "pooled": queries.pooled @ documents.pooled.T,
        "maxsim": uniform,
        "weighted": weighted,
        "bm25": engine.score_all([collection.queries[name] for name in queries.ids]),
    }


def token_scores(queries: TokenMatrix, documents: TokenMatrix) -> tuple[Tensor, Tensor]:
    """MaxSim with equal and with the queries' own weights of tokens, (Q, N); in float32, equal tokens once."""
    types, number = queries.values.float().unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    texts = torch.split(documents.values, documents.lengths.tolist())
    best = torch.stack([(types @ each.float().T).amax(1) for each in texts], 1)
    assert queries.weights is not None
    text = torch.arange(len(queries)).repeat_interleave(queries.lengths)
    sums = [
        torch.zeros(len(queries), len(documents)).index_add_(0, text, best[number] * weights[:, None])
        for weights in (torch.ones(len(number)), queries.weights.float())
    ]
    return sums[0] / queries.lengths[:, None], sums[1]


def hybrid(scores: Scores, weights: str) -> Tensor:
    """Pooled, weighted MaxSim and BM25, standardised over all documents, in a weighted sum."""
    maxsim, bm25 = map(float, weights.split())
    parts = {
        name: standardised(scores[kind])
        for name, kind in (("pooled", "pooled"), ("maxsim", "weighted"), ("bm25", "bm25"))
    }
    return weighted_sum(parts, {"pooled": 1.0, "maxsim": maxsim, "bm25": bm25})


def average_precision(scores: Tensor, collection: Collection, above: float = -math.inf) -> dict[str, float]:
    """AP at 100 of each query, from scores of all; documents must score above a bound to be retrieved."""
    queries, documents = sorted(collection.queries), sorted(collection.documents)
    top = TopDocuments(len(queries), DEPTH, documents, len(documents), torch.device("cpu"))
    top.add(slice(0, len(queries)), scores.float(), torch.arange(len(documents)))
    run = to_run(*top.result(), queries, documents)
    kept = {query: {name: score for name, score in found.items() if score > above} for query, found in run.items()}
    values = evaluate_run(kept, collection.qrels, ["map"])["map"]
    return {query: round(value, 6) for query, value in values.items()}


def mean(values: dict[str, float]) -> float:
    """The mean over queries."""
    return sum(values.values()) / len(values)


def write_late_data(root: Path, folder: Path) -> None:
    """English questions and passages as a folder for ``--data tsv``, to train a late-interaction teacher.

    Pairs are the passages and the translated questions of all train splits; the queries are those of the Hausa test.
    """
    passages = "afriqa/data/gold_passages/*/gold_span_passages.afriqa.*.en.train.json"
    pairs = []
    for path in sorted(root.glob(passages)):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["context"]:
                texts = f"{record['title'] or ''} {record['context']}", record["question_translated"]
                pairs.append("\t".join(" ".join(text.split()) for text in texts))
    english = AfriQADataModule(language=CHOOSING, **folders(root)).load()[1]["english"]
    files = {
        "pairs.tsv": pairs,
        "queries.tsv": [f"{key}\t{text}" for key, text in english.queries.items()],
        "documents.tsv": [f"{key}\t{text}" for key, text in english.documents.items()],
        "qrels": [f"{key} 0 {each} 1" for key, found in english.qrels.items() for each in found],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        with write_whole(folder / name) as file:
            file.write("\n".join(lines) + "\n")
