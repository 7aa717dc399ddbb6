"""Peak memory of a transport loss beyond its embeddings, in a process of its own (Linux).

python -m benchmarks.transport_memory BATCH LENGTH

The resident set is read from the kernel: it holds what torch, NumPy, and compiled loops allocate, which no profiler
sees together. Buffers of 64 KB and more are mapped singly, so that a freed one is gone at once.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.transport_problems import Problem
from strategies.base import Embeddings
from strategies.ot import OptimalTransport
from strategies.transport import Solver

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
WIDTH = 384


def problem(batch: int, length: int) -> Problem:
    """Random states with lengths U[0.4 n, n]; the student's need a gradient."""
    draw = torch.Generator().manual_seed(0)
    sides = []
    for _ in range(2):
        lengths = torch.randint(round(0.4 * length), length + 1, (batch, 1), generator=draw)
        tokens = torch.randn(batch, length, WIDTH, generator=draw)
        sides.append(Embeddings(F.normalize(tokens[:, 0], dim=-1), tokens, torch.arange(length) < lengths))
    sides[1].require_tokens()[0].requires_grad_()
    return Problem(*sides)


def peak(side: str, iterations: int, given: Problem) -> float:
    """The peak above what stood before, less the gradient of the student's tokens, in costs of 4 B n m bytes."""
    _step(side, iterations, problem(2, 8))  # what is made once, such as compiled code
    batch, length, width = given.student.require_tokens()[0].shape
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again
    before = _resident("VmRSS")
    _step(side, iterations, given)
    floats = (_resident("VmHWM") - before) / 4 - batch * length * width
    given.student.require_tokens()[0].grad = None
    return floats / (batch * length * length)


def _step(side: str, iterations: int, given: Problem) -> None:
    if side == "POT":
        from benchmarks.transport_peers import default_loss

        torch.autograd.backward(default_loss(given, tol=0.0, max_iter=iterations))
        return
    solver: Solver = "auto" if side == "default" else "torch"
    strategy = OptimalTransport(solver=solver, tolerance=1e-12, iterations=iterations, pooled_weight=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no pair reaches this tolerance, so that all iterations are made
        torch.autograd.backward(strategy(given.student, given.teacher)["ot"])


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def main() -> None:
    """Print a line of JSON: peaks by side and iterations."""
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.transport_memory", *sys.argv[1:]], os.environ | MALLOC
        )
    torch.set_num_threads(1)
    given = problem(*(int(number) for number in sys.argv[1:]))
    found = {side: {str(count): peak(side, count, given) for count in (50, 500)} for side in ("default", "torch")}
    print(json.dumps(found | {"POT": {"50": peak("POT", 50, given)}}))


if __name__ == "__main__":
    main()
