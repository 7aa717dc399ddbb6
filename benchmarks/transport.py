"""Transport: our solvers, gradients and memory against POT's, on token states of real texts.

python -m benchmarks.transport [--json FILE] [--write-docs]     # about ten minutes, one thread
python -m benchmarks.transport --quick                          # seconds: tiny sizes, made-up states

All methods run in one process and one thread, in turn; figures are medians of the process's own time. A ratio is the
peer's time over ours. ``--write-docs`` writes docs/benchmarks.md and docs/images/transport.png.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.pages import replace_section, versions
from foundations.files import write_json

FULL: dict[str, Any] = {
    "encoder": "starter/minilm", "batches": [32, 256], "lengths": [16, 64, 128], "rounds": 25, "budget": 40.0,
    "step": (64, 128), "layers": 6, "step_rounds": 5, "memory": (64, 128), "large": [512, 1024, 2048],
}  # fmt: skip
QUICK: dict[str, Any] = FULL | {
    "encoder": None, "batches": [4], "lengths": [8, 16], "rounds": 3, "budget": 1.0,
    "step": (4, 16), "layers": 1, "step_rounds": 3, "memory": (16, 64), "large": [64],
}  # fmt: skip
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
COMMAND = "python -m benchmarks.transport"


def measure(settings: dict[str, Any], only: list[str] | None = None) -> list[dict[str, Any]]:
    """All rows.

    Args:
        settings: sizes.
        only: names of parts; None is all of them.
    """
    import torch

    from benchmarks import transport_parts as parts
    from benchmarks.transport_problems import States

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*did not converge")  # what did not converge stands in the rows
    started = time.perf_counter()
    states = States(settings["batches"][-1], max(settings["lengths"][-1], settings["step"][1]), settings["encoder"])
    rows: list[dict[str, Any]] = []
    every = (
        parts.solvers, parts.step_share, parts.memory, parts.tight, parts.plans, parts.gradients, parts.unbalanced,
        parts.batch_level,
    )  # fmt: skip
    for part in every:
        if only and part.__name__ not in only:
            continue
        print(f"{part.__name__}, after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        for found in part(states, settings):
            print(_line(found), flush=True)
            rows.append(found)
    return rows


def _line(row: dict[str, Any]) -> str:
    peer = "" if row["peer"] is None else f"  peer {row['peer']:.4g}  ratio {row['ratio']:.2f}"
    met = {True: "  met", False: f"  NOT MET ({_target(row)})", None: ""}[row["met"]]
    return f"{row['name']:72} {row['ours']:10.4g} {row['unit']}{peer}{met}"


def _target(row: dict[str, Any]) -> str:
    if row["target"] is None:
        return ""
    return f">= {row['target']:g}x" if row["of"] == "ratio" else f"<= {row['target']:g}"


def markdown(rows: list[dict[str, Any]]) -> str:
    """The section of the page."""
    lines = ["| what | ours | peer | ratio (95 % interval) | target |", "|---|---|---|---|---|"]
    for row in rows:
        peer = "" if row["peer"] is None else f"{row['peer']:.3g} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}"
        if row["interval"]:
            ratio += f" ({row['interval'][0]:.1f}, {row['interval'][1]:.1f})"
        target = f"{_target(row)} {'met' if row['met'] else 'not met'}" if row["target"] is not None else ""
        lines.append(f"| {row['name']} | {row['ours']:.3g} {row['unit']} | {peer} | {ratio} | {target} |")
    used = versions("torch", "POT", "numba", "numpy", "transformers")
    about = (
        "Epsilon 0.05, L1 tolerance 1e-3 where nothing else is said, lengths U[0.4 n, n], uniform masses, 384 "
        "dimensions. Teacher: MiniLM's token states of the licence's prose. Student: those of the same words, "
        "15 % left out, 10 % doubled and the order mixed, plus noise (cosine 0.9). One process, one thread, methods in "
        "turn, medians of processor time; a ratio is the peer's time over ours. Each peer has the loosest tolerance "
        "with which its plan meets ours. Memory: peak resident set above the embeddings and the gradient. "
        f"{used}, Python {platform.python_version()}, {platform.machine()}."
    )
    return "\n".join([about, "", "![Solver times](images/transport.png)", "", *lines])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the times of all solvers over the sizes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    times: dict[str, dict[str, float]] = {}
    for row in rows:
        name, colon, size = row["name"].partition(": B ")
        side, against, peer = name.partition(" against ")
        if colon and against and peer in ("POT ot.emd loop", "POT solve_batch, kernel", "POT solve_batch, log"):
            times.setdefault(f"ours, {side}", {})[f"B {size}"] = row["ours"]
            times.setdefault(peer, {})[f"B {size}"] = row["peer"]
    colours = ["#2b6cb0", "#63a4dc", "#e0b354", "#c98a6b", "#8a8a8a"]
    order = sorted(times, key=lambda name: (not name.startswith("ours"), sum(times[name].values())))
    figure, axes = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
    width = 0.8 / max(1, len(order))
    for place, name in enumerate(order):
        heights = list(times[name].values())
        axes.bar([x + width * (place - (len(order) - 1) / 2) for x in range(len(heights))], heights, width,
                 label=name, color=colours[place])  # fmt: skip
    if order:
        axes.set_xticks(range(len(times[order[0]])), list(times[order[0]]))
    axes.set(yscale="log", ylabel="milliseconds, one thread", title="Token transport to an L1 tolerance of 1e-3")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    axes.set_ylim(top=axes.get_ylim()[1] * 8)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its rows."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, made-up states")
    parser.add_argument("--only", nargs="+", metavar="PART", help="some parts, e.g. solvers step_share memory")
    parser.add_argument("--write-docs", action="store_true", help="write the page's section and the plot")
    options = parser.parse_args(arguments)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    rows = measure(QUICK if options.quick else FULL, options.only)
    if options.json:
        write_json(options.json, rows)
    if options.write_docs:
        replace_section(PAGE, COMMAND, markdown(rows))
        plot(rows, PAGE.parent / "images" / "transport.png")
    missed = [row["name"] for row in rows if row["met"] is False]
    print(f"{len(missed)} of {sum(row['met'] is not None for row in rows)} targets not met", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
