"""Transport on a GPU: our solvers against POT's batch solvers on the same device, and against solving on the CPU.

python -m benchmarks.transport_gpu [--json FILE] [--write-docs]           # a minute or two, on a CUDA device
python -m benchmarks.transport_gpu --save-costs FILE                      # the costs, for a machine without the teacher
python -m benchmarks.transport_gpu --costs FILE --json FILE               # and there
python -m benchmarks.transport_gpu --render FILE --write-docs             # the page's section from those figures

Times are of the clock, with the device waited for, medians of methods in turn; a ratio is the peer's time over ours.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import transport_peers as peers
from benchmarks.pages import machine, replace_section, versions
from benchmarks.timing import interleaved
from benchmarks.transport_parts import EMD, EPSILON, POT_KERNEL, POT_LOG, TOLERANCE, Row, against, row
from benchmarks.transport_problems import Costs, States
from foundations.files import write_json
from strategies.transport import Solver, solve

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
COMMAND = "python -m benchmarks.transport_gpu"
BATCHES, LENGTHS, ROUNDS, BUDGET = (32, 256), (16, 64, 128), 25, 12.0
OURS: dict[str, Solver] = {"default": "auto", "torch": "torch"}
ON_CPU = "our default on the CPU, with both copies"


def measure(costs: Tensor, device: str) -> list[Row]:
    """All rows.

    Args:
        costs: (B, n, n), for the largest batch and length.
        device: where the solvers run.
    """
    warnings.filterwarnings("ignore", ".*did not converge")
    rows: list[Row] = []
    worst = dict.fromkeys(OURS, 0.0)
    for batch in BATCHES:
        for length in LENGTHS:
            rows += _size(Costs(costs, batch, length, device), worst)
    for side, largest in worst.items():
        rows.append(row(f"{side}: largest violation, all sizes", largest, "L1", at_most=TOLERANCE))
    problem = Costs(costs, BATCHES[-1], LENGTHS[1], device)
    exact = _ours(problem, "reference", cost=problem.cost.double(), tolerance=1e-9, iterations=20_000).plan
    for side, solver in OURS.items():
        distance = (_ours(problem, solver).plan - exact).abs().sum((1, 2)).max().item()
        rows.append(row(f"{side}: plan's L1 distance to the reference, n {LENGTHS[1]}", distance, "L1", at_most=2e-3))
    return rows


def _ours(problem: Costs, solver: Solver, cost: Tensor | None = None, **options: Any) -> Any:
    given = {"epsilon": EPSILON, "tolerance": TOLERANCE, "iterations": 5000} | options
    return solve(problem.cost if cost is None else cost, *problem.marginals, solver=solver, **given)


def _size(problem: Costs, worst: dict[str, float]) -> list[Row]:
    """The times of one size; worst gets the violations."""
    tol = peers.loosest(lambda tol: peers.violation(peers.batched(problem, "sinkhorn", tol), problem) <= TOLERANCE)
    home = problem.to("cpu")

    def on_cpu() -> Tensor:
        plan: Tensor = _ours(problem.to("cpu"), "auto").plan
        return plan.to(problem.cost.device)

    methods: dict[str, Callable[[], Any]] = {side: partial(_ours, problem, solver) for side, solver in OURS.items()}
    methods |= {
        POT_KERNEL: partial(peers.batched, problem, "sinkhorn", tol),
        POT_LOG: partial(peers.batched, problem, "log_sinkhorn", tol),
        EMD: partial(peers.emd_loop, home),
        ON_CPU: on_cpu,
    }
    for side in OURS:
        worst[side] = max(worst[side], peers.violation(methods[side]().plan, problem))
    times = interleaved({name: partial(_waited, run) for name, run in methods.items()}, ROUNDS, BUDGET, _clock)
    size = f"B {len(problem.cost)}, n {problem.cost.shape[1]}"
    return [
        against(f"{side} against {peer}: {size}", times[side], times[peer])
        for side in OURS
        for peer in (POT_KERNEL, POT_LOG, EMD, ON_CPU)
    ]


def _waited(run: Callable[[], Any]) -> None:
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


_clock = time.perf_counter


def markdown(rows: list[Row], about: str) -> str:
    """The section of the page."""
    lines = ["| what | ours | peer | ratio (95 % interval) |", "|---|---|---|---|"]
    for each in rows:
        peer = "" if each["peer"] is None else f"{each['peer']:.3g} {each['unit']}"
        ratio = ""
        if each["ratio"] is not None:
            ratio = f"{each['ratio']:.1f} ({each['interval'][0]:.1f}, {each['interval'][1]:.1f})"
        lines.append(f"| {each['name']} | {each['ours']:.3g} {each['unit']} | {peer} | {ratio} |")
    return "\n".join([*lines, "", about])


def describe() -> str:
    """The paragraph below the table."""
    return (
        f"{machine()}. Epsilon {EPSILON}, L1 tolerance {TOLERANCE:g}, lengths U[0.4 n, n], uniform masses, the "
        "problems of the table above. Each batch solver of POT has the loosest tolerance with which its plan meets "
        "ours; its exact loop runs on the CPU, and its copies are not counted. "
        f"{versions('torch', 'POT', 'triton', 'numba')}."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--costs", help="costs that --save-costs wrote; by default the starter teacher makes them")
    parser.add_argument("--save-costs", metavar="FILE", help="write the costs, and end")
    parser.add_argument("--render", metavar="FILE", help="take the rows from this file of --json")
    parser.add_argument("--write-docs", action="store_true", help="write the page's section")
    options = parser.parse_args(arguments)
    if options.render:
        found = json.loads(Path(options.render).read_text(encoding="utf-8"))
    else:
        if options.costs:
            costs = torch.load(options.costs, weights_only=True).float()
        else:
            costs = States(BATCHES[-1], LENGTHS[-1], "starter/minilm").costs()
        if options.save_costs:
            torch.save(costs.half(), options.save_costs)
            return 0
        if not torch.cuda.is_available():
            print(f"{COMMAND}: there is no CUDA device here; --save-costs and --render need none", file=sys.stderr)
            return 2
        found = {"rows": measure(costs, "cuda"), "about": describe()}
    text = markdown(found["rows"], found["about"])
    print(text)
    if options.json:
        write_json(options.json, found)
    if options.write_docs:
        replace_section(PAGE, COMMAND, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
