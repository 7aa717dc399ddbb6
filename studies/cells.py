"""One cell of a sweep: its run folder, and how it is run, resumed, or left alone."""

from __future__ import annotations

import gc
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from foundations.errors import InputError
from foundations.files import read_json, write_json
from lightning_modules.models.trust import trusting
from lightning_modules.names import moved
from retrieval.results import is_finished
from studies.grid import Cell, difference

RECORD = "cell.json"
LOG = "log.txt"
_SECONDS_TO_WAIT = 10
Train = Callable[[list[str]], None]
"""A function that trains with the given command line: that of train.py."""


@dataclass(frozen=True)
class SweepOptions:
    """Where and how the cells of a sweep are run."""

    output: Path  # folder of the run folders
    logger: str = "none"  # of the runs, as in ``train.py --logger``
    test_noise: Path | None = None  # noise that finished runs are tested under, see `studies.noisy_tests`
    trust: bool = False  # whether these runs may name code from elsewhere


@dataclass(frozen=True)
class Outcome:
    """How a cell ended."""

    name: str
    status: str  # ``finished``, ``failed``, or ``busy`` where another process was running it
    seconds: float  # of work
    message: str = ""  # of the error, in one line


def check_records(cells: Sequence[Cell], output: Path) -> None:
    """Refuse, by an InputError, a folder that has a run with other settings, or one that no sweep made."""
    for cell in cells:
        folder = output / cell.name
        if not is_finished(folder) and not (folder / "checkpoints").is_dir():
            continue  # nothing was trained
        record = folder / RECORD
        if not record.is_file():
            raise InputError(f"not a run of a sweep: it has no {RECORD}; choose another --output", folder)
        before = moved(read_json(record)["settings"])
        if changed := difference(before, _plain(cell.settings())):
            raise InputError(f"was run with other settings: {changed}. Choose another --output, or remove it", folder)


def run_cell(cell: Cell, options: SweepOptions, train: Train) -> Outcome:
    """Run a cell, or the rest of it; raises nothing but an interrupt.

    A cell with metrics is not trained again, and an interrupted one goes on at its last checkpoint. What is printed
    goes to ``log.txt`` in the run folder.
    """
    folder, began = options.output / cell.name, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    status, message = "finished", ""
    try:
        with FileLock(folder / ".lock", timeout=_SECONDS_TO_WAIT), _logged(folder / LOG):
            _run(cell, folder, options, train)
    except Timeout:
        status, message = "busy", "another process is running it"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a cell does, the others go on
        with (folder / LOG).open("a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
        lines = str(error).strip().splitlines()
        status, message = "failed", f"{type(error).__name__}: {lines[0] if lines else ''}"
    gc.collect()
    return Outcome(cell.name, status, time.monotonic() - began, message)


def _run(cell: Cell, folder: Path, options: SweepOptions, train: Train) -> None:
    if not is_finished(folder):
        write_json(folder / RECORD, {"name": cell.name, "labels": cell.labels, "options": cell.options,
                                     "settings": _plain(cell.settings())})  # fmt: skip
        train([
            *cell.arguments, f"--output={options.output}", f"--name={cell.name}", f"--logger={options.logger}",
            "--trainer.enable_progress_bar=false", "--resume",
            *(["--plots=false"] if options.logger == "none" else []),  # the report draws; saves a sixth of a small cell
        ])  # fmt: skip
        if not is_finished(folder):
            raise RuntimeError("the run ended without metrics.json")
    if options.test_noise is not None:
        from studies.noisy_tests import measure_under_noise

        with trusting(options.trust):
            measure_under_noise(folder, cell.labels, options.test_noise)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send what is printed to a file, and hide SLURM from train.py: a cell is one process, in a folder of its name."""
    slurm = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SLURM_")}
    try:
        with path.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
            yield
    finally:
        os.environ.update(slurm)
