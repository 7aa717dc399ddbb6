"""Strategy x language x student on the starter data: which loss distils best, under pooled and MaxSim scoring.

python -m benchmarks.strategies --languages sw so fil mr --seeds 3
python -m benchmarks.strategies --tune        # chooses learning rates on dev queries of a language not reported

Each cell is a run of its own with its result in a file, so a benchmark that was stopped goes on where it was. The
same budget (epochs, batches, tuning grid) holds for every strategy. For each score (pooled, MaxSim) the epoch with the
best dev MAP is tested.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cells import add_cell_options, build, run_cells
from benchmarks.strategies_report import write_report
from foundations.files import read_json, write_whole
from retrieval.results import is_finished

STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ot": ("strategies.ot.OptimalTransport", {"pooled_weight": 0.0}),
    "ot + pooled": ("strategies.ot.OptimalTransport", {"pooled_weight": 1.0}),
    "mse": ("strategies.mse.MSE", {}),
    "token mse": ("strategies.mse.MSE", {"level": "token", "pooled_weight": 0.0}),
    "contrastive": ("strategies.contrastive.Contrastive", {}),
}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "static": (
        "lightning_modules.students.static.StaticEncoder",
        {"model": "starter/e5-small", "vocabulary": "trim", "max_length": 64},
    ),
    "contextual": (
        "lightning_modules.students.transformer.TransformerEncoder",
        {"model": "starter/e5-small", "vocabulary": "trim", "max_length": 64, "layers": 1, "dropout": 0.1},
    ),
}
STUDENTS["late"] = STUDENTS["static"]
EPOCHS = {"static": 6, "contextual": 4, "late": 6}
PRECISION: dict[str, Any] = {"static": "32-true", "contextual": "bf16-mixed", "late": "32-true"}
TEACHERS = {"late": "runs/benchmarks/late_teacher"}
"""Condition -> run folder of its teacher; the others learn from all-MiniLM-L6-v2 as it is."""
LATE_TEACHER = ["--data", "starter_english", "--config", "configs/late_teacher.yaml", "--logger", "none"]
"""What makes it: MiniLM trained with MaxSim on English pairs, without a query that is reported."""
GRID = {
    "static": [{"lr": 1e-3, "embedding_lr": rate} for rate in (1e-3, 3e-3, 1e-2, 3e-2)],
    "contextual": [{"lr": 1e-3, "embedding_lr": rate} for rate in (1e-2, 3e-2)],
    "late": [{"lr": 1e-3, "embedding_lr": rate} for rate in (1e-2, 3e-2)],
}
TUNING_LANGUAGE = "ha"
SETTINGS = Path(__file__).parent / "strategies.yaml"
"""Learning rates that ``--tune`` chose; written by it."""


@dataclass(frozen=True)
class StrategyCell:
    """One run of the benchmark."""

    strategy: str
    student: str
    language: str
    seed: int
    epochs: int
    lr: float
    embedding_lr: float
    english: str = "sources"
    test: bool = True

    @property
    def name(self) -> str:
        """File name, one for each different cell."""
        return "_".join(str(value).replace(" ", "") for value in asdict(self).values())


def run_cell(cell: StrategyCell) -> dict[str, Any]:
    """Train and score one cell, in a process of its own with one thread.

    Returns:
        The cell, seconds of training, best dev MAP of each score, and per-query MAP on test, also of the teacher.
    """
    from lightning.pytorch import Trainer, seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint

    from datamodules.starter.emoji import StarterDataModule
    from lightning_modules.cli.cli import TRAINER_DEFAULTS
    from lightning_modules.distillation import DistillationModule
    from lightning_modules.evaluation.callback import RetrievalEvaluation
    from lightning_modules.run.trainer import StepSeed
    from lightning_modules.teachers.cached import CachedTeacher
    from lightning_modules.teachers.online import OnlineTeacher
    from lightning_modules.teachers.run import RunTeacher

    seed_everything(cell.seed, verbose=False)
    module = DistillationModule(
        build(STUDENTS[cell.student]),
        CachedTeacher(RunTeacher(TEACHERS[cell.student]) if cell.student in TEACHERS else OnlineTeacher()),
        build(STRATEGIES[cell.strategy]),
        lr=cell.lr,
        embedding_lr=cell.embedding_lr,
        score="both",
    )
    data = StarterDataModule(language=cell.language, english=cell.english, remove_leaks=False, seed=cell.seed)
    evaluation = RetrievalEvaluation(metrics=["map"])
    with tempfile.TemporaryDirectory() as folder:
        best = {
            score: ModelCheckpoint(folder, filename=score, monitor=f"dev/{key}", mode="max", save_weights_only=True)
            for score, key in SCORES.items()
        }
        trainer = Trainer(
            **{**TRAINER_DEFAULTS, "log_every_n_steps": 1000},
            max_epochs=cell.epochs,
            check_val_every_n_epoch=2,
            precision=PRECISION[cell.student],
            accelerator="cpu",
            callbacks=[evaluation, StepSeed(cell.seed), *best.values()],
            enable_progress_bar=False,
        )
        began = time.perf_counter()
        trainer.fit(module, datamodule=data)
        result: dict[str, Any] = {
            "cell": asdict(cell),
            "seconds": time.perf_counter() - began,
            "pairs": len(data.pairs),
            "dev": {score: float(callback.best_model_score or 0) for score, callback in best.items()},
        }
        if cell.test:
            result["test"], result["undistilled"], result["teacher"] = {}, {}, {}
            for score, key in SCORES.items():
                checkpoint = best[score].best_model_path
                trainer.test(module, datamodule=data, ckpt_path=checkpoint, verbose=False, weights_only=True)
                for row in ("test", "undistilled", "teacher"):
                    result[row][score] = evaluation.results[row].per_query[key]
    return result


SCORES = {"pooled": "map", "maxsim": "maxsim/map"}


def make_teachers(students: list[str]) -> None:
    """Train the teachers that some conditions need, where that was not done yet."""
    for folder in (Path(TEACHERS[student]) for student in students if student in TEACHERS):
        if not is_finished(folder):
            output = ["--output", str(folder.parent), "--name", folder.name]
            subprocess.run([sys.executable, "train.py", *LATE_TEACHER, *output], check=True)


def tune(students: list[str], folder: Path, workers: int) -> None:
    """Choose the learning rates of each strategy by pooled and MaxSim dev MAP, and write them to the settings file."""
    cells = [
        StrategyCell(strategy, student, TUNING_LANGUAGE, 0, EPOCHS[student], **rates, test=False)
        for student in students
        for strategy, rates in itertools.product(STRATEGIES, GRID[student])
    ]
    settings: dict[str, Any] = yaml.safe_load(SETTINGS.read_text(encoding="utf-8")) if SETTINGS.is_file() else {}
    by_choice: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in run_cells(cells, run_cell, folder, workers):
        by_choice.setdefault((result["cell"]["student"], result["cell"]["strategy"]), []).append(result)
    for (student, strategy), results in by_choice.items():
        best = max(results, key=lambda result: result["dev"]["pooled"] + result["dev"]["maxsim"])
        settings.setdefault(student, {})[strategy] = {
            "lr": best["cell"]["lr"],
            "embedding_lr": best["cell"]["embedding_lr"],
            "dev_map": {
                f"lr {r['cell']['lr']}, embedding_lr {r['cell']['embedding_lr']}": {
                    score: round(value, 4) for score, value in r["dev"].items()
                }
                for r in results
            },
        }
    with write_whole(SETTINGS) as file:
        file.write(
            f"# Written by: python -m benchmarks.strategies --tune  (dev queries of {TUNING_LANGUAGE}, seed 0)\n"
        )
        yaml.safe_dump(settings, file, sort_keys=False)


def _position(cell: dict[str, Any], languages: list[str]) -> tuple[int, ...]:
    """The position of a cell in the tables."""
    students, strategies = list(STUDENTS), list(STRATEGIES)
    return (
        students.index(cell["student"]),
        languages.index(cell["language"]),
        strategies.index(cell["strategy"]),
        cell["seed"],
    )


def _rates(setting: dict[str, Any]) -> tuple[float, float]:
    return setting["lr"], setting["embedding_lr"]


def main() -> None:
    """Parse the command line, run, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strategies", description=__doc__.splitlines()[0])
    parser.add_argument("--languages", nargs="+", default=["sw", "so", "fil", "mr"])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--students", nargs="+", choices=list(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--tune", action="store_true", help="choose the learning rates first")
    parser.add_argument("--tune-only", action="store_true", help="choose the learning rates, and stop")
    add_cell_options(parser, Path("runs/benchmarks/strategies"))
    options = parser.parse_args()
    if not options.report_only:
        make_teachers(options.students)
    if options.tune or options.tune_only:
        tune(options.students, options.folder, options.workers)
    if options.tune_only:
        return
    if options.report_only:
        finished = [read_json(path) for path in sorted(options.folder.glob("*.json"))]
        results = [
            result for result in finished if "test" in result and result["cell"]["language"] in options.languages
        ]
        write_report(sorted(results, key=lambda result: _position(result["cell"], options.languages)), options.json)
        return
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    cells = [
        StrategyCell(strategy, student, language, seed, EPOCHS[student], *_rates(settings[student][strategy]))
        for language, seed, student, strategy in itertools.product(
            options.languages, range(options.seeds), options.students, options.strategies
        )
    ]
    write_report(run_cells(cells, run_cell, options.folder, options.workers), options.json)


if __name__ == "__main__":
    main()
