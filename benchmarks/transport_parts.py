"""The parts of benchmarks.transport: each gives rows of figures."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import transport_peers as peers
from benchmarks.timing import interleaved, ratio_interval
from benchmarks.transport_problems import Problem, States
from strategies.ot import OptimalTransport
from strategies.transport import Solver, Transport, solve

Row = dict[str, Any]
Settings = dict[str, Any]
EPSILON, TOLERANCE = 0.05, 1e-3
EMD, EMD_BARE, POT_KERNEL, POT_LOG = (
    "POT ot.emd loop", "POT ot.emd loop, checks off", "POT solve_batch, kernel", "POT solve_batch, log",
)  # fmt: skip
OURS: dict[str, Solver] = {"default": "auto", "torch": "torch"}
RHO = 1.0
"""Weight of the marginals in the unbalanced problems."""


def row(
    name: str,
    ours: float,
    unit: str,
    peer: float | None = None,
    ratio: float | None = None,
    interval: tuple[float, float] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """A figure. A target is the least ratio (at_least) or the most that ours may be (at_most)."""
    met = None
    if at_least is not None:
        met = ratio is not None and ratio >= at_least
    elif at_most is not None:
        met = ours <= at_most
    return {
        "name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit,
        "target": at_least if at_most is None else at_most, "met": met,
        "of": "ratio" if at_most is None else "ours", "interval": interval and list(interval),
    }  # fmt: skip


def against(name: str, ours: list[float], peer: list[float], at_least: float | None = None) -> Row:
    """A row of two lists of times."""
    ratio, low, high = ratio_interval(ours, peer)
    return row(
        name, statistics.median(ours), "ms", statistics.median(peer), ratio, interval=(low, high), at_least=at_least
    )


def ours(problem: Problem, solver: Solver = "auto", cost: Tensor | None = None, **options: Any) -> Transport:
    """Our solver on a problem."""
    given = {"epsilon": EPSILON, "tolerance": TOLERANCE, "iterations": 5000} | options
    return solve(problem.cost if cost is None else cost, *problem.marginals, solver=solver, **given)


def target_of(side: str, peer: str, batch: int, length: int) -> float | None:
    """How many times as fast as a peer we want to be."""
    if peer == EMD_BARE:
        return None
    if side == "default":
        return {EMD: 5.0, POT_KERNEL: 10.0, POT_LOG: 50.0}[peer]
    if length < 64 or (peer == EMD and batch < 256):
        return None
    return {EMD: 1.3, POT_KERNEL: 2.0, POT_LOG: 10.0}[peer]


def pot_tolerance(problem: Problem, tolerance: float) -> float:
    """The loosest tolerance of POT's batch solvers that gives plans within ours.

    Both make the same iterations; the kernel's are cheaper to search with.
    """
    return peers.loosest(lambda tol: peers.violation(peers.batched(problem, "sinkhorn", tol), problem) <= tolerance)


def solvers(states: States, settings: Settings) -> list[Row]:
    """Solver alone: times of all, and the largest violation of ours."""
    rows, worst = [], dict.fromkeys(OURS, 0.0)
    for batch in settings["batches"]:
        for length in settings["lengths"]:
            problem = states.problem(batch, length)
            tol = pot_tolerance(problem, TOLERANCE)
            methods: dict[str, Callable[[], Any]] = {
                side: partial(ours, problem, solver) for side, solver in OURS.items()
            }
            methods |= {
                EMD: partial(peers.emd_loop, problem),
                EMD_BARE: partial(peers.emd_loop, problem, center_dual=False, check_marginals=False),
                POT_KERNEL: partial(peers.batched, problem, "sinkhorn", tol),
                POT_LOG: partial(peers.batched, problem, "log_sinkhorn", tol),
            }
            times = interleaved(methods, settings["rounds"], settings["budget"])
            for side in OURS:
                for peer in (EMD, EMD_BARE, POT_KERNEL, POT_LOG):
                    name = f"{side} against {peer}: B {batch}, n {length}"
                    rows.append(against(name, times[side], times[peer], target_of(side, peer, batch, length)))
                worst[side] = max(worst[side], peers.violation(methods[side]().plan, problem))
    for side, largest in worst.items():
        rows.append(row(f"{side}: largest violation, all sizes", largest, "L1", at_most=TOLERANCE))
    return rows


def step_share(states: States, settings: Settings) -> list[Row]:
    """The whole strategy, forward and backward, as a share of a student's step."""
    from transformers import BertConfig, BertModel

    batch, length = settings["step"]
    problem = states.problem(batch, length, shortest=0.25)
    torch.manual_seed(0)
    width = problem.teacher.pooled.shape[1]
    config = BertConfig(
        hidden_size=width, num_hidden_layers=settings["layers"], num_attention_heads=max(1, width // 32),
        intermediate_size=4 * width, vocab_size=30522,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    mask = problem.student.mask
    assert mask is not None
    ids = torch.randint(1000, 30000, mask.shape)

    def step() -> None:
        states = model(ids, mask.long()).last_hidden_state
        pooled = F.normalize((states * mask[..., None]).sum(1), dim=-1)
        torch.autograd.backward((pooled - problem.teacher.pooled).square().sum(1).mean())
        optimiser.step()
        optimiser.zero_grad()

    tokens = problem.student.tokens
    assert tokens is not None
    leaf = replace(problem, student=replace(problem.student, tokens=tokens.clone().requires_grad_()))
    strategies = {side: OptimalTransport(solver=solver) for side, solver in OURS.items()}
    tol = pot_tolerance(problem, strategies["default"].tolerance)

    def by_ours(side: str) -> None:
        terms = strategies[side](leaf.student, leaf.teacher)
        (terms["ot"] + terms["pooled"]).backward()

    losses: dict[str, Callable[[], Any]] = {side: partial(by_ours, side) for side in OURS}
    beside_step = interleaved({"step": step} | losses, settings["step_rounds"], settings["budget"])
    medians = {name: statistics.median(each) for name, each in beside_step.items()}
    losses["POT"] = lambda: torch.autograd.backward(peers.default_loss(leaf, tol))
    times = interleaved(losses, settings["rounds"], settings["budget"])
    rows = [
        row(
            f"student's step: {settings['layers']} layers x {width}, B {batch}, up to {length} tokens",
            medians["step"],
            "ms",
        )
    ]
    for side in OURS:
        share = 100 * medians[side] / medians["step"]
        name = f"{side}: the ot strategy in percent of the step"
        rows.append(row(name, share, "%", at_most=0.8 if side == "default" else None))
        peer = f"{side}: the ot strategy against POT's default loss at the same tolerance"
        rows.append(against(peer, times[side], times["POT"], 8.0 if side == "default" else None))
    return rows


def memory(_: States, settings: Settings) -> list[Row]:
    """Peak memory beyond the embeddings, in cost matrices B n m, measured in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    batch, length = settings["memory"]
    command = [sys.executable, "-m", "benchmarks.transport_memory", str(batch), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for side in OURS:
        few, many = found[side]["50"], found[side]["500"]
        peer = found["POT"]["50"]
        rows.append(row(f"{side}: peak memory at 50 iterations", few, "B n m floats", peer, peer / few, at_most=4.0))
        rows.append(row(f"{side}: peak memory at 500 iterations", many, "B n m floats", at_most=4.0))
        rows.append(row(f"{side}: growth from 50 to 500 iterations", many - few, "B n m floats", at_most=0.25))
    return rows


def tight(states: States, settings: Settings) -> list[Row]:
    """Tolerance 1e-6 in float64."""
    rows = []
    for epsilon in (0.1, 0.05, 0.02, 0.01):
        results = []
        for length in settings["lengths"]:
            problem = states.problem(min(32, settings["batches"][-1]), length)
            results.append(ours(problem, cost=problem.cost.double(), epsilon=epsilon, tolerance=1e-6, iterations=1000))
        met = 100 * min(float(each.converged.float().mean()) for each in results)
        most = max(int(each.iterations.max()) for each in results)
        rows.append(row(f"default: pairs that miss tolerance 1e-6, epsilon {epsilon}", 100 - met, "%", at_most=0.0))
        rows.append(row(f"default: most iterations to 1e-6, epsilon {epsilon}", most, "iterations", at_most=60.0))
    return rows


def plans(states: States, settings: Settings) -> list[Row]:
    """L1 distance of plans to those of POT's log solver in float64."""
    rows = []
    for length in settings["lengths"][:2]:
        problem = states.problem(min(32, settings["batches"][-1]), length)
        exact = peers.batched(problem, "log_sinkhorn", 1e-6, double=True)
        for side, solver in OURS.items():
            distance = float((ours(problem, solver).plan - exact).abs().sum((1, 2)).max())
            name = f"{side}: plan's L1 distance to POT's log solver in float64, n {length}"
            rows.append(row(name, distance, "L1", at_most=2 * TOLERANCE))
    return rows


def gradients(states: States, settings: Settings) -> list[Row]:
    """Error of the student's gradient at loose tolerances."""
    problem = states.problem(min(32, settings["batches"][-1]), settings["lengths"][-1])

    def gradient(solver: Solver, tolerance: float, double: bool = False) -> Tensor:
        sides = []
        for side in (problem.student, problem.teacher):
            tokens, _ = side.require_tokens()
            sides.append(replace(side, tokens=tokens.double() if double else tokens.clone()))
        tokens = sides[0].require_tokens()[0].requires_grad_()
        strategy = OptimalTransport(solver=solver, tolerance=tolerance, iterations=20000, pooled_weight=0.0)
        (found,) = torch.autograd.grad(strategy(sides[0], sides[1])["ot"], tokens)
        return found.double()

    exact = gradient("reference", 1e-8, double=True)
    rows = []
    for side, solver in OURS.items():
        for tolerance, bound in ((1e-2, 0.5), (1e-3, 0.05)):
            error = 100 * float((gradient(solver, tolerance) - exact).norm() / exact.norm())
            rows.append(row(f"{side}: error of the gradient at tolerance {tolerance:g}", error, "%", at_most=bound))
    return rows


def _distance(exact: Tensor, plan: Tensor) -> float:
    return float((plan - exact).abs().sum((1, 2)).max())


def _near(exact: Tensor, plan: Callable[[float], Tensor], tol: float) -> bool:
    return _distance(exact, plan(tol)) <= 1e-4


def _unbalanced(problem: Problem, solver: Solver, tolerance: float) -> Tensor:
    return ours(problem, solver, relaxation=RHO, tolerance=tolerance).plan


def unbalanced(states: States, settings: Settings) -> list[Row]:
    """Unbalanced plans within 1e-4 of the converged one: the loosest tolerance that gives them, on both sides."""
    rows = []
    for batch in settings["batches"]:
        length = settings["lengths"][min(1, len(settings["lengths"]) - 1)]
        problem = states.problem(batch, length)
        exact = ours(problem, "reference", problem.cost.double(), relaxation=RHO, tolerance=1e-9, iterations=20000).plan

        far = partial(_distance, exact)
        theirs = peers.loosest(partial(_near, exact, partial(peers.unbalanced_loop, problem, RHO)))
        mine = {
            side: peers.loosest(partial(_near, exact, partial(_unbalanced, problem, solver)))
            for side, solver in OURS.items()
        }
        methods: dict[str, Callable[[], Any]] = {
            side: partial(_unbalanced, problem, solver, mine[side]) for side, solver in OURS.items()
        }
        methods["POT"] = partial(peers.unbalanced_loop, problem, RHO, theirs)
        times = interleaved(methods, settings["rounds"], settings["budget"])
        for side in OURS:
            name = f"{side}, unbalanced, against POT's loop: B {batch}, n {length}"
            rows.append(against(name, times[side], times["POT"], 10.0 if side == "default" else None))
            distance = far(methods[side]())
            rows.append(row(f"{side}: unbalanced plan's L1 error, B {batch}", distance, "L1", at_most=1e-4))
    return rows


def batch_level(states: States, settings: Settings) -> list[Row]:
    """One large problem, as between the texts of a batch: against POT's NumPy solver."""
    rows = []
    for texts in settings["large"]:
        every = torch.cat([states.teacher, states.student]).flatten(0, 1)
        drawn = torch.randperm(len(every), generator=torch.Generator().manual_seed(3))[:texts]
        vectors = F.normalize(every[drawn], dim=-1)
        noise = F.normalize(torch.randn(vectors.shape, generator=torch.Generator().manual_seed(4)), dim=-1)
        cost = 1 - vectors @ F.normalize(vectors + noise, dim=-1).mT
        tol = peers.loosest(lambda tol: peers.off_uniform(peers.one_problem(cost, tol)) <= TOLERANCE)  # noqa: B023
        mass = torch.full((1, texts), 1 / texts)
        methods: dict[str, Callable[[], Any]] = {
            "default": partial(solve, cost[None], mass, mass, epsilon=EPSILON, tolerance=TOLERANCE),
            "POT": partial(peers.one_problem, cost, tol),
        }
        times = interleaved(methods, settings["rounds"], settings["budget"])
        rows.append(against(f"default against POT ot.sinkhorn: B 1, n {texts}", times["default"], times["POT"]))
    return rows
