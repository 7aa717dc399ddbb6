"""What sweep.py does: plan, run or submit the cells, and report how they ended."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from foundations.checks import check_number
from foundations.commands import Parser
from foundations.errors import InputError, as_input_error
from lightning_modules.cli.front_door import config_file
from lightning_modules.commands.train import fit_and_test
from retrieval.results import is_finished
from studies.cells import LOG, Outcome, SweepOptions, check_records
from studies.grid import Cell, read_sweeps, select
from studies.noisy_tests import TEST_NOISE_SUFFIX, is_tested, read_test_noise

_MOST_WORKERS = 8


def sweep(arguments: list[str]) -> int:
    """Run the cells of a sweep that are not finished yet; each is a run folder of train.py."""
    parser = Parser(sweep.__doc__)
    parser.add_argument("--config", nargs="+", required=True, help="sweep files in W&B's format; see configs/sweeps")
    parser.add_argument("--output", help="folder of the run folders (default: runs/NAME of the sweep file)")
    parser.add_argument("--workers", type=int, help="cells at once, of one thread each (default: the cores, at most 8)")
    parser.add_argument("--only", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. language=sw,so rate=0.4")
    parser.add_argument("--dry_run", action="store_true", help="show the cells and what is done, and run nothing")
    parser.add_argument("--wandb", action="store_true", help="log the runs to W&B, as one group")
    parser.add_argument("--trust", action="store_true", help="let runs that are tested under noise name any code")
    parser.add_argument("--slurm", action="store_true", help="submit the cells as one array of jobs, and return")
    parser.add_argument("--partition", help="SLURM: partition")
    parser.add_argument("--minutes", type=int, default=120, help="SLURM: time limit of a task (default: 120)")
    parser.add_argument("--gpus", type=int, default=0, help="SLURM: GPUs of a task (default: 0)")
    parser.add_argument("--cpus", type=int, default=2, help="SLURM: cores of a task (default: 2)")
    parser.add_argument("--tasks", type=int, help="SLURM: tasks that share the cells (default: one a cell)")
    parser.add_argument("--parallel", type=int, default=16, help="SLURM: tasks at once (default: 16)")
    parser.add_argument(
        "--cluster", choices=["slurm", "local", "debug"], default="slurm", help="SLURM: or a trial of it"
    )
    options = parser.parse_args(arguments)
    for name in ("workers", "minutes", "cpus", "tasks", "parallel"):
        if (value := getattr(options, name)) is not None:
            with as_input_error():
                check_number(f"--{name}", value, least=1)
    options.config = [config_file(name) for name in options.config]
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    """Run the cells that are not finished; the exit status is 1 where one failed or another process is running it."""
    cells = read_sweeps(options.config)
    cells = select(cells, options.only) if options.only else cells
    sweep_options = _sweep_options(options)
    output = sweep_options.output
    check_records(cells, output)
    open_cells = [cell for cell in cells if not _is_finished(cell, sweep_options)]
    print(f"{output}: {len(cells)} cells, {len(cells) - len(open_cells)} finished, {len(open_cells)} to run")
    if options.dry_run:
        for cell in cells:
            state = "half-done" if (output / cell.name).is_dir() else "to run"
            print(f"{state if cell in open_cells else 'finished':<9} {cell.name}")
        return 0
    if not open_cells:
        return 0
    output.mkdir(parents=True, exist_ok=True)
    if options.wandb:
        os.environ.setdefault("WANDB_RUN_GROUP", output.name)
    if options.slurm:
        return _submit(open_cells, sweep_options, options)
    from studies.workers import run_all

    workers = options.workers or min(_MOST_WORKERS, os.cpu_count() or 1)
    return _report(run_all(open_cells, sweep_options, fit_and_test, workers), output)


def _sweep_options(options: argparse.Namespace) -> SweepOptions:
    first = Path(options.config[0])
    specs = [path for name in options.config if (path := Path(name).with_suffix(TEST_NOISE_SUFFIX)).is_file()]
    if len(specs) > 1:
        raise InputError(f"two sweep files have a {TEST_NOISE_SUFFIX} next to them, expected at most one", specs[1])
    for spec in specs:
        read_test_noise(spec)
    output = Path(options.output or Path("runs") / first.stem)
    return SweepOptions(output, "wandb" if options.wandb else "none", specs[0] if specs else None, options.trust)


def _is_finished(cell: Cell, options: SweepOptions) -> bool:
    folder = options.output / cell.name
    return is_finished(folder) and (options.test_noise is None or is_tested(folder, cell.labels, options.test_noise))


def _submit(cells: Sequence[Cell], sweep_options: SweepOptions, options: argparse.Namespace) -> int:
    from studies.slurm import ArrayJob, submit

    array = ArrayJob(options.partition, options.minutes, options.gpus, options.cpus, options.tasks, options.parallel,
                     options.cluster)  # fmt: skip
    jobs = submit(cells, sweep_options, fit_and_test, array)
    logs = sweep_options.output / "slurm"
    print(f"submitted {len(cells)} cells as {len(jobs)} tasks: {jobs[0].job_id} ... (logs in {logs})")
    print("--dry_run shows what is finished; the same command submits what is left")
    return 0


def _report(outcomes: Sequence[Outcome], output: Path) -> int:
    counts = Counter(outcome.status for outcome in outcomes)
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    for outcome in outcomes:
        if outcome.status != "finished":
            print(f"{outcome.status}: {outcome.name}: {outcome.message} ({output / outcome.name / LOG})")
    return 0 if counts["finished"] == len(outcomes) else 1
