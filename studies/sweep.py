"""What sweep.py does: plan, run or submit, and say how it ended."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from foundations.errors import InputError
from studies.cells import LOG, Outcome, SweepOptions, Train, check_records, is_done
from studies.grid import Cell, read_sweeps, select
from studies.noisy_tests import TEST_NOISE_SUFFIX, is_tested, read_test_noise

_MOST_WORKERS = 8


def run_sweep(options: argparse.Namespace, train: Train) -> int:
    """Run the cells that are not finished.

    Args:
        options: of sweep.py.
        train: trains with a command line.

    Returns:
        Exit status: 0, or 1 where a cell failed or is being run by another process.

    Raises:
        InputError: a sweep file or option is wrong, or a folder holds a run with other settings.
    """
    for name in ("workers", "minutes", "cpus", "tasks", "parallel"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}, expected at least 1")
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
        return _submit(open_cells, sweep_options, train, options)
    from studies.workers import run_all

    workers = options.workers or min(_MOST_WORKERS, os.cpu_count() or 1)
    return _report(run_all(open_cells, sweep_options, train, workers), output)


def _sweep_options(options: argparse.Namespace) -> SweepOptions:
    first = Path(options.config[0])
    specs = [path for name in options.config if (path := Path(name).with_suffix(TEST_NOISE_SUFFIX)).is_file()]
    if len(specs) > 1:
        raise InputError(f"two sweep files have a {TEST_NOISE_SUFFIX} next to them, expected at most one", specs[1])
    for spec in specs:
        read_test_noise(spec)
    output = Path(options.output or Path("runs") / first.stem)
    return SweepOptions(output, "wandb" if options.wandb else "none", specs[0] if specs else None)


def _is_finished(cell: Cell, options: SweepOptions) -> bool:
    folder = options.output / cell.name
    return is_done(folder) and (options.test_noise is None or is_tested(folder, cell.labels, options.test_noise))


def _submit(cells: Sequence[Cell], sweep_options: SweepOptions, train: Train, options: argparse.Namespace) -> int:
    from studies.slurm import ArrayJob, submit

    array = ArrayJob(options.partition, options.minutes, options.gpus, options.cpus, options.tasks, options.parallel,
                     options.cluster)  # fmt: skip
    jobs = submit(cells, sweep_options, train, array)
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
