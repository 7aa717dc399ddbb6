"""Long texts and students of common shapes, for the hardware benchmark; it starts from what `training_inputs` wrote."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from datamodules.tsv import read_rows
from foundations.files import write_json, write_whole

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


def prepare(folder: Path, pairs: int) -> None:
    """Write the long texts, and a folder with configuration and tokenizer for each shape.

    Args:
        folder: what `benchmarks.training_inputs.prepare` wrote.
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
