"""What both sides of the training benchmark read: the same texts, the same teacher, the same start of the student.

The folder needs no network and no cache, so it can be carried to another machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datamodules.starter.emoji import StarterDataModule
from foundations.files import write_whole
from lightning_modules.models.starter import resolve_model
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.students.vocabulary import Mode
from retrieval.collection import Collection
from retrieval.trec import write_qrels

TEACHER, STUDENT = "starter/minilm", "starter/e5-small"
STARTS: dict[str, Mode] = {"start": "trim", "whole": "keep"}
"""Folder of a student before training -> what was done to its vocabulary."""


def prepare(folder: Path, settings: dict[str, Any]) -> None:
    """Write texts, teacher and starts, those that are not there yet.

    Args:
        folder: gets ``data`` (files of ``--data tsv``), ``teacher``, and the folders of `STARTS`.
        settings: ``language``, ``pairs`` (None is all of them) and ``layers``.
    """
    targets = _write_data(folder / "data", settings)
    if not (folder / "teacher").is_dir():
        shutil.copytree(resolve_model(TEACHER), folder / "teacher")
    for name, vocabulary in STARTS.items():
        if not (folder / name).is_dir():
            start = TransformerEncoder(STUDENT, layers=settings["layers"], dropout=0.0, vocabulary=vocabulary)
            start.adapt_vocabulary(targets)
            start.save_pretrained(folder / name)


def _write_data(folder: Path, settings: dict[str, Any]) -> list[str]:
    """The files of ``--data tsv``; gives the target texts of the pairs."""
    data = StarterDataModule(
        language=settings["language"], english="sources", remove_leaks=True, limit_pairs=settings["pairs"]
    )
    data.setup("fit")
    assert isinstance(data.pairs, list)
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(folder / "pairs.tsv", ((pair.source, pair.target) for pair in data.pairs))
    for name, prefix in (("dev", "dev."), ("test", "")):
        collection: Collection = data.collections[name]
        _write_rows(folder / f"{prefix}queries.tsv", collection.queries.items())
        write_qrels(folder / f"{prefix}qrels", collection.qrels)
    _write_rows(folder / "documents.tsv", data.collections["dev"].documents.items())
    return [pair.target for pair in data.pairs]


def _write_rows(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    with write_whole(path) as file:
        file.writelines(f"{first}\t{second}\n" for first, second in rows)
