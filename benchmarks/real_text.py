"""Strategies on real questions and passages: AfriQA, with NTREX-128 and TICO-19 as further bitext.

python -m benchmarks.real_text --root FOLDER --tune-only                # chooses everything on Hausa
python -m benchmarks.real_text --root FOLDER --languages swa ibo yor --seeds 3

FOLDER holds ``afriqa``, ``ntrex`` and ``tico-19`` as their authors publish them. Each cell is a run of its own with its
result in a file, so a benchmark that was stopped goes on where it was. Rates, options, epochs and what the student
reads in English are chosen on Hausa, with as many trials for each strategy; the last epoch is what is tested.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cells import add_cell_options, pack, run_cells, unpack
from benchmarks.real_text_cell import CHOOSING, LATE_TEACHER, TextCell, mean, run_baselines, run_cell, write_late_data
from benchmarks.real_text_report import write_report
from foundations.files import read_json, write_json, write_whole
from retrieval.results import is_finished

OT_CONTRASTIVE = "strategies.ot_contrastive.OTContrastive"
ROWS = {
    "mse": "strategies.mse.MSE",
    "contrastive": "strategies.contrastive.Contrastive",
    "ot": "strategies.ot.OptimalTransport",
    "ot, no pooled term": "strategies.ot.OptimalTransport",
    "token mse": "strategies.mse.MSE",
    "ot_contrastive": OT_CONTRASTIVE,
    "its plan: attention": OT_CONTRASTIVE,
    "its plan: greedy": OT_CONTRASTIVE,
    "its plan: uniform": OT_CONTRASTIVE,
    "mixture": "strategies.weighted_sum.WeightedSum",
}
"""Row of the tables -> class path of its strategy."""

MSE = {"class_path": "strategies.mse.MSE"}
BESIDE_MSE = {
    "contrastive": {"class_path": "strategies.contrastive.Contrastive", "init_args": {"temperature": 0.1}},
    "relational": {"class_path": "strategies.relational.Relational"},
    "tokens": {"class_path": OT_CONTRASTIVE, "init_args": {"pooled_weight": 0.0}},
}
GRID: dict[str, list[tuple[float, dict[str, Any]]]] = {
    "mse": [(0.005, {}), (0.01, {}), (0.02, {}), (0.04, {})],
    "contrastive": [(0.01, {"temperature": each}) for each in (0.05, 0.1, 0.2, 0.4)],
    "ot": [(rate, {"pooled_weight": weight}) for rate, weight in ((0.01, 1.0), (0.02, 1.0), (0.01, 4.0), (0.01, 8.0))],
    "ot, no pooled term": [(rate, {"pooled_weight": 0.0}) for rate in (0.005, 0.01, 0.02, 0.04)],
    "token mse": [
        (rate, {"level": "token", "pooled_weight": weight})
        for rate, weight in ((0.01, 1.0), (0.02, 1.0), (0.01, 4.0), (0.01, 8.0))
    ],
    "ot_contrastive": [
        (rate, {"plan": "transport", "pooled_weight": weight, "temperature": each})
        for rate, weight, each in ((0.01, 4.0, 0.05), (0.02, 4.0, 0.05), (0.01, 8.0, 0.05), (0.01, 4.0, 0.1))
    ],
    "mixture": [
        (0.01, {"strategies": {"mse": MSE, name: BESIDE_MSE[name]}, "weights": {name: weight}})
        for name, weight in (("contrastive", 0.1), ("contrastive", 0.3), ("relational", 1.0), ("tokens", 0.25))
    ],
}
"""Row -> what is tried on Hausa: rate of the token table, and options of the strategy. Other plans of
`ot_contrastive` take its choice, so that they differ in the plan alone."""

RECIPES = [("none", 5), ("sources", 5), ("documents", 3), ("documents", 5), ("documents", 8)]
"""What the student reads in English, and epochs, the cheapest first; tried with `mse`, chosen for all strategies."""
NEAR = 0.005
"""A recipe is as good as the best one within this much MAP; the cheapest of those is taken."""
FEW = ["mse", "contrastive", "ot", "ot_contrastive", "its plan: attention"]
"""The rows of the other conditions and of the second table."""
VARIANTS = [
    "words-all",
    "words-3",
    "words-6",
    "words-12",
    "words-24",
    "pairs-500",
    "pairs-1000",
    "wrong-0.4",
    "truncated",
]
CONTEXTUAL_RATES = {"lr": 3e-4, "embedding_lr": 3e-3}
SETTINGS = Path(__file__).parent / "real_text.yaml"
"""What ``--tune`` chose; written by it."""
RESULTS = SETTINGS.with_suffix(".json.xz")
"""Results of the cells that were run: the benchmark goes on where it was, and its pages can be written again."""


def make_cell(row: str, setting: dict[str, Any], language: str, seed: int, **options: Any) -> TextCell:
    """A cell with the settings of its row."""
    values = {
        "condition": "static", "space": "plain", "variant": "full", "lr": 1e-3,
        "epochs": setting["epochs"], "english": setting["english"], "embedding_lr": setting["embedding_lr"],
        "hybrid": setting.get("hybrid", ""),
    } | options  # fmt: skip
    return TextCell(
        row=row, strategy=ROWS[row], options=json.dumps(setting["options"]), language=language, seed=seed, **values
    )


def _setting(rate: float, options: dict[str, Any], english: str, epochs: int) -> dict[str, Any]:
    return {"embedding_lr": rate, "options": options, "english": english, "epochs": epochs}


def _score(result: dict[str, Any]) -> float:
    """What a setting is chosen by: the mean of pooled and weighted MaxSim MAP."""
    return sum(mean(result["map"][kind]) for kind in ("pooled", "weighted")) / 2


def tune(run: Any, folder: Path, workers: int) -> None:
    """Choose on Hausa, one seed: first the recipe, then each row's rate and options, then the weights of the hybrid."""
    rate, options = GRID["mse"][1]
    recipes = [make_cell("mse", _setting(rate, options, *recipe), CHOOSING, 0) for recipe in RECIPES]
    tried = run_cells(recipes, run, folder, workers)
    reached = [mean(result["map"]["pooled"]) for result in tried]
    english, epochs = RECIPES[next(place for place, each in enumerate(reached) if each > max(reached) - NEAR)]
    trials = [(row, _setting(*each, english, epochs)) for row, grid in GRID.items() for each in grid]
    results = run_cells([make_cell(row, setting, CHOOSING, 0) for row, setting in trials], run, folder, workers)
    chosen: dict[str, tuple[float, dict[str, Any]]] = {}
    for (row, setting), result in zip(trials, results, strict=True):
        if row not in chosen or _score(result) > chosen[row][0]:
            chosen[row] = _score(result), setting
    for plan in ("attention", "greedy", "uniform"):
        setting = chosen["ot_contrastive"][1]
        chosen[f"its plan: {plan}"] = 0.0, setting | {"options": setting["options"] | {"plan": plan}}
    spaces = [
        make_cell(row, setting, CHOOSING, 0, space=space)
        for space, row in itertools.product(("plain", "whitened"), [*FEW, "mixture"])
        for setting in [chosen[row][1]]
    ]
    in_spaces = run_cells(spaces, run, folder, workers)
    weights = list(in_spaces[0]["hybrids"])
    best = max(weights, key=lambda each: sum(result["hybrids"][each] for result in in_spaces))
    record = {
        "hybrid": best,
        "rows": {row: setting for row, (_, setting) in chosen.items()},
        "tried": [_trial(result) for result in [*tried, *results, *in_spaces]],
    }
    with write_whole(SETTINGS) as file:
        file.write("# Written by: python -m benchmarks.real_text --tune-only  (test questions of Hausa, seed 0)\n")
        yaml.safe_dump(record, file, sort_keys=False, width=120)


