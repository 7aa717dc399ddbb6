"""Training end to end against sentence-transformers, speed and quality; and scoring against torchmetrics.

python -m benchmarks.training [--json FILE] [--write-docs]      # about 40 minutes on two cores
python -m benchmarks.training --quick                           # seconds of training, for a look
python -m benchmarks.training --tune                            # choose the learning rates by dev MAP
python -m benchmarks.training --render FILE                     # docs from what --results wrote elsewhere

Each run is a process of its own; the sides take turns, and every turn has its seed. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks.pages import (
    add_output_options,
    machine,
    replace_section,
    run_module,
    versions,
    write_results,
)
from benchmarks.timing import crossed_interval, interleaved
from foundations.files import read_json, write_json, write_whole
from lightning_modules.run.trainer import default_precision

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
RATES = Path(__file__).with_suffix(".yaml")
COMMAND = "python -m benchmarks.training"
FULL: dict[str, Any] = {
    "language": "ha", "pairs": None, "layers": 1, "max_length": 64, "batch": 64, "warmup": 50,
    "epochs": 8, "speed_epochs": 1, "turns": 1, "queries": 7000, "depth": 1000,
}  # fmt: skip
QUICK: dict[str, Any] = FULL | {"pairs": 256, "epochs": 1, "queries": 200, "depth": 100}
PEER, UNIT = "sentence-transformers", "sentence-transformers, unit vectors"
"""Its MSELoss as it is, on the student's mean-pooled vector; and with the student's vector scaled to unit length."""
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    PEER: ("sentence_transformers", {"bf16": False}),
    "--strategy mse": ("potstill", {"strategy": "mse"}),
    "--strategy ot": ("potstill", {"strategy": "ot"}),
    UNIT: ("sentence_transformers", {"bf16": False, "unit": True}),
}
"""These train to the end, and their quality is compared."""
SPEED: dict[str, tuple[str, dict[str, Any]]] = {
    "sentence-transformers, bf16": ("sentence_transformers", {"bf16": True}),
    "sentence-transformers, whole vocabulary": ("sentence_transformers", {"bf16": False, "start": "whole"}),
    "--strategy mse, whole vocabulary": ("potstill", {"strategy": "mse", "start": "whole"}),
}
"""These train for `speed_epochs`, for their speed alone."""
TARGETS = {"--strategy mse": 2.0, "--strategy ot": 1.8}
METRICS_TARGET = 20.0
TRANSFORMER = "lightning_modules.students.transformer.TransformerEncoder"
GRID = (1e-4, 3e-4, 1e-3, 3e-3)
TUNING_SEED = 1000
"""Turns have seeds from 0, so that no seed that is reported chose a rate."""
Row = dict[str, Any]
Result = dict[str, Any]


def run_side(name: str, settings: dict[str, Any], seed: int) -> Result:
    """Train once in a process of its own; its imports count, since a user waits for them too.

    Raises:
        SystemExit: it failed.
    """
    module, own = (SIDES | SPEED)[name]
    epochs = {"epochs": settings["speed_epochs"]} if name in SPEED else {}
    arguments = {"start": "start"} | settings | epochs | own | {"seed": seed}
    kept = _kept(module, arguments)
    if kept is not None and kept.is_file():
        earlier: Result = read_json(kept)
        return earlier
    words = json.dumps(arguments | {"started": time.time()})
    result = run_module(name, "benchmarks.training_side", module, words, environment={"WANDB_MODE": "disabled"})
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, result)
    return result


def _kept(module: str, arguments: dict[str, Any]) -> Path | None:
    """Where the result of a run is kept, by its arguments; None where results are not kept."""
    if not arguments.get("keep"):
        return None
    named = {key: value for key, value in arguments.items() if key not in ("inputs", "keep", "turns", "speed_epochs")}
    digest = hashlib.sha256(json.dumps([module, named], sort_keys=True).encode()).hexdigest()
    return Path(arguments["keep"]) / f"{digest[:16]}.json"


def tune(settings: dict[str, Any], jobs: int) -> dict[str, Any]:
    """The learning rate of each side with the best dev MAP, from the same grid, with a seed of its own.

    Args:
        settings: of the benchmark.
        jobs: runs at a time.

    Returns:
        ``rates`` by side, and ``dev`` by side and rate.
    """
    cells = [(name, rate) for name in SIDES for rate in GRID]
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda cell: run_side(cell[0], settings | {"lr": cell[1]}, TUNING_SEED), cells))
    dev: dict[str, dict[float, float]] = {name: {} for name in SIDES}
    for (name, rate), result in zip(cells, results, strict=True):
        dev[name][rate] = round(float(np.mean(list(result["dev"].values()))), 4)
    return {"rates": {name: max(scores, key=lambda rate: scores[rate]) for name, scores in dev.items()}, "dev": dev}


def rate_of(name: str, rates: dict[str, float]) -> float:
    """The learning rate of a side: that of the side whose name it begins with."""
    return next(rates[side] for side in sorted(rates, key=len, reverse=True) if name.startswith(side))


def measure_training(settings: dict[str, Any], rates: dict[str, float]) -> list[Row]:
    """All sides in turns, and the rows of the table."""
    results: dict[str, list[Result]] = {name: [] for name in SIDES | SPEED if "bf16" not in name or has_bfloat16()}
    for seed in range(settings["turns"]):
        for name, turns in results.items():
            turns.append(result := run_side(name, settings | {"lr": rate_of(name, rates)}, seed))
            shown = {key: round(result[key], 1) for key in ("all", "loop", "all_cpu", "loop_cpu")}
            dev = np.mean(list(result["dev"].values()))
            print(f"turn {seed + 1}, {name}: {shown}, dev MAP {dev:.4f}", file=sys.stderr, flush=True)
    return speed_rows(results, settings) + quality_rows(results)


def has_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 itself."""
    return default_precision("auto", TRANSFORMER) == "bf16-mixed"


