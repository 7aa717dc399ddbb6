"""What the benchmarks of training and of hardware read: texts, a teacher, and students before training.

Both sides of the benchmark of training read the same; that of hardware has longer texts and other shapes. The folder
needs no network and no cache, so it can be carried to another machine.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datamodules.starter.emoji import StarterDataModule
from datamodules.text_files import read_rows
from foundations.files import write_json, write_whole
from lightning_modules.models.files import write_tokenizer
from lightning_modules.models.starter import resolve_model
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.students.vocabulary import Mode
from retrieval.collection import Collection
from retrieval.trec import write_qrels

TEACHER, STUDENT = "starter/minilm", "starter/e5-small"
STARTS: dict[str, Mode] = {"start": "trim", "whole": "keep"}
"""Folder of a student before training -> what was done to its vocabulary."""

SHAPES: dict[str, dict[str, Any]] = {
    "small": {"num_hidden_layers": 12},
    "base": {
        "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
        "vocab_size": 250_002,
    },
}  # fmt: skip
"""Name -> what differs from multilingual-e5-small, trimmed: all layers; and the shape of XLM-R base, all rows."""
_JOINED = 12
"""The most pairs whose texts are joined to a long one: up to 128 tokens."""


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
            start.model.save_pretrained(folder / name)
            plain = type(start.tokenizer).from_str(start.tokenizer_json())
            write_tokenizer(folder / name, plain, start.special_tokens, start.max_length)


def _write_data(folder: Path, settings: dict[str, Any]) -> list[str]:
    """The files of ``--data tsv``; gives the target texts of the pairs."""
    data = StarterDataModule(language=settings["language"], english="sources")
    data.setup("fit")
    data.pairs, _, _ = data.with_attributes(limit_pairs=settings["pairs"]).limit(data.pairs, {})
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


def prepare_long(folder: Path, pairs: int) -> None:
    """Write the long texts, and a folder with configuration and tokenizer for each shape.

    Args:
        folder: what `prepare` wrote.
        pairs: number of long pairs.
    """
    short = [texts for _, texts in read_rows(folder / "data" / "pairs.tsv", "source<TAB>target")]
    choose = random.Random(0)
    (folder / "long").mkdir(exist_ok=True)
    with write_whole(folder / "long" / "pairs.tsv") as file:
        for _ in range(pairs):
            joined = choose.sample(short, choose.randint(1, _JOINED))
            file.write("\t".join(" ".join(side) for side in zip(*joined, strict=True)) + "\n")
    for name in ("queries.tsv", "dev.queries.tsv", "documents.tsv"):
        with write_whole(folder / "long" / name) as file:
            file.write(f"d1\t{short[0][1]}\n" if name == "documents.tsv" else f"{name}\t{short[0][0]}\n")
    for name in ("queries.tsv", "dev.queries.tsv"):
        with write_whole(folder / "long" / name.replace("queries.tsv", "qrels")) as file:
            file.write(f"{name} 0 d1 1\n")
    for name, shape in SHAPES.items():
        _write_shape(folder / "start", folder / name, shape)


def _write_shape(start: Path, folder: Path, shape: dict[str, Any]) -> None:
    """A student's folder without weights."""
    folder.mkdir(exist_ok=True)
    for path in start.iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copy(path, folder)
    config = json.loads((start / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | shape)
