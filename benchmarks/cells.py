"""Benchmarks made of many small runs: each in a process of its own, with its result in a file."""

from __future__ import annotations

import argparse
import json
import logging
import lzma
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.progress import Progress

from foundations.files import read_json, unfinished, write_json, write_whole


class Cell(Protocol):
    """One run of a benchmark."""

    @property
    def name(self) -> str:
        """File name, one for each different cell."""


AnyCell = TypeVar("AnyCell", bound=Cell)


def run_cells(
    cells: Iterable[AnyCell], run: Callable[[AnyCell], dict[str, Any]], folder: Path, workers: int
) -> list[dict[str, Any]]:
    """Run what is not in the folder yet, one thread a process, and read all results.

    A benchmark that was stopped goes on where it was.

    Args:
        cells: in the order in which to run them, and of the results.
        run: a function of a module, which runs one cell and gives what JSON can hold.
        folder: the results, ``<name>.json``.
        workers: processes.
    """
    cells = list(cells)
    folder.mkdir(parents=True, exist_ok=True)
    missing = {cell.name: cell for cell in cells if not (folder / f"{cell.name}.json").is_file()}
    # glibc gives large blocks, such as the gradient of a token table, back to the system after each step; that and
    # getting them again took 40 % of a step.
    os.environ |= {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
    with Progress() as progress, ProcessPoolExecutor(workers, get_context("spawn"), initializer=_be_quiet) as pool:
        task = progress.add_task("cells", total=len(missing))
        futures = {pool.submit(run, cell): name for name, cell in missing.items()}
        for future in as_completed(futures):
            with write_whole(folder / f"{futures[future]}.json") as file:
                json.dump(future.result(), file)
            progress.advance(task)
    return [read_json(folder / f"{cell.name}.json") for cell in cells]


def unpack(archive: Path, folder: Path) -> None:
    """Put the results of an archive that `pack` wrote into the folder where it lacks them; there may be no archive."""
    if not archive.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with lzma.open(archive, "rt", encoding="utf-8") as file:
        for name, result in json.load(file).items():
            if not (folder / name).is_file():
                write_json(folder / name, result)


def pack(archive: Path, folder: Path) -> None:
    """Write all results of the folder into one compressed file."""
    results = {path.name: read_json(path) for path in sorted(folder.glob("*.json"))}
    content = json.dumps(results, separators=(",", ":"), sort_keys=True)
    with unfinished(archive) as path:
        path.write_bytes(lzma.compress(content.encode("utf-8"), preset=9))


def add_cell_options(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Add the options that all benchmarks of cells have; ``folder`` is where results are by default."""
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--folder", type=Path, default=folder, help="results of the cells")
    parser.add_argument("--report-only", action="store_true", help="report the finished cells of the folder; run none")
    parser.add_argument("--json", type=Path, help="write the figures to this file, one row a figure")


def build(spec: tuple[str, dict[str, Any]]) -> Any:
    """An object of a class path and its options; so is an option with ``class_path``."""
    path, options = spec
    module, _, name = path.rpartition(".")
    built = {key: _built(value) for key, value in options.items()}
    return getattr(__import__(module, fromlist=[name]), name)(**built)


def _built(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "class_path" in value:
        return build((value["class_path"], value.get("init_args", {})))
    return {key: _built(each) for key, each in value.items()}


def _be_quiet() -> None:
    """One thread, and no warnings that the product silences itself."""
    import torch

    from lightning_modules.cli.cli import IGNORED_WARNINGS, QUIET_LOGGERS

    torch.set_num_threads(1)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", f".*{message}")
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
