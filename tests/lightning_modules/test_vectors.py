from __future__ import annotations

import torch
from lightning.pytorch.plugins.precision.fsdp import FSDPPrecision

from datamodules.pairs import Candidate, Pair, collate
from lightning_modules.vectors import host_zeros, to_device


def test_a_tensor_that_stays_on_the_cpu_is_the_same():
    tensor = torch.arange(3)
    assert to_device(tensor, "cpu") is tensor
    zeros = host_zeros(2, 3, dtype=torch.float16, device="cpu")
    assert zeros.shape == (2, 3)
    assert zeros.dtype == torch.float16
    assert not zeros.any()
    assert not zeros.is_pinned()


def test_batches_pass_through_fsdps_precision():
    """It fills in a copy, which it cannot with a frozen dataclass."""
    precision = FSDPPrecision("bf16-mixed")
    pairs = [Pair("water", "maji", 3, (Candidate("sea", "bahari", 0.5),)), Pair("fire", "moto", 4)]
    batch = collate(pairs)
    converted = precision.convert_input(batch)
    assert converted.source == ["water", "fire"]
    assert converted.ids.equal(batch.ids)
    assert converted.candidates.scores.dtype == torch.float32
    assert converted.candidates.targets == ["bahari"]
