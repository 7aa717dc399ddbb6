"""The precision of training where nobody chose one."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import torch

Precision = Literal["32-true", "bf16-mixed"]


def default_precision(accelerator: str, student: str) -> Precision:
    """bfloat16 autocast where the hardware has the instructions and the student gains by it, else float32.

    Weights, optimiser, transport solvers and the teacher are in float32 in any case. On a CPU only a
    student that says so (`TextEncoder.gains_by_bfloat16`) is trained in bfloat16.

    Args:
        accelerator: ``trainer.accelerator``.
        student: class path of the student.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    module, _, name = student.rpartition(".")
    gains = getattr(getattr(import_module(module), name), "gains_by_bfloat16", False)
    is_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
    return "bf16-mixed" if gains and is_cpu and _cpu_has_bfloat16() else "32-true"


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated it is slower than float32."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
