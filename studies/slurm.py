"""Run the cells of a sweep as one array of SLURM jobs, by submitit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foundations.errors import InputError
from studies.cells import Outcome, Place, Train, run_cell
from studies.grid import Cell


@dataclass(frozen=True)
class Array:
    """What to ask SLURM for.

    Args:
        partition: None is the default one of the cluster.
        minutes: limit of a task; one that runs into it is put back into the queue, and goes on where it was.
        gpus: of a task.
        cpus: of a task.
        tasks: of the array; the cells are dealt out to them. None is one task a cell.
        parallel: tasks that may run at once.
        cluster: ``slurm``; ``local`` (processes of this machine) and ``debug`` (this process) are for trying out.
    """

    partition: str | None = None
    minutes: int = 120
    gpus: int = 0
    cpus: int = 2
    tasks: int | None = None
    parallel: int = 16
    cluster: str = "slurm"


class Share:
    """The cells of one task of the array.

    Args:
        cells: to run, one after the other.
        place: where.
        train: trains, given a command line.
    """

    def __init__(self, cells: Sequence[Cell], place: Place, train: Train) -> None:
        self.cells, self.place, self.train = list(cells), place, train

    def __call__(self) -> list[Outcome]:
        """Run them; what a task before it finished is left alone.

        Raises:
            RuntimeError: a cell failed, once all were run, so that SLURM counts the task as failed.
        """
        outcomes = []
        for cell in self.cells:
            outcomes.append(run_cell(cell, self.place, self.train))
            print(f"{cell.name} {outcomes[-1].status} {outcomes[-1].message}", flush=True)
        if failed := [f"{each.name} ({each.message})" for each in outcomes if each.status == "failed"]:
            raise RuntimeError(f"{len(failed)} of {len(outcomes)} cells failed: {', '.join(failed)}")
        return outcomes

    def checkpoint(self, *_: Any) -> Any:
        """What submitit queues when the task is pre-empted or out of time: the same again, as cells go on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(cells: Sequence[Cell], place: Place, train: Train, array: Array) -> list[Any]:
    """Queue the cells as one array, and return at once.

    Args:
        cells: what to run.
        place: where; submitit's logs go to its folder ``slurm``.
        train: trains, given a command line.
        array: what to ask for.

    Returns:
        submitit's jobs, one a task.

    Raises:
        InputError: submitit or SLURM is not there.
    """
    try:
        import submitit
    except ImportError:
        raise InputError("--slurm needs submitit: pip install submitit") from None
    count = min(array.tasks or len(cells), len(cells))
    shares = [Share(cells[start::count], place, train) for start in range(count)]
    try:
        executor = submitit.AutoExecutor(folder=place.output / "slurm", cluster=array.cluster)
    except RuntimeError as error:
        raise InputError(f"cannot submit to {array.cluster}: {str(error).splitlines()[0]}") from None
    options: dict[str, Any] = {"name": place.output.name, "timeout_min": array.minutes, "cpus_per_task": array.cpus}
    if array.gpus:
        options["gpus_per_node"] = array.gpus
    if array.cluster == "slurm":
        options |= {"slurm_array_parallelism": array.parallel}
        options |= {"slurm_partition": array.partition} if array.partition else {}
    executor.update_parameters(**options)
    with executor.batch():
        return [executor.submit(share) for share in shares]
