"""Memory and time of training by arithmetic, for docs/cluster.md: python -m benchmarks.cluster.

Nothing is trained. Parameters and the tensors that a forward pass keeps for the backward one are counted on tensors
without content (torch's device ``meta``), so the figures are exact for these architectures in float32, and the same on
any machine. The time is that of the arithmetic alone at a stated speed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.pages import replace_section

PAGE = Path(__file__).parent.parent / "docs" / "cluster.md"
COMMAND = "python -m benchmarks.cluster"
GIB = 2**30
LENGTH, BATCH = 128, 256
TRIMMED = 30_000
"""Pieces that are left of a multilingual vocabulary after the training texts of a language have trimmed it."""
FLOPS = 1e14
"""Assumed of a GPU: 100 TFLOP/s, a third of the peak of an A100 in bfloat16."""


@dataclass(frozen=True)
class Size:
    """A student by numbers.

    Args:
        name: of the row.
        parameters: all of them.
        table: those of the token table.
        saved: bytes that a forward pass of `BATCH` texts of `LENGTH` tokens keeps, in float32.
    """

    name: str
    parameters: int
    table: int
    saved: int

    @property
    def states(self) -> int:
        """Bytes of weights, gradients, and both moments of AdamW, in float32."""
        return 16 * self.parameters

    def seconds(self, devices: int) -> float:
        """Of a million pairs: 6 operations a parameter outside of the table and token (Kaplan et al. 2020)."""
        return 6 * (self.parameters - self.table) * LENGTH * 1e6 / FLOPS / devices


def bert(layers: int, width: int, pieces: int) -> nn.Module:
    """A transformer of the shape of MiniLM or XLM-R, without content."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=pieces,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=4 * width,
    )
    return BertModel(config, add_pooling_layer=False)


def clip_text() -> nn.Module:
    """The text tower of CLIP ViT-B/32, without content."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=512, intermediate_size=2048, num_attention_heads=8, max_position_embeddings=LENGTH
    )
    return CLIPTextModel(config)


STUDENTS: dict[str, Callable[[], nn.Module]] = {
    "multilingual MiniLM (12 layers of 384)": lambda: bert(12, 384, 250_037),
    "multilingual MiniLM, vocabulary trimmed": lambda: bert(12, 384, TRIMMED),
    "XLM-R-base (12 layers of 768)": lambda: bert(12, 768, 250_002),
    "XLM-R-base, vocabulary trimmed": lambda: bert(12, 768, TRIMMED),
    "text tower of CLIP ViT-B/32": clip_text,
}


def measure(name: str, build: Callable[[], nn.Module]) -> Size:
    """Count parameters, and what a forward pass keeps; memory that several tensors share counts once."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.device("meta"):
        model: Any = build().train()
        ids = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(input_ids=ids)
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    return Size(
        name,
        sum(weight.numel() for weight in model.parameters()),
        model.get_input_embeddings().weight.numel(),
        sum(storage.nbytes() for key, storage in kept.items() if key not in weights),
    )


def lines(sizes: list[Size]) -> list[str]:
    """The table in Markdown."""
    head = [
        "student",
        "parameters",
        "of them outside of the table",
        "weights, gradients, AdamW",
        "the same on each of 4 GPUs (FSDP)",
        f"kept by a batch of {BATCH}",
        "1 million pairs on 1 / 4 / 16 GPUs",
    ]
    rows = [head, ["---"] * len(head)]
    for size in sizes:
        times = " / ".join(f"{size.seconds(devices) / 60:.1f}" for devices in (1, 4, 16))
        counts = [f"{count / 1e6:.0f} M" for count in (size.parameters, size.parameters - size.table)]
        memory = [f"{amount / GIB:.1f} GiB" for amount in (size.states, size.states / 4, size.saved)]
        rows.append([size.name, *counts, *memory, f"{times} min"])
    return [f"| {' | '.join(row)} |" for row in rows]


def main() -> None:
    """Count, and write the section of the docs."""
    argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0]).parse_args()
    sizes = [measure(name, build) for name, build in STUDENTS.items()]
    replace_section(PAGE, COMMAND, "\n".join(lines(sizes)))


if __name__ == "__main__":
    main()