def measure_quality(settings: dict[str, Any], rates: dict[str, float], jobs: int) -> list[Row]:
    """The rows of quality alone, where runs may be made at the same time."""
    cells = [(name, seed) for name in SIDES for seed in range(settings["turns"])]
    with ThreadPoolExecutor(jobs) as pool:
        done = pool.map(lambda cell: run_side(cell[0], settings | {"lr": rate_of(cell[0], rates)}, cell[1]), cells)
        results: dict[str, list[Result]] = {name: [] for name in SIDES}
        for (name, _), result in zip(cells, done, strict=True):
            results[name].append(result)
    return quality_rows(results)


def speed_rows(results: dict[str, list[Result]], settings: dict[str, Any]) -> list[Row]:
    """Pairs a second, from the start of the process and from the first step, to the last step.

    Processor time is less moved by what else runs on the machine.
    """
    batches = _pairs(settings) // settings["batch"] * settings["batch"]
    rows: list[Row] = []
    for part, what, sides in (
        ("all", "end to end", SIDES),
        ("all_cpu", "end to end, processor time", SIDES),
        ("loop", "steps alone", SIDES | SPEED),
    ):
        for name in [side for side in sides if side in results]:
            epochs = settings["speed_epochs" if name in SPEED else "epochs"]
            ours = [batches * epochs / turn[part] for turn in results[name]]
            peer = [batches * settings["epochs"] / turn[part] for turn in results[PEER]]
            target = TARGETS.get(name) if part == "all" else None
            rows.append(_row(f"{name}: {what}", ours, peer, "pairs/s", target))
    return rows


def quality_rows(results: dict[str, list[Result]]) -> list[Row]:
    """MAP of our sides next to that of the peer's two losses."""
    return [
        _quality(f"{name}: {split} MAP against {peer}", results[name], results[peer], split)
        for peer in (PEER, UNIT)
        for name in TARGETS
        for split in ("dev", "test")
    ]


