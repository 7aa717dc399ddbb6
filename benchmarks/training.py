"""Speed of training end to end against sentence-transformers, and of scoring against torchmetrics.

python -m benchmarks.training [--json FILE] [--write-docs]      # about 40 minutes
python -m benchmarks.training --quick                           # seconds of training, for a look

Each run is a process of its own; the sides take turns, and every turn has its seed. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.pages import replace_section, versions
from benchmarks.timing import interleaved
from retrieval.files import write_json

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
COMMAND = "python -m benchmarks.training"
FULL: dict[str, Any] = {
    "pairs": 3200, "epochs": 3, "turns": 3, "batch": 64, "layers": 3, "lr": 3e-4, "language": "ha",
    "queries": 7000, "depth": 1000,
}  # fmt: skip
QUICK: dict[str, Any] = FULL | {"pairs": 256, "epochs": 1, "turns": 1, "queries": 200, "depth": 100}
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "sentence-transformers": ("sentence_transformers", {"bf16": False}),
    "sentence-transformers, bf16": ("sentence_transformers", {"bf16": True}),
    "--strategy mse": ("potstill", {"strategy": "mse"}),
    "--strategy ot": ("potstill", {"strategy": "ot"}),
    "--strategy mse, whole vocabulary": ("potstill", {"strategy": "mse", "options": ["--student.vocabulary", "keep"]}),
}
PEER = "sentence-transformers"
TARGETS = {"--strategy mse": 2.0, "--strategy ot": 1.8}
METRICS_TARGET = 20.0
Row = dict[str, Any]


def run_side(name: str, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """Train once in a process of its own; its imports count, since a user waits for them too.

    Raises:
        SystemExit: it failed.
    """
    module, own = SIDES[name]
    arguments = json.dumps(settings | own | {"seed": seed, "start": time.time()})
    command = [sys.executable, "-m", "benchmarks.training_side", module, arguments]
    environment = os.environ | {"WANDB_MODE": "disabled"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_training(settings: dict[str, Any]) -> list[Row]:
    """All sides in turns, and the rows of the table."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for seed in range(settings["turns"]):
        for name in SIDES:
            results[name].append(run_side(name, settings, seed))
            print(f"turn {seed + 1}, {name}: {results[name][-1]}", file=sys.stderr, flush=True)
    pairs = settings["pairs"] // settings["batch"] * settings["batch"] * settings["epochs"]
    rows = []
    for name in SIDES:
        for part, what in (("all", "end to end"), ("loop", "steps alone")):
            ours, peer = ([pairs / turn[part] for turn in results[side]] for side in (name, PEER))
            target = TARGETS.get(name) if part == "all" else None
            rows.append(_row(f"{name}: {what}", ours, peer, "pairs/s", target))
        dev, peer = ([turn["dev"] for turn in results[side]] for side in (name, PEER))
        rows.append(_row(f"{name}: dev MAP", dev, peer, "MAP"))
    return rows


def _row(name: str, ours: list[float], peer: list[float], unit: str, target: float | None = None) -> Row:
    """Medians, and the ratio of each turn with its smallest and largest value."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    row = {"name": name, "ours": median(ours), "peer": median(peer), "ratio": median(ratios), "unit": unit}
    bounds = {"lowest": min(ratios), "highest": max(ratios), "target": target}
    return row | bounds | {"met": None if target is None else median(ratios) >= target}


def measure_metrics(settings: dict[str, Any]) -> list[Row]:
    """MAP of random rankings: our vectorised code against torchmetrics' RetrievalMAP."""
    import torch
    from torchmetrics.retrieval import RetrievalMAP

    from retrieval.metrics import evaluate_rankings
    from retrieval.relevance import Judgments

    queries, depth = settings["queries"], settings["depth"]
    rng = np.random.default_rng(0)
    names = [f"d{number:04d}" for number in range(depth)]
    relevant = [rng.choice(depth, size=rng.integers(1, 4), replace=False) for _ in range(queries)]
    qrels = {f"q{row:04d}": {names[place]: 1 for place in places} for row, places in enumerate(relevant)}
    indices = np.argsort(rng.random((queries, depth)), axis=1)
    scores = np.sort(rng.random((queries, depth)).astype(np.float32), axis=1)[:, ::-1].copy() + 0.1
    judgments = Judgments.from_qrels(qrels, list(qrels), names)
    target = torch.zeros(queries, depth, dtype=torch.int64)
    for row, places in enumerate(relevant):
        target[row] = torch.from_numpy(np.isin(indices[row], places)).long()
    groups = torch.arange(queries)[:, None].expand(-1, depth).flatten()
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: float(evaluate_rankings(judgments, indices, ["map"])["map"].mean()),
        "peer": lambda: float(RetrievalMAP()(torch.from_numpy(scores).flatten(), target.flatten(), indexes=groups)),
    }
    values = {side: score() for side, score in sides.items()}
    if abs(values["ours"] - values["peer"]) > 1e-5:
        sys.exit(f"the metrics differ: {values}")
    milliseconds = interleaved(sides, settings["turns"], clock=time.perf_counter)
    per_second = {side: [1e3 * queries / each for each in times] for side, times in milliseconds.items()}
    name = f"MAP of {queries:,} queries x {depth:,}, against torchmetrics"
    return [_row(name, per_second["ours"], per_second["peer"], "queries/s", METRICS_TARGET)]


def markdown(rows: list[Row], settings: dict[str, Any]) -> str:
    """The section of the page."""
    head = [
        "| what | ours | peer | ratio (lowest, highest turn) | at least |",
        "|---|---|---|---|---|",
    ]
    lines = []
    for row in rows:
        digits = ".3f" if row["unit"] == "MAP" else ".0f"
        aim = "" if row["target"] is None else f"{row['target']:g} {'(met)' if row['met'] else '(not met)'}"
        ratio = f"{row['ratio']:.2f} ({row['lowest']:.2f}, {row['highest']:.2f})"
        figures = f"{row['ours']:{digits}} | {row['peer']:{digits}} {row['unit']}"
        lines.append(f"| {row['name']} | {figures} | {ratio} | {aim} |")
    used = versions("torch", "sentence-transformers", "transformers", "lightning", "torchmetrics")
    about = (
        f"{settings['turns']} turn(s), one seed each, {settings['pairs']:,} pairs ({settings['language']}) x "
        f"{settings['epochs']} epochs, batch {settings['batch']}, student: the first {settings['layers']} layers of "
        f"multilingual-e5-small, teacher MiniLM, {os.environ.get('OMP_NUM_THREADS', 'all')} threads. {used}, "
        f"Python {platform.python_version()}."
    )
    return "\n".join([*head, *lines, "", about])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="seconds of training: the figures mean nothing")
    parser.add_argument("--turns", type=int, help="turns, one seed each (default: 3)")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    settings = (QUICK if options.quick else FULL) | ({"turns": options.turns} if options.turns else {})
    rows = measure_metrics(settings) + measure_training(settings)
    text = markdown(rows, settings)
    print(text)
    if options.json:
        write_json(Path(options.json), rows)
    if options.write_docs:
        replace_section(PAGE, COMMAND, text)


if __name__ == "__main__":
    main()
