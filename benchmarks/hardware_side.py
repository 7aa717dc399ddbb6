"""Cells of the hardware benchmark, one after the other in this process: prints one line of JSON for each.

python -m benchmarks.hardware_side '[{"model": "small", "batch": 64, "strategy": "ot", ...}, ...]'
"""

from __future__ import annotations

import gc
import json
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch._C._autograd import DeviceType

from benchmarks.training_side import train_with

Cell = dict[str, Any]
PHASES = ("data", "tokenise", "teacher", "student", "loss", "backward", "optimiser")
"""Where the host's time goes in a step, in its order; what is left is the trainer's own."""
PROFILED, WATCHED = 6, 4
"""Steps under the profiler, and steps in which waits for the device are counted, after the timed epoch."""


class Meter(Callback):
    """Times one epoch after another: the first with fresh texts, the second as all later ones are.

    The second epoch is what throughput is taken from. Afterwards a few steps are profiled for the time that the
    device was busy, and in a few more every wait of the host for the device is counted.

    Args:
        file: JSON file to write.
        steps: in an epoch.
    """

    def __init__(self, file: str, steps: int) -> None:
        self.file, self.steps = Path(file), steps
        self.noted: dict[str, Any] = {}
        self.times: dict[str, float] = defaultdict(float)
        self.waits: Counter[str] = Counter()
        self.is_timed = False
        self.mark = 0.0
        self.profiler: Any = None
        self.shown: Any = warnings.showwarning

    def on_train_start(self, _: Trainer, pl_module: Any) -> None:
        """Put clocks around the parts of a step."""
        for owner, name, phase in (
            (pl_module.student, "tokenize", "tokenise"),
            (pl_module.teacher, "encode", "teacher"),
            (pl_module.student, "forward", "student"),
            (pl_module.distillation, "forward", "loss"),
        ):
            setattr(owner, name, self._clocked(getattr(owner, name), phase))
        self.mark = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """What happened since the last step was loading data."""
        self._add("data")
        step = trainer.global_step
        if step in (self.steps // 2, self.steps):
            self._synchronise()
            self.noted[f"start {step}"] = time.perf_counter()
            self.is_timed = step == self.steps
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
        if step == 2 * self.steps and torch.cuda.is_available():
            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profiler.start()
        if step == 2 * self.steps + PROFILED:
            self._watch()

    def on_before_backward(self, *_: Any) -> None:
        """The clock of the backward pass begins."""
        self.mark = time.perf_counter()

    def on_after_backward(self, *_: Any) -> None:
        """The clock of the backward pass ends."""
        self._add("backward")

    def on_before_optimizer_step(self, *_: Any) -> None:
        """The clock of the optimiser begins."""
        self.mark = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """The clock of the optimiser ends; so does an epoch, or the profile."""
        self._add("optimiser")
        step = trainer.global_step
        if step in (self.steps, 2 * self.steps):
            self._synchronise()
            self.noted[f"end {step}"] = time.perf_counter()
            self.is_timed = False
            if torch.cuda.is_available() and step == 2 * self.steps:
                self.noted["memory"] = torch.cuda.max_memory_allocated()
        if step == 2 * self.steps + PROFILED and self.profiler is not None:
            self._synchronise()
            self.profiler.stop()
            self.noted |= _busy(self.profiler)
        self.mark = time.perf_counter()

    def on_train_end(self, _: Trainer, pl_module: Any) -> None:
        """Write the figures; the clocks go, or a later run would keep them."""
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
        warnings.showwarning = self.shown
        for owner, name in ((pl_module.student, "tokenize"), (pl_module.student, "forward"),
                            (pl_module.teacher, "encode"), (pl_module.distillation, "forward")):  # fmt: skip
            owner.__dict__.pop(name, None)
        half, whole = self.steps // 2, self.steps
        figures = {
            "first": (self.noted[f"end {whole}"] - self.noted[f"start {half}"]) / (whole - half),
            "step": (self.noted[f"end {2 * whole}"] - self.noted[f"start {whole}"]) / whole,
            "phases": {phase: self.times[phase] / whole for phase in PHASES},
            "memory": self.noted.get("memory", 0),
            "busy": self.noted.get("busy", 0.0) / PROFILED,
            "kernels": self.noted.get("kernels", 0) / PROFILED,
            "waits": sum(self.waits.values()) / WATCHED,
            "places": {place: count / WATCHED for place, count in self.waits.most_common(12)},
        }
        self.file.write_text(json.dumps(figures), encoding="utf-8")

    def _add(self, phase: str) -> None:
        if self.is_timed:
            self.times[phase] += time.perf_counter() - self.mark

    def _clocked(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before = time.perf_counter()
            result = function(*arguments, **options)
            if self.is_timed:
                self.times[phase] += time.perf_counter() - before
            return result

        return call

    def _synchronise(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _watch(self) -> None:
        """Count each wait of the host for the device, by the line that waited."""
        if not torch.cuda.is_available():
            return

        def count(message: Any, category: Any, filename: str, lineno: int, *_: Any, **__: Any) -> None:  # noqa: ARG001
            if "synchronizing" in str(message):
                self.waits[f"{'/'.join(Path(filename).parts[-2:])}:{lineno}"] += 1

        warnings.simplefilter("always")
        self.shown, warnings.showwarning = warnings.showwarning, count
        torch.cuda.set_sync_debug_mode("warn")


def _busy(profiler: Any) -> dict[str, float]:
    """Seconds in which the device worked, and the number of kernels and copies."""
    events = [
        event
        for event in profiler.profiler.kineto_results.events()
        if event.device_type() == DeviceType.CUDA and not event.is_user_annotation()
    ]
    spans = sorted((event.start_ns(), event.end_ns()) for event in events)
    busy, reached = 0, 0
    for start, end in spans:
        busy += max(0, end - max(start, reached))
        reached = max(reached, end)
    return {"busy": busy / 1e9, "kernels": len(events)}


def run(cell: Cell) -> dict[str, Any]:
    """Train one cell with ``train.py``.

    Args:
        cell: ``inputs`` (a folder), ``model``, ``batch``, ``strategy``, ``precision``, ``launch`` and ``steps``.
    """
    inputs, left = cell["inputs"], _left_from_before()
    figures = train_with("benchmarks.hardware_side.Meter", inputs, f"{inputs}/cache", [
        f"--trainer.callbacks.steps={cell['steps']}",
        *("--strategy", cell["strategy"], "--data.root", f"{inputs}/long"),
        *(f"--data.batch_size={cell['batch']}", f"--data.limit_pairs={cell['batch'] * cell['steps']}"),
        "--data.english=none",
        *("--student", "transformer", "--student.model", f"{inputs}/{cell['model']}"),
        *("--student.random_init", "true", "--student.vocabulary", "keep", "--student.max_length", "128"),
        *("--model.lr=0.0001", f"--trainer.max_steps={2 * cell['steps'] + PROFILED + WATCHED}"),
        *("--trainer.max_epochs", "4", f"--trainer.precision={cell['precision']}"),
        *("--trainer.devices", "1", f"--trainer.strategy={cell['launch']}", "--trainer.limit_val_batches", "0"),
    ])  # fmt: skip
    return figures | {"memory": max(0, figures["memory"] - left)}


def _left_from_before() -> int:
    """Bytes on the device that an earlier cell left there."""
    gc.collect()
    if not torch.cuda.is_available():
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def main() -> None:
    """Entry point."""
    for cell in json.loads(sys.argv[1]):
        print("cell " + json.dumps(cell | run(cell)), flush=True)


if __name__ == "__main__":
    main()