def _pairs(settings: dict[str, Any]) -> int:
    """Number of training pairs."""
    with Path(settings["inputs"], "data", "pairs.tsv").open(encoding="utf-8") as file:
        return sum(1 for _ in file)


def _row(name: str, ours: list[float], peer: list[float], unit: str, target: float | None = None) -> Row:
    """Medians, and the ratio of each turn with its smallest and largest value."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    row = {"name": name, "ours": median(ours), "peer": median(peer), "ratio": median(ratios), "unit": unit}
    bounds = {"lowest": min(ratios), "highest": max(ratios), "target": target}
    return row | bounds | {"met": None if target is None else median(ratios) >= target}


def _quality(name: str, ours: list[Result], peer: list[Result], split: str) -> Row:
    """Mean average precision of both, and the paired difference with its interval over queries and seeds."""
    queries = sorted(peer[0][split])
    mine, theirs = (np.array([[turn[split][key] for key in queries] for turn in side]) for side in (ours, peer))
    low, high = crossed_interval(mine - theirs)
    row = {"name": name, "ours": float(mine.mean()), "peer": float(theirs.mean()), "unit": "MAP"}
    difference = {"difference": float((mine - theirs).mean()), "lowest": low, "highest": high, "target": 0.0}
    return row | {"ratio": float(mine.mean() / theirs.mean())} | difference | {"met": high >= 0}


def measure_metrics(settings: dict[str, Any]) -> list[Row]:
    """MAP of random rankings: our vectorised code against torchmetrics' RetrievalMAP."""
    import torch
    from torchmetrics.retrieval import RetrievalMAP

    from retrieval.metrics import evaluate_relevance, mean_over_queries
    from retrieval.relevance import IndexedQrels, relevance_of_rankings

    queries, depth = settings["queries"], settings["depth"]
    rng = np.random.default_rng(0)
    names = [f"d{number:04d}" for number in range(depth)]
    relevant = [rng.choice(depth, size=rng.integers(1, 4), replace=False) for _ in range(queries)]
    qrels = {f"q{row:04d}": {names[index]: 1 for index in indices} for row, indices in enumerate(relevant)}
    indices = np.argsort(rng.random((queries, depth)), axis=1)
    scores = np.sort(rng.random((queries, depth)).astype(np.float32), axis=1)[:, ::-1].copy() + 0.1
    judgments = IndexedQrels.of(qrels, list(qrels), names)
    target = torch.zeros(queries, depth, dtype=torch.int64)
    for row, relevant_here in enumerate(relevant):
        target[row] = torch.from_numpy(np.isin(indices[row], relevant_here)).long()
    groups = torch.arange(queries)[:, None].expand(-1, depth).flatten()
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: mean_over_queries(
            evaluate_relevance(relevance_of_rankings(judgments, indices), list(qrels), ["map"])
        )["map"],
        "peer": lambda: float(RetrievalMAP()(torch.from_numpy(scores).flatten(), target.flatten(), indexes=groups)),
    }
    values = {side: score() for side, score in sides.items()}
    if abs(values["ours"] - values["peer"]) > 1e-5:
        sys.exit(f"the metrics differ: {values}")
    milliseconds = interleaved(sides, 3, clock=time.perf_counter)
    per_second = {side: [1e3 * queries / each for each in times] for side, times in milliseconds.items()}
    name = f"MAP of {queries:,} queries x {depth:,}, against torchmetrics"
    return [_row(name, per_second["ours"], per_second["peer"], "queries/s", METRICS_TARGET)]