def _trial(result: dict[str, Any]) -> dict[str, Any]:
    """What was tried, and what it gave."""
    kept = ("row", "space", "options", "embedding_lr", "epochs", "english")
    means = {kind: round(mean(values), 4) for kind, values in result["map"].items()}
    return {name: result["cell"][name] for name in kept} | means


def all_cells(settings: dict[str, Any], languages: list[str], seeds: int, parts: list[str]) -> Iterator[TextCell]:
    """The cells of the tables, what is compared with each other close together."""
    rows = {row: setting | {"hybrid": settings["hybrid"]} for row, setting in settings["rows"].items()}
    first = [*FEW, "mixture"]
    for chosen, seed in itertools.product((first, [row for row in ROWS if row not in first]), range(seeds)):
        for language, row, space in itertools.product(languages, chosen, ("plain", "whitened")):
            if "static" in parts:
                yield make_cell(row, rows[row], language, seed, space=space)
    for seed, language, space, row in itertools.product(range(min(seeds, 2)), languages, ("plain", "whitened"), FEW):
        if "late" in parts:
            yield make_cell(row, rows[row], language, seed, space=space, condition="late")
    for seed, language, row in itertools.product(range(min(seeds, 2)), languages, FEW):
        if "contextual" in parts:
            yield make_cell(
                row, rows[row], language, seed, space="whitened", condition="contextual", **CONTEXTUAL_RATES
            )
    for variant, language, row in itertools.product(VARIANTS, languages, FEW):
        if "variants" in parts:
            english = {"english": "sources"} if variant.startswith("words") else {}
            yield make_cell(row, rows[row], language, 0, space="whitened", variant=variant, **english)


