"""Run the cells of a sweep as one array of SLURM jobs, by submitit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foundations.errors import InputError
from studies.cells import Outcome, SweepOptions, Train, run_cell
from studies.grid import Cell


@dataclass(frozen=True)
class ArrayJob:
    """The resources to ask SLURM for."""

    partition: str | None = None  # None is the default one of the cluster
    minutes: int = 120  # limit of a task; one that runs into it is put back into the queue, and goes on where it was
    gpus: int = 0  # of a task
    cpus: int = 2  # of a task
    tasks: int | None = None  # of the array, among which the cells are dealt out; None is one task a cell
    parallel: int = 16  # tasks that may run at once
    cluster: str = "slurm"  # for a trial "local" (processes of this machine) or "debug" (this process)


class ArrayTask:
    """One task of the array: its cells, run one after the other."""

    def __init__(self, cells: Sequence[Cell], options: SweepOptions, train: Train) -> None:
        self.cells, self.options, self.train = list(cells), options, train

    def __call__(self) -> list[Outcome]:
        """Run the cells; if one failed, a RuntimeError at the end lets SLURM count the task as failed."""
        outcomes = []
        for cell in self.cells:
            outcomes.append(run_cell(cell, self.options, self.train))
            print(f"{cell.name} {outcomes[-1].status} {outcomes[-1].message}", flush=True)
        if failed := [f"{each.name} ({each.message})" for each in outcomes if each.status == "failed"]:
            raise RuntimeError(f"{len(failed)} of {len(outcomes)} cells failed: {', '.join(failed)}")
        return outcomes

    def checkpoint(self, *_: Any) -> Any:
        """What submitit queues when the task is pre-empted or out of time: the same again, as cells resume."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(cells: Sequence[Cell], options: SweepOptions, train: Train, array: ArrayJob) -> list[Any]:
    """Queue the cells as one array, and return at once submitit's jobs, one a task."""
    try:
        import submitit
    except ImportError:
        raise InputError("--slurm needs submitit: pip install submitit") from None
    count = min(array.tasks or len(cells), len(cells))
    tasks = [ArrayTask(cells[start::count], options, train) for start in range(count)]
    try:
        executor = submitit.AutoExecutor(folder=options.output / "slurm", cluster=array.cluster)
    except RuntimeError as error:
        raise InputError(f"cannot submit to {array.cluster}: {str(error).splitlines()[0]}") from None
    resources: dict[str, Any] = {"name": options.output.name, "timeout_min": array.minutes, "cpus_per_task": array.cpus}
    if array.gpus:
        resources["gpus_per_node"] = array.gpus
    if array.cluster == "slurm":
        resources["slurm_array_parallelism"] = array.parallel
        resources |= {"slurm_partition": array.partition} if array.partition else {}
    executor.update_parameters(**resources)
    with executor.batch():
        return [executor.submit(task) for task in tasks]
