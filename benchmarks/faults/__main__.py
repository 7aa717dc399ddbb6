"""Faults put into real processes, a row each: ``python -m benchmarks.faults`` writes docs/faults.md."""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.faults.inputs import INPUTS
from benchmarks.faults.matrix import MATRIX
from benchmarks.faults.place import ROOT, Place
from benchmarks.faults.scene import Fault, Runner
from foundations.files import read_json, write_json, write_whole

PAGE, RESULTS = ROOT / "docs" / "faults.md", ROOT / "benchmarks" / "results" / "faults.json"
_LONGEST = 110


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the matrix; exit status 1 where a row is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose kind or injection holds this regular expression")
    parser.add_argument("--workers", type=int, default=2, help="processes at once")
    parser.add_argument("--keep", type=Path, help="an empty or missing folder for all that is written, to look at")
    parser.add_argument("--missing", action="store_true", help="rows alone that are not as expected yet")
    options = parser.parse_args(arguments)
    faults = [fault for rows in (*MATRIX, *INPUTS) for fault in rows()]
    stored = read_json(RESULTS) if RESULTS.is_file() else {}
    chosen = [each for each in faults if re.search(options.only, each.name)]
    if options.missing:
        chosen = [each for each in chosen if stored.get(each.name, {"problems": True})["problems"]]
    folder = options.keep or Path(tempfile.mkdtemp(prefix="potstill-faults-"))
    try:
        run(chosen, folder, options.workers, stored)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    failed = [each.name for each in chosen if stored.get(each.name, {"problems": True})["problems"]]
    print(f"{len(chosen)} faults, {len(failed)} not as expected")
    with write_whole(PAGE) as file:
        file.write(page([each for each in faults if each.name in stored], stored))
    raise SystemExit(1 if failed else 0)


def run(faults: Sequence[Fault], folder: Path, workers: int, stored: dict[str, dict[str, Any]]) -> None:
    """Run faults, each in a folder of its own, print a line for each, and store what happened."""
    place = Place(folder / "place")
    place.make()
    runner, lock = Runner(place), threading.Lock()
    runner.begin()

    def one(numbered: tuple[int, Fault]) -> None:
        number, fault = numbered
        outcome = runner.outcome(fault, folder / f"{number:03d}")
        what = "; ".join(outcome.problems) or "as expected"
        print(f"{number:03d} {fault.name}: {what} ({outcome.ended.seconds:.0f} s)", flush=True)
        if outcome.problems:
            print("    " + "\n    ".join(outcome.ended.text.splitlines()[-4:]), flush=True)
        with lock:
            stored.update(read_json(RESULTS) if RESULTS.is_file() else {})  # another process may write as well
            stored[fault.name] = {"status": outcome.ended.status, "line": outcome.line, "problems": outcome.problems}
            stored[fault.name]["seconds"] = round(outcome.ended.seconds, 1)
            write_json(RESULTS, stored)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, enumerate(faults)))


def page(faults: Sequence[Fault], stored: dict[str, dict[str, Any]]) -> str:
    """The page of the docs."""
    wrong = sum(bool(stored[each.name]["problems"]) for each in faults)
    minutes = sum(stored[each.name]["seconds"] for each in faults) / 60
    total = sum(1 for rows in (*MATRIX, *INPUTS) for _ in rows())
    lines = [
        "# Faults\n",
        f"`make faults` puts {len(faults)} faults into real processes and writes this page; {wrong or 'none'} ended "
        "otherwise than expected. The models are tiny, the data 100 pairs, the runs of 20 steps with a checkpoint "
        "after every third. No row may show a traceback, or execute code that came with the input. After a signal or "
        "a kill the run is resumed, and its results, weights and curves are compared bit by bit with those of a run "
        "that nothing disturbed. Exit 137 is kill -9; torchrun gives 1, whatever its ranks gave. The processes with a "
        f"fault took {minutes:.0f} minutes on two shared cores. {total - len(faults)} rows were not run since they "
        "were last changed, and are not shown.\n",
        "| kind | fault | expected | what happened | data lost | exit |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in faults:
        cells = (each.kind, each.injection, _expected(each), _happened(stored[each.name]), each.lost)
        lines.append(f"| {' | '.join(map(_cell, cells))} | {stored[each.name]['status']} |")
    return "\n".join(lines) + "\n"


def _expected(fault: Fault) -> str:
    after = {"": "", "no run": "no run folder", "unchanged": "nothing changed", "sound": "a sound last checkpoint",
             "goes on": "resumed, equal to the bit", "same results": "same results"}[fault.after]  # fmt: skip
    statuses = fault.status if isinstance(fault.status, tuple) else (fault.status,)
    return ", ".join(filter(None, (f"exit {' or '.join(map(str, statuses))}", after)))


def _happened(result: dict[str, Any]) -> str:
    if result["problems"]:
        return "NOT AS EXPECTED: " + "; ".join(result["problems"])
    line = re.sub(r"[^\x20-\x7e]|`", "", re.sub(r"\s+", " ", result["line"])).strip()
    return f"`{line[:_LONGEST]}{'...' * (len(line) > _LONGEST)}`" if line else "as expected"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
