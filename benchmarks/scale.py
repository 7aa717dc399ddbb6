"""Size: memory of training input, search in blocks against brute force and FAISS, encoding that is killed and resumed.

python -m benchmarks.scale [--json FILE]      # a million vectors, 2 GB of pairs; needs 6 GB of disk
python -m benchmarks.scale --small            # seconds

Everything is made on the spot in a temporary folder, and removed. A bound that does not hold gives exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.pages import replace_section, run_module
from foundations.files import write_json

FULL: dict[str, Any] = {
    "documents": 1_000_000, "width": 384, "queries": 1000, "k": 100, "memory_mb": 256, "checked": 20, "repeats": 3,
    "pair_bytes": 2 * 10**9, "batches": 2000, "some": 50_000, "encoded": 200_000, "block": 20_000,
    "rated": 512,
}  # fmt: skip
SMALL: dict[str, Any] = FULL | {
    "documents": 60_000, "width": 64, "queries": 100, "k": 20, "memory_mb": 16, "repeats": 1,
    "pair_bytes": 5 * 10**6, "batches": 20, "some": 5000, "encoded": 20_000, "block": 2000,
    "rated": 64,
}  # fmt: skip
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
RATE = "encode passages: "
MMARCO = 8_841_823
INPUT_MB = 1000
RECALL = 0.8


class Report:
    """Rows of results, and the bounds that did not hold."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.failures: list[str] = []

    def add(self, name: str, ours: float, unit: str, peer: float | None = None) -> None:
        """A row; the peer is what ours is compared with."""
        ratio = None if peer is None else ours / peer
        self.rows.append({"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit})
        compared = "" if peer is None or ratio is None else f"   peer {peer:.3f}   ratio {ratio:.3f}"
        print(f"{name:52} {ours:14.3f} {unit}{compared}", flush=True)

    def require(self, holds: bool, bound: str) -> None:
        """Note a bound."""
        if not holds:
            self.failures.append(bound)
            print(f"FAILED: {bound}", flush=True)


def run_part(name: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Run a part in a process of its own."""
    words = json.dumps(settings | more)
    return run_module(name, "benchmarks.scale_parts", name, words, environment=_variables(settings))


def measure_input(report: Report, settings: dict[str, Any]) -> None:
    """Training input from a large file."""
    run_part("make_pairs", settings)
    found = run_part("training_input", settings)
    report.add("training input: peak memory", found["peak_mb"], "MiB", INPUT_MB)
    report.add("training input: validate and index", found["index_mb_per_s"], "MB/s")
    report.add("training input: pairs", found["pairs_per_s"], "pairs/s")
    report.add("training input: text", found["mb_per_s"], "MB/s")
    report.require(found["peak_mb"] < INPUT_MB, f"training input stays below {INPUT_MB} MiB")
    (Path(settings["folder"]) / "pairs.tsv").unlink()


def measure_search(report: Report, settings: dict[str, Any]) -> None:
    """Search in blocks: memory, exactness, speed."""
    run_part("make_collection", settings)
    memory, budget = run_part("search_memory", settings)["growth_mb"], settings["memory_mb"]
    report.add("search: memory above the start", memory, "MiB", budget)
    report.require(memory <= budget, f"search stays within its {budget} MiB")
    wrong = run_part("brute_force", settings)["wrong"]
    report.add(f"search: queries unlike brute force, of {settings['checked']}", wrong, "queries")
    report.require(wrong == 0, "search gives the ids and scores of brute force")
    times = run_part("against_faiss", settings)
    ratios = [ours / faiss for ours, faiss in zip(times["ours"], times["faiss"], strict=True)]
    size = f"{settings['documents']:,} x {settings['width']}, {settings['queries']} queries"
    report.add(f"search: {size}", min(times["ours"]), "s", min(times["faiss"]))
    print(f"  ratio to faiss.IndexFlatIP in each repeat: {', '.join(f'{r:.2f}' for r in ratios)}", flush=True)
    report.add("search: median ratio to faiss.IndexFlatIP", statistics.median(ratios), "times its time")
    found = run_part("approximate", settings)
    for kind in ("ivf", "hnsw"):
        report.add(f"{kind}: recall@100 of {found['documents']:,} vectors", found[kind]["recall"], "share")
        report.add(f"{kind}: search, against exact", found[kind]["seconds"], "s", found["exact"])
        report.add(f"{kind}: build", found[kind]["build"], "s")
        report.require(found[kind]["recall"] >= RECALL, f"recall@100 of {kind} is at least {RECALL}")


def measure_encoding(report: Report, settings: dict[str, Any]) -> None:
    """Encode without interruption, and killed and resumed."""
    whole, killed = Path(settings["folder"]) / "whole", Path(settings["folder"]) / "killed"
    report.add("encode: static student", run_part("encode", settings, into=str(whole))["per_s"], "vectors/s")
    blocks = -(-settings["encoded"] // settings["block"])
    words = json.dumps(settings | {"into": str(killed)})
    command = [sys.executable, "-m", "benchmarks.scale_parts", "encode", words]
    environment = os.environ | _variables(settings)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None and len(list(killed.glob("pooled-*.npy"))) < 2:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    done = len(list(killed.glob("pooled-*.npy")))
    report.require(2 <= done < blocks, f"the process is killed before the end (it had {done} of {blocks} blocks)")
    again = run_part("encode", settings, into=str(killed))["texts"]
    report.add("encode: texts encoded after the kill", again, "texts", settings["encoded"])
    report.require(again == settings["encoded"] - done * settings["block"], "no complete block is encoded again")
    same = {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in killed.iterdir()
    }
    report.require(same, "killed and resumed encoding gives the same bytes")
    report.add("encode: same bytes after a kill", float(same), "1 is yes")


def measure_encoders(report: Report, settings: dict[str, Any]) -> None:
    """Passages a second of encoders of usual sizes, for the arithmetic of whole collections."""
    found = run_part("encoder_rates", settings)
    for name, rate in found["rates"].items():
        report.add(f"{RATE}{name}, {found['tokens']:.0f} tokens", rate, "passages/s")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--small", action="store_true", help="a small collection, for a test")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each search")
    options = parser.parse_args(arguments)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="potstill-scale-") as folder:
        settings = (SMALL if options.small else FULL) | {"folder": folder, "threads": options.threads}
        for measure in (measure_encoders, measure_encoding, measure_search, measure_input):
            measure(report, settings)
    if options.json:
        write_json(options.json, report.rows)
    if not options.small:
        write_page(report.rows, options.threads)
    for bound in report.failures:
        print(f"benchmarks.scale: does not hold: {bound}", file=sys.stderr)
    return 1 if report.failures else 0


def write_page(rows: list[dict[str, Any]], threads: int) -> None:
    """Write the figures into docs/scale.md.

    Args:
        rows: one a figure.
        threads: of the search.
    """
    lines = [
        f"Measured on {platform.machine()}, {threads} threads, torch {version('torch')}, faiss-cpu "
        f"{version('faiss-cpu')}. Ratio: ours to the peer (of time: below 1 is faster; of memory: the share of the "
        "bound).",
        "",
        "| | ours | peer or bound | ratio | unit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        peer, ratio = ("", "") if row["peer"] is None else (_short(row["peer"]), f"{row['ratio']:.2f}")
        lines.append(f"| {row['name']} | {_short(row['ours'])} | {peer} | {ratio} | {row['unit']} |")
    replace_section(PAGE, "python -m benchmarks.scale", "\n".join(lines))
    rates = {row["name"].removeprefix(RATE): row["ours"] for row in rows if row["name"].startswith(RATE)}
    table = [f"| reader | r on {threads} cores | N / r | with 8 such machines |", "| --- | --- | --- | --- |"]
    for name, rate in rates.items():
        table.append(f"| {name} | {_short(rate)} /s | {_duration(MMARCO / rate)} | {_duration(MMARCO / rate / 8)} |")
    table.append("| yours, r on your GPU | r | N / r s | N / (8 r) s |")
    replace_section(PAGE, "python -m benchmarks.scale (encoders)", "\n".join(table))


def _duration(seconds: float) -> str:
    """In the unit that fits: minutes, hours or days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _variables(settings: dict[str, Any]) -> dict[str, str]:
    """Variables of a part's process: what is derived from files goes into the temporary folder as well."""
    return {"POTSTILL_CACHE": settings["folder"] + "/cache", "OMP_NUM_THREADS": str(settings["threads"])}


if __name__ == "__main__":
    sys.exit(main())