def markdown(rows: list[Row], about: str) -> str:
    """The section of the page."""
    head = [
        "| what | ours | peer | ratio (lowest, highest turn), or difference (95 % interval) | at least |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(_line, rows), "", about])


def _line(row: Row) -> str:
    """A line of the table."""
    verdict = "(met)" if row["met"] else "(not met)"
    if row["unit"] == "MAP":
        compared = f"{row['difference']:+.4f} ({row['lowest']:+.4f}, {row['highest']:+.4f})"
        return f"| {row['name']} | {row['ours']:.3f} | {row['peer']:.3f} MAP | {compared} | as good {verdict} |"
    compared = f"{row['ratio']:.2f} ({row['lowest']:.2f}, {row['highest']:.2f})"
    aim = "" if row["target"] is None else f"{row['target']:g} {verdict}"
    return f"| {row['name']} | {row['ours']:.0f} | {row['peer']:.0f} {row['unit']} | {compared} | {aim} |"


def describe(settings: dict[str, Any], rates: dict[str, float]) -> str:
    """The paragraph below the table: what was measured on what."""
    used = versions("torch", "sentence-transformers", "transformers", "lightning", "torchmetrics")
    chosen = ", ".join(f"`{name}` {rate:g}" for name, rate in rates.items())
    grid = ", ".join(f"{rate:g}" for rate in GRID)
    return (
        f"{machine()}. {settings['turns']} turn(s), one seed each; {_pairs(settings):,} pairs "
        f"({settings['language']}), {settings['epochs']} epochs ({settings['speed_epochs']} for the sides of which "
        f"only steps are given), batch {settings['batch']}, texts cut at {settings['max_length']} tokens. Student: the "
        f"first {settings['layers']} layer(s) of multilingual-e5-small without dropout, its vocabulary trimmed to the "
        "training texts on both sides unless the whole one is named; teacher: MiniLM. Learning rates: each side's best "
        f"by dev MAP from the same grid ({grid}), found with another seed: {chosen}; {settings['warmup']} steps of "
        "warm-up, then linear decay. sentence-transformers in float32 unless bf16 is named, ours in the precision that "
        "it chooses. Differences of MAP: 95 % bootstrap interval over queries"
        f"{' and seeds' if settings['turns'] > 1 else ' alone, and another seed moves them too'}. {used}."
    )


def main() -> None:
    """Entry point."""
    options = _options()
    if options.render:
        record = read_json(options.render)
        replace_section(PAGE, COMMAND + record["where"], markdown(record["rows"], record["about"]))
        return
    chosen = {key: value for key in ("turns", "epochs") if (value := getattr(options, key)) is not None}
    settings = (QUICK if options.quick else FULL) | chosen | {"keep": options.keep}
    with tempfile.TemporaryDirectory() as temporary:
        settings["inputs"] = str(Path(options.inputs or temporary).resolve())
        if not Path(settings["inputs"], "data").is_dir():
            from benchmarks.training_inputs import prepare

            prepare(Path(settings["inputs"]), settings)
        if options.tune:
            with write_whole(RATES) as file:
                yaml.safe_dump(
                    {"settings": {**settings, "inputs": None, "keep": None}} | tune(settings, options.jobs), file
                )
            return
        rates = yaml.safe_load(RATES.read_text(encoding="utf-8"))["rates"]
        if options.quality:
            rows = measure_quality(settings, rates, options.jobs)
        else:
            rows = measure_metrics(settings) + measure_training(settings, rates)
        about = describe(settings, rates)
    record = {"where": _where(), "about": about, "rows": rows}
    write_results(options, rows, record, markdown(rows, about), PAGE, COMMAND + _where())


def _where() -> str:
    """What the page's section is called after the command."""
    import torch

    return " on a GPU" if torch.cuda.is_available() else ""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds of training: the figures mean nothing")
    parser.add_argument("--turns", type=int, help="turns, one seed each (default: 1)")
    parser.add_argument("--epochs", type=int, help="epochs of each run (default: 8)")
    parser.add_argument("--inputs", help="folder of texts and models, written where there is none")
    parser.add_argument("--keep", help="folder of the results of single runs: those that are there are not made again")
    parser.add_argument("--tune", action="store_true", help=f"write {RATES.name} and stop")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, for --tune and --quality (default: 1)")
    parser.add_argument("--quality", action="store_true", help="MAP alone, which may be measured at the same time")
    add_output_options(parser, PAGE)
    return parser.parse_args()


if __name__ == "__main__":
    main()
