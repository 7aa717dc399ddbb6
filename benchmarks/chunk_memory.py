"""Peak memory of one step of a contrastive loss in chunks, each in a process of its own (Linux, CPU).

python -m benchmarks.chunk_memory --write-docs

The student is a random transformer of MiniLM's shape, with dropout, in float32 on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pages import replace_section, run_module, versions
from benchmarks.transport_memory import MALLOC
from lightning_modules.vectors import in_chunks, masked_mean
from strategies.base import Embeddings
from strategies.contrastive import Contrastive

LAYERS, WIDTH, LENGTH, VOCABULARY = 6, 384, 32, 8000
PAGE = Path(__file__).parent.parent / "docs" / "training.md"
COMMAND = "python -m benchmarks.chunk_memory --write-docs"


def step(batch: int, size: int) -> dict[str, float]:
    """GiB above the model of a forward and a backward pass."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    }
    model = BertModel(BertConfig(vocab_size=VOCABULARY, **shape)).train()
    ids, teacher = torch.randint(VOCABULARY, (batch, LENGTH)), F.normalize(torch.randn(batch, WIDTH), dim=-1)

    def tokenize(rows: object) -> dict[str, Tensor]:
        return {"ids": ids[list(rows)]}  # type: ignore[call-overload]

    def encode(inputs: dict[str, Tensor]) -> Embeddings:
        states = model(input_ids=inputs["ids"]).last_hidden_state
        return Embeddings(F.normalize(masked_mean(states, torch.ones_like(inputs["ids"])), dim=-1))

    def loss(rows: range) -> Any:
        student = in_chunks(tokenize, encode, rows, size)  # type: ignore[arg-type]
        return Contrastive()(student, Embeddings(teacher[: len(rows)]))["contrastive"]

    loss(range(2)).backward()  # the gradients' own memory
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again
    before = _resident("VmRSS")
    loss(range(batch)).backward()
    return {"gib": (_resident("VmHWM") - before) / 2**20}


def _resident(field: str) -> int:
    """A size of this process in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    """Measure, print the table, and put it into the docs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 16, 4])
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        print(json.dumps(step(options.batch, options.part)))
        return
    lines = ["| `--model.chunk_size` | peak memory above the model, GiB |", "| --- | --- |"]
    for size in options.sizes:
        words = ["--batch", str(options.batch), "--part", str(size)]
        got = run_module(f"chunks of {size}", "benchmarks.chunk_memory", *words, environment=MALLOC)
        lines.append(f"| {size} | {got['gib']:.2f} |")
    about = (
        f"One step, {options.batch} texts of {LENGTH} tokens, {LAYERS} layers of width {WIDTH}, float32, one CPU core; "
    )
    text = "\n".join([*lines, "", about + versions("torch", "transformers") + "."])
    print(text)
    if options.write_docs:
        replace_section(PAGE, COMMAND, text)


if __name__ == "__main__":
    main()