def make_late_teacher(root: Path) -> None:
    """Train the late-interaction teacher on English questions and passages, where that was not done yet."""
    if is_finished(LATE_TEACHER):
        return
    data = LATE_TEACHER.with_name("real_text_late_data")
    write_late_data(root, data)
    command = [
        "train.py", "--data", "tsv", "--data.root", str(data), "--config", "configs/late_teacher.yaml",
        "--logger", "none", "--student.max_length", "256", "--data.batch_size", "32", "--data.english", "none",
        "--output", str(LATE_TEACHER.parent), "--name", LATE_TEACHER.name,
    ]  # fmt: skip
    subprocess.run([sys.executable, *command], check=True)


def main() -> None:
    """Parse the command line, run, and write the report."""
    parts = ["static", "late", "contextual", "variants"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_text", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder with afriqa, ntrex and tico-19")
    parser.add_argument("--languages", nargs="+", default=["swa", "ibo", "yor"])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0; two at most but for static")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--tune", action="store_true", help="choose on Hausa first")
    parser.add_argument("--tune-only", action="store_true", help="choose on Hausa, and stop")
    add_cell_options(parser, Path("runs/benchmarks/real_text"))
    options = parser.parse_args()
    unpack(RESULTS, options.folder)
    run = partial(run_cell, root=options.root)
    if options.tune or options.tune_only:
        tune(run, options.folder, options.workers)
        pack(RESULTS, options.folder)
    if options.tune_only:
        return
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    cells = list(all_cells(settings, options.languages, options.seeds, options.parts))
    if options.report_only:
        cells = [cell for cell in cells if (options.folder / f"{cell.name}.json").is_file()]
    elif "late" in options.parts:
        make_late_teacher(options.root)
    baselines = []
    for language in options.languages:
        path = options.folder / f"baselines_{language}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, run_baselines(language, options.root))
        baselines.append(read_json(path))
    results = run_cells(cells, run, options.folder, options.workers)
    pack(RESULTS, options.folder)
    write_report(results, baselines, settings, options.json)


if __name__ == "__main__":
    main()
