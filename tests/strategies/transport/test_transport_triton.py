"""The GPU kernel on the CPU: by Triton's interpreter, and compiled for a GPU that need not be there.

Each in a process of its own, since the interpreter is chosen when the kernel is defined.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed (it is for Linux alone)")

INTERPRET = """
    import json, torch, torch.nn.functional as F
    from strategies.transport import gpu_solver, reference
    from strategies.transport.problem import Options

    torch.manual_seed(0)
    x, y = (F.normalize(torch.randn(3, n, 8), dim=-1) for n in (5, 18))
    cost = 1 - x @ y.mT
    source, target = torch.rand(3, 5), torch.rand(3, 18)
    source[1, 3:] = source[2, 1:] = target[1, 9:] = target[2, 1:] = 0  # padding, and one token a side
    cost[1, 3:] = cost[1, :, 9:] = torch.nan
    source, target = (mass / mass.sum(1, keepdim=True) for mass in (source, target))
    found = {}
    for epsilon, relaxation in ((0.3, None), (0.05, None), (0.01, None), (0.3, 0.5)):
        ours = gpu_solver.solve(cost, source, target, Options(epsilon, 2000, 1e-4, relaxation))
        slow = reference.solve(cost, source, target, Options(epsilon, 20000, 1e-7, relaxation))
        found[f"{epsilon} {relaxation}"] = {
            "plan": (ours.plan - slow.plan).abs().sum((1, 2)).max().item(),
            "value": (ours.value - slow.value).abs().max().item(),
            "converged": bool(ours.converged.all() and slow.converged.all()),
            "padding": ours.plan[1, 3:].abs().sum().item() + ours.plan[1, :, 9:].abs().sum().item(),
            "iterations": int(ours.iterations.max()),
            "slow": int(slow.iterations.max()),
        }
    failed = gpu_solver.solve(cost, source, target, Options(epsilon=0.01, iterations=10, tolerance=1e-5))
    found["failed"] = failed.converged.tolist()
    print(json.dumps(found))
"""
COMPILE = """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from strategies.transport.gpu_solver import _sinkhorn

    constants = {"balanced": True, "normalise": True, "height": 16, "width": 16}
    integers = "source_length", "target_length", "iterations"
    types = {
        name: "*i64" if name == "used_ptr" else "*i32" if name == "wrong_ptr" else "*fp32" if name.endswith("_ptr")
        else "constexpr" if name in constants else "i32" if name in integers else "fp32"
        for name in _sinkhorn.arg_names
    }
    source = ASTSource(_sinkhorn, types, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 1})
    print(len(compiled.asm["ptx"]))
"""


def run(code: str, folder: Path, interpret: bool) -> str:
    variables = os.environ | {
        "TRITON_INTERPRET": str(int(interpret)),
        "TRITON_CACHE_DIR": str(folder),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, env=variables
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_interpreted_kernel_gives_the_plans_of_the_reference(tmp_path):
    found = json.loads(run(INTERPRET, tmp_path, interpret=True))
    assert found.pop("failed") == [False, False, True]  # one token a side needs no iteration
    for case, result in found.items():
        assert result["converged"], case
        assert result["plan"] < 5e-4, case
        assert result["value"] < 1e-4, case
        assert result["padding"] == 0, case
    assert found["0.01 None"]["iterations"] < found["0.01 None"]["slow"] / 3  # over-relaxation


@pytest.mark.slow
def test_kernel_compiles_for_a_gpu(tmp_path):
    assert int(run(COMPILE, tmp_path, interpret=False)) > 1000


def test_cpu_and_long_texts_are_refused():
    import torch

    from strategies.transport.gpu_solver import solve
    from strategies.transport.problem import Options

    for size, message in ((4, "runs on a GPU"), (129, "up to 128 tokens")):
        marginal = torch.full((1, size), 1 / size)
        with pytest.raises(ValueError, match=message):
            solve(torch.zeros(1, size, size), marginal, marginal, Options(0.1, 10, 1e-2))
