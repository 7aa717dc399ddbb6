"""A run of 2,000 steps that is killed and ended again and again: ``python -m benchmarks.faults.soak``.

It goes on each time by ``--resume auto``. At its end its curves have each point once, its weights and results are those
of a run that nothing disturbed, and the memory of its processes does not grow.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.faults.place import Place
from benchmarks.faults.scene import Scene, differences
from foundations.files import read_json

EVERY_EPOCHS, STEPS_OF_AN_EPOCH = 10, 10
_MOST_GROWTH = 2.0
"""Megabytes in 100 steps."""
_PAGE = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Part:
    """One process of the run."""

    fault: str
    status: int = 0
    text: str = ""
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, megabytes
    steps: int = 0

    @property
    def growth(self) -> float | None:
        """Megabytes in 100 steps, over the second half of a part that has enough steps to tell."""
        half = self.memory[len(self.memory) // 2 :]
        if self.steps < 300 or len(half) < 8:
            return None
        seconds, megabytes = np.array(half).T
        rate = (seconds[-1] - self.memory[0][0]) / self.steps
        return float(np.polyfit(seconds, megabytes, 1)[0] * rate * 100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and exit with status 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="potstill-soak-") as folder:
        place = Place(Path(folder) / "place")
        place.make()
        words = (
            "train.py", "--config", "{config}", "--output", "{out}", "--name", "k", "--resume", "auto",
            "--checkpoint_every", "7", "--trainer.check_val_every_n_epoch", str(EVERY_EPOCHS), "--logger", "csv",
            "--trainer.max_epochs", str(options.steps // STEPS_OF_AN_EPOCH),
        )  # fmt: skip
        scene, whole = Scene(place, Path(folder) / "soak"), Scene(place, Path(folder) / "whole")
        for each in (scene, whole):
            each.folder.mkdir()
        parts = soak(scene, words, options.steps, random.Random(options.seed))
        undisturbed = run_part(whole, words, "", options.steps)
        problems = check(scene, whole, parts, options.steps)
        grown = [part.growth for part in (*parts, undisturbed) if part.growth is not None]
    problems += [f"memory grows by {each:.1f} MB in 100 steps" for each in grown if each > _MOST_GROWTH]
    faults = ", ".join(part.fault for part in parts if part.fault)
    print(f"{options.steps} steps in {len(parts)} parts ({faults}), {(time.monotonic() - began) / 60:.0f} minutes")
    print("growth of memory, MB in 100 steps: " + ", ".join(f"{each:+.2f}" for each in grown))
    print("\n".join(problems) or "curves complete, results and weights as undisturbed, memory flat")
    raise SystemExit(1 if problems else 0)


def soak(scene: Scene, words: tuple[str, ...], steps: int, dice: random.Random) -> list[Part]:
    """Start the run until it is finished; each process but the last gets a signal in a step of its own."""
    parts: list[Part] = []
    while not (scene.run / "metrics.json").is_file() and len(parts) < steps:
        number = dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        parts.append(run_part(scene, words, f"{number.name}@{dice.randint(20, max(40, steps // 4))}", steps))
        if parts[-1].status == 0:
            parts[-1].fault = ""
    return parts


def run_part(scene: Scene, words: tuple[str, ...], fault: str, steps: int) -> Part:
    """Run one process to its end, and look at its memory twice a second."""
    name, _, at = fault.partition("@")
    environment = {"FAULT": f"signal={getattr(signal, name):d}@{at}"} if fault else {}
    part, process = Part(fault), scene.place.start(scene.words(words), scene.folder, environment)
    watch = threading.Thread(target=_watch, args=(process, part), daemon=True)
    watch.start()
    part.text, _ = process.communicate()
    watch.join()
    part.status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    part.steps = int(at) if fault and part.status else steps
    print(f"{fault or 'undisturbed'}: exit {part.status}, {len(part.memory) / 2:.0f} s", flush=True)
    return part


def _watch(process: subprocess.Popen[str], part: Part) -> None:
    while process.poll() is None:
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            return
        part.memory.append((time.monotonic(), pages * _PAGE))
        time.sleep(0.5)


def check(scene: Scene, whole: Scene, parts: list[Part], steps: int) -> list[str]:
    """What is not as it must be."""
    expected = {signal.SIGKILL.name: 137, signal.SIGTERM.name: 143, signal.SIGINT.name: 130, "": 0}
    found = [f"{each.fault}: exit {each.status}" for each in parts if each.status != expected[each.fault.split("@")[0]]]
    found += [f"{each.fault}: a traceback" for each in parts if "Traceback" in each.text]
    points = [point["step"] for point in read_json(scene.run / "history.json")]
    wanted = list(range(EVERY_EPOCHS * STEPS_OF_AN_EPOCH, steps + 1, EVERY_EPOCHS * STEPS_OF_AN_EPOCH))
    if points != wanted:
        found.append(f"points of the curves: {points}")
    return found + differences(scene.run, whole.run)


if __name__ == "__main__":
    main()
