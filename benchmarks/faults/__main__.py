"""Faults put into real processes, a row each: ``python -m benchmarks.faults --write-docs`` writes docs/faults.md."""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.faults.inputs import INPUTS
from benchmarks.faults.matrix import MATRIX
from benchmarks.faults.place import ROOT, Place
from benchmarks.faults.scene import Fault, Outcome, Runner
from foundations.files import write_whole

PAGE = ROOT / "docs" / "faults.md"
_LONGEST = 110


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the matrix; exit status 1 where a row is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose kind or injection holds this regular expression")
    parser.add_argument("--workers", type=int, default=2, help="processes at once")
    parser.add_argument("--keep", type=Path, help="an empty or missing folder for all that is written, to look at")
    parser.add_argument("--write-docs", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    faults = [fault for rows in (*MATRIX, *INPUTS) for fault in rows()]
    faults = [each for each in faults if re.search(options.only, f"{each.kind}: {each.injection}")]
    folder, began = options.keep or Path(tempfile.mkdtemp(prefix="potstill-faults-")), time.monotonic()
    try:
        outcomes = run(faults, folder, options.workers)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    failed = [each for each in outcomes if each.problems]
    print(f"{len(outcomes)} faults in {minutes:.0f} minutes, {len(failed)} not as expected")
    if options.write_docs:
        with write_whole(PAGE) as file:
            file.write(page(outcomes, minutes, options.workers))
    raise SystemExit(1 if failed else 0)


def run(faults: Sequence[Fault], folder: Path, workers: int) -> list[Outcome]:
    """Run faults, each in a folder of its own, and print a line for each."""
    place = Place(folder / "place")
    place.make()
    runner = Runner(place)
    runner.begin()

    def one(numbered: tuple[int, Fault]) -> Outcome:
        number, fault = numbered
        outcome = runner.outcome(fault, folder / f"{number:03d}")
        what = "; ".join(outcome.problems) or "as expected"
        print(f"{number:03d} {fault.kind}: {fault.injection}: {what} ({outcome.ended.seconds:.0f} s)", flush=True)
        if outcome.problems:
            print("    " + "\n    ".join(outcome.ended.text.splitlines()[-4:]), flush=True)
        return outcome

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, enumerate(faults)))


def page(outcomes: Sequence[Outcome], minutes: float, workers: int) -> str:
    """The page of the docs."""
    wrong = sum(bool(each.problems) for each in outcomes)
    lines = [
        "# Faults\n",
        f"`make faults` puts {len(outcomes)} faults into real processes, and writes this page ({minutes:.0f} minutes, "
        f"{workers} at a time); {wrong or 'none'} ended otherwise than expected. The models are tiny, the data 100 "
        "pairs, the runs of 20 steps with a checkpoint every 3. No row may show a traceback, or execute code that came "
        "with the input. After a signal or a kill the run is resumed, and its results, its weights and its curves are "
        "compared bit by bit with those of a run that nothing disturbed. Exit 137 is kill -9; torchrun gives 1, "
        "whatever its ranks gave.\n",
        "| kind | fault | expected | what happened | data lost | exit |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in outcomes:
        cells = (each.fault.kind, each.fault.injection, _expected(each.fault), _happened(each), each.fault.lost)
        lines.append(f"| {' | '.join(map(_cell, cells))} | {each.ended.status} |")
    return "\n".join(lines) + "\n"


def _expected(fault: Fault) -> str:
    after = {"": "", "no run": "no run folder", "unchanged": "nothing changed", "sound": "a sound last checkpoint",
             "goes on": "resumed, equal to the bit", "same results": "same results"}[fault.after]  # fmt: skip
    statuses = fault.status if isinstance(fault.status, tuple) else (fault.status,)
    return ", ".join(filter(None, (f"exit {' or '.join(map(str, statuses))}", after)))


def _happened(outcome: Outcome) -> str:
    if outcome.problems:
        return "NOT AS EXPECTED: " + "; ".join(outcome.problems)
    line = re.sub(r"\s+", " ", outcome.line).strip()
    return f"`{line[:_LONGEST]}{'...' * (len(line) > _LONGEST)}`" if line else "as expected"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
