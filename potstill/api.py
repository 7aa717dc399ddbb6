"""Potstill in Python: load a student and use it, distil one from a list of pairs, evaluate, compare."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.text import normalise
from datamodules.tsv import TSVDataModule
from foundations.checks import check_choice
from foundations.errors import InputError
from foundations.files import new_folder
from lightning_modules.commands.evaluate import load_weights, open_run, score_collection, score_encoder
from lightning_modules.commands.train import fit_and_test
from lightning_modules.export.folder import FolderEncoder
from lightning_modules.models.trust import trusting
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.base import Encoder
from lightning_modules.teachers.online import OnlineTeacher
from lightning_modules.teachers.run import RunTeacher
from lightning_modules.vectors import joined
from retrieval.collection import Collection
from retrieval.compare import Comparison, compare_runs, load_runs
from retrieval.metrics import DEFAULT_METRICS
from retrieval.results import averages, by_language

Vectors = NDArray[np.float32]
_BATCH = 256
_FEWEST_PAIRS, _MOST_HELD_OUT = 20, 500


class Student:
    """A trained student; `load_student` and `distil` give one.

    Args:
        encoder: gives the vectors.
        folder: of the run or of the exported student.
    """

    def __init__(self, encoder: RunTeacher | FolderEncoder, folder: Path) -> None:
        self.encoder, self.folder = encoder, folder

    def __repr__(self) -> str:
        return f"Student({str(self.folder)!r})"

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.encoder.dim

    @overload
    def encode(self, texts: Sequence[str], side: TextSide = ..., tokens: Literal[False] = ...) -> Vectors: ...
    @overload
    def encode(self, texts: Sequence[str], side: TextSide = ..., *, tokens: Literal[True]) -> list[Vectors]: ...

    def encode(self, texts: Sequence[str], side: TextSide = "queries", tokens: bool = False) -> Vectors | list[Vectors]:
        """The vectors of texts, at unit length.

        Args:
            texts: N texts.
            side: what they are read as, ``queries`` or ``documents``.
            tokens: give a vector for each token, for MaxSim.

        Returns:
            (N, D); with ``tokens`` an array (tokens of the text, D) for each text.

        Raises:
            InputError: the texts are a single one, or a student exported for one score is asked for the other.
            ValueError: there is no such side.
        """
        if isinstance(texts, str):
            raise InputError(f"texts is {texts[:40]!r}, expected a list of texts")
        check_choice("side", side, ("queries", "documents"))
        if not texts:
            return [] if tokens else np.zeros((0, self.dim), dtype=np.float32)
        batches = [list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        embeddings = joined([self.encoder.encode(batch, tokens, "cpu", side) for batch in batches])
        if not tokens:
            return cast("Vectors", embeddings.pooled.numpy())
        states, mask = embeddings.require_tokens()
        unit = torch.nn.functional.normalize(states, dim=-1)
        return [each[real].numpy() for each, real in zip(unit, mask, strict=True)]

    def export(self, folder: str | Path, score: Literal["pooled", "maxsim"] | None = None, onnx: bool = False) -> Path:
        """Write a folder that sentence-transformers opens; what export.py does.

        Args:
            folder: it must not exist, or be empty.
            score: one vector a text or one a token; None is that of the training.
            onnx: write ``onnx/model.onnx`` as well.

        Raises:
            InputError: the student was exported already, or cannot be.
        """
        from lightning_modules.commands.export import export_run

        if isinstance(self.encoder, FolderEncoder):
            raise InputError("the student was exported already: copy its folder", self.folder)
        return export_run(
            Namespace(run=str(self.folder), to=str(folder), checkpoint="best", score=score, token_weights=None,
                      license=None, onnx=onnx, int8=False, push=None, private=False)
        )  # fmt: skip


def load_student(folder: str | Path, trust: bool = False) -> Student:
    """The student of a run folder, with its best checkpoint, or of a folder that export.py wrote.

    Args:
        folder: the folder; another model in sentence-transformers' format is opened too.
        trust: let a run folder name classes from anywhere: it can then do what you can.

    Raises:
        InputError: it is neither, or names code from elsewhere.

    Example:
        A model of two words, and what it makes of them:

        >>> import tempfile, torch
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import StaticEmbedding
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> tokenizer = Tokenizer(models.WordLevel({"?": 0, "maji": 1, "water": 2}, unk_token="?"))
        >>> tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> table = torch.tensor([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
        >>> folder = tempfile.mkdtemp()
        >>> SentenceTransformer(modules=[StaticEmbedding(tokenizer, table)], device="cpu").save(folder)
        >>> student = load_student(folder)
        >>> student.encode(["maji", "water"])
        array([[1., 0.],
               [1., 0.]], dtype=float32)

        It reads both sides of a collection:

        >>> sides = {"query_side": "student", "document_side": "student"}
        >>> texts = {"d1": "water", "d2": "fire"}
        >>> evaluate(student, Collection("test", {"q": "maji"}, texts, {"q": {"d1": 1}}, **sides), metrics=["map"])
        {'map': 1.0}
    """
    path = Path(folder)
    if (path / "modules.json").is_file():
        return Student(FolderEncoder(path), path)
    with trusting(trust):
        encoder = RunTeacher(str(path))
        encoder.load()
    return Student(encoder, path)


def distil(
    pairs: Iterable[tuple[str, str]],
    teacher: str = "starter/minilm",
    strategy: str | None = None,
    *,
    student: str = "static",
    output: str | Path = "runs",
    name: str = "distilled",
    options: Mapping[str, Any] | None = None,
) -> Student:
    """Distil a teacher into a student from pairs; what train.py does with ``--data tsv``.

    A tenth of the pairs, at most 500, is kept out for ``dev``, which chooses the checkpoint, and as much for ``test``:
    the target is a query whose only relevant document is its source. The table of the test is printed. For a real
    collection write the folder that docs/own_language.md describes, and use train.py.

    Args:
        pairs: texts that the teacher understands, with their translations; at least 20 of different sources.
        teacher: as for ``--teacher``: a name on the hub, a folder, ``starter/minilm``.
        strategy: as for ``--strategy``; None is the default.
        student: as for ``--student``: ``static`` or ``transformer``.
        output: the folder of runs; it gets the run folder, and beside it the pairs as files.
        name: of the run.
        options: others of train.py, such as ``{"trainer.max_epochs": 3}``.

    Raises:
        InputError: too few pairs, an empty text, the run is there already, or as train.py.
    """
    run, data = Path(output) / name, Path(output) / f"{name}-data"
    unique = list({source: (source, target) for source, target in _clean(pairs)}.values())
    if len(unique) < _FEWEST_PAIRS:
        raise InputError(f"pairs is {len(unique)} pairs of different sources, expected at least {_FEWEST_PAIRS}")
    for folder in (run, data):
        if folder.exists():
            raise InputError("the folder is there already: give another name", folder)
    _write_data(data, unique)
    chosen = {"teacher": teacher, "student": student, "data": "tsv", "data.root": data, "output": output, "name": name}
    chosen |= {"strategy": strategy} if strategy else {}
    fit_and_test([f"--{key}={value}" for key, value in (chosen | dict(options or {})).items()])
    return load_student(run)


def evaluate(
    student: Student | str | Path,
    data: Collection | str | Path,
    teacher: str | Encoder | None = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    score: Literal["pooled", "maxsim"] = "pooled",
) -> dict[str, float]:
    """Search a collection with a student, and score the rankings.

    Args:
        student: or the folder of one.
        data: a collection; a run folder, whose test is searched, by its own metrics; or a folder as for
            ``--data tsv``.
        teacher: who reads the other side of a collection or of a folder: a model's name, or an encoder. None is the
            teacher of the student's run.
        metrics: such as ``map`` or ``ndcg@10``.
        score: compare pooled vectors, or tokens (MaxSim).

    Returns:
        Metric -> mean over the queries; of a run on several languages the mean over languages, and each language's as
        ``sw/map``.

    Raises:
        InputError: no such folder, or a side is the teacher's and there is none.
        ValueError: no such metric.
    """
    who = student if isinstance(student, Student) else load_student(student)
    if not isinstance(data, Collection) and (Path(data) / "config.yaml").is_file():
        results = score_encoder(_opened(Path(data)), who.encoder, score)
        means = by_language({name: result.means for name, result in results.items()})
        common = averages(means)["test"]
        if len(means) == 1:
            return common
        each = {f"{language}/{name}": value for language, rows in means.items() for name, value in rows["test"].items()}
        return common | each
    collection = data if isinstance(data, Collection) else TSVDataModule(str(data)).load_collections()["test"]
    readers: dict[str, Encoder] = {"student": who.encoder}
    if "teacher" in (collection.query_side, collection.document_side):
        readers["teacher"] = _teacher(who, teacher)
    return score_collection(collection, readers, metrics, score).means


def compare(*runs: str | Path, metrics: Sequence[str] | None = None) -> list[Comparison]:
    """Compare run folders on the same queries, each with the first; what compare.py prints.

    Args:
        runs: at least two run folders, or ``FOLDER:ROW`` as for compare.py.
        metrics: names; None is all that every run has.

    Returns:
        One for each metric and run: mean, interval, difference to the first run, paired tests.

    Raises:
        InputError: fewer than two runs, one is not there, or they have different queries.
    """
    if len(runs) < 2:
        raise InputError(f"runs is {len(runs)} run folders, expected at least two to compare")
    return compare_runs(load_runs([str(run) for run in runs]), metrics)


def _clean(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    for number, pair in enumerate(pairs, start=1):
        try:
            source, target = (normalise(" ".join(text.split())) for text in pair)
        except (TypeError, ValueError, AttributeError):
            raise InputError(f"pair {number} is {pair!r}, expected a text and its translation") from None
        if not source or not target:
            raise InputError(f"pair {number} is {pair!r}, expected two texts that are not empty")
        yield source, target


def _write_data(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """The files of ``--data tsv``."""
    held = min(_MOST_HELD_OUT, len(pairs) // 10)
    order = np.random.default_rng(0).permutation(len(pairs)).tolist()
    parts = {"dev.": order[:held], "": order[held : 2 * held]}
    files = {
        "pairs.tsv": ["\t".join(pairs[row]) for row in sorted(order[2 * held :])],
        "documents.tsv": [f"d{row}\t{source}" for row, (source, _) in enumerate(pairs)],
    }
    for prefix, rows in parts.items():
        files[f"{prefix}queries.tsv"] = [f"q{row}\t{pairs[row][1]}" for row in rows]
        files[f"{prefix}qrels"] = [f"q{row} 0 d{row} 1" for row in rows]
    with new_folder(folder) as unfinished:
        for name, lines in files.items():
            (unfinished / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _opened(run: Path) -> Any:
    """A run with its weights."""
    path = run / "checkpoints" / "best.ckpt"
    cli = open_run(str(run), ["--trainer.accelerator=cpu"], path)
    load_weights(cli.model, path)
    return cli


def _teacher(student: Student, teacher: str | Encoder | None) -> Encoder:
    if isinstance(teacher, str):
        return OnlineTeacher(teacher)
    if teacher is not None:
        return teacher
    if isinstance(student.encoder, FolderEncoder):
        raise InputError("teacher is None, expected a model or encoder: an exported student does not know its teacher")
    reader: Encoder = _opened(student.folder).model.teacher_in_space
    return reader
