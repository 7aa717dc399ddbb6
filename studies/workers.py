"""Run many cells at once on this machine: worker processes of one thread, each running one cell after the other."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from studies.cells import Outcome, SweepOptions, Train, run_cell
from studies.grid import Cell

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_all(cells: Sequence[Cell], options: SweepOptions, train: Train, workers: int) -> list[Outcome]:
    """Run cells in worker processes, with a progress bar; the outcomes come in the order in which cells end.

    If a worker dies, its cell counts as failed, and a new worker replaces it. ``train`` must be a function of a module,
    so that a new process can import it.
    """
    outcomes = []
    with _one_thread_each(), Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False),
        console=Console(stderr=True), disable=not sys.stderr.isatty(), speed_estimate_period=600,
    ) as progress:  # fmt: skip
        bar = progress.add_task("cells", total=len(cells))
        began = time.monotonic()
        for outcome in _outcomes(cells, options, train, min(workers, len(cells))):
            outcomes.append(outcome)
            progress.advance(bar)
            left = (time.monotonic() - began) / len(outcomes) * (len(cells) - len(outcomes))
            message = f": {outcome.message}" if outcome.message else ""
            line = (
                f"[{len(outcomes)}/{len(cells)}, {_duration(left)} left] {outcome.name} {outcome.status} after "
                f"{outcome.seconds:.0f} s{message}"
            )
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
    return outcomes


class _Worker:
    """A process, the pipe to it, and the cell that it is running."""

    def __init__(self, options: SweepOptions, train: Train) -> None:
        context = get_context("spawn")
        pipe, its_pipe = context.Pipe()
        self.pipe: Connection = pipe
        self.process: BaseProcess = context.Process(target=_work, args=(its_pipe, options, train, os.getpid()))
        self.process.start()
        its_pipe.close()
        self.cell: Cell | None = None
        self.began = 0.0

    def give(self, cell: Cell | None) -> None:
        """Hand over a cell; None tells it to end."""
        self.cell, self.began = cell, time.monotonic()
        self.pipe.send(cell)

    def result(self) -> Outcome:
        """How its cell ended; to be called once the pipe has a message or the process has ended."""
        assert self.cell is not None
        try:
            return cast(Outcome, self.pipe.recv())
        except (EOFError, OSError):
            self.process.join()
            reason = f"its process died with exit status {self.process.exitcode}"
            return Outcome(self.cell.name, "failed", time.monotonic() - self.began, reason)


def _outcomes(cells: Sequence[Cell], options: SweepOptions, train: Train, count: int) -> Iterator[Outcome]:
    waiting = deque(cells)
    workers = [_Worker(options, train) for _ in range(count)]
    try:
        for worker in workers:
            worker.give(waiting.popleft())
        while busy := [worker for worker in workers if worker.cell is not None]:
            ready = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe not in ready:
                    continue
                yield worker.result()
                if not worker.process.is_alive() and waiting:
                    workers.remove(worker)
                    worker = _Worker(options, train)  # noqa: PLW2901
                    workers.append(worker)
                if waiting:
                    worker.give(waiting.popleft())
                else:
                    worker.cell = None
    finally:
        for worker in workers:
            if worker.cell is not None:
                worker.process.terminate()
            worker.pipe.close()  # an idle worker ends when nothing can come any more
            worker.process.join()


def _work(pipe: Connection, options: SweepOptions, train: Train, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends the workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            cell = pipe.recv()
        except EOFError:
            return
        pipe.send(run_cell(cell, options, train))


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: a new sweep may want to run the cell."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Environment for new processes: as many workers as cores would otherwise run on cores times cores threads."""
    before = {name: os.environ[name] for name in _THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name in _THREADS:
            del os.environ[name]
        os.environ.update(before)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
