"""What is kept of the values of training steps, and the check that they are numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from datamodules.pairs import PairBatch
from foundations.errors import StoppedError

_SHOWN = 3
_LONGEST = 60
_RANKED = 256
"""Vectors of a batch of which the `effective_rank` is logged: half a millisecond."""


class NotFiniteError(StoppedError):
    """A loss, vectors or weights are NaN or infinite."""


class FiniteValues:
    """Stops a run whose loss or vectors are not finite.

    On a CPU at once. On a GPU one batch later, so that nothing waits: the answers are copied to the host behind the
    work that they are about, and read when the next batch is queued.
    """

    def __init__(self) -> None:
        self._batch: PairBatch | None = None
        self._open: list[Callable[[], None]] = []

    def check(self, value: Tensor, name: str, batch: PairBatch, step: int) -> None:
        """Look at a value of a step, of any shape, and at what the batch before left open.

        Raises:
            NotFiniteError: with the ids and the first texts of its batch.
        """
        finite = torch.isfinite(value.detach()).all()
        if not finite.is_cuda:
            _stop_unless(bool(finite), name, batch, step)
            return
        on_host = torch.empty((), dtype=torch.bool, pin_memory=True)
        on_host.copy_(finite, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()

        def look() -> None:
            copied.synchronize()
            _stop_unless(bool(on_host), name, batch, step)

        if batch is not self._batch:
            self.settle()
        self._batch = batch
        self._open.append(look)

    def settle(self) -> None:
        """Look at all that was left open."""
        looks, self._open = self._open, []
        for look in looks:
            look()


def _stop_unless(finite: bool, name: str, batch: PairBatch, step: int) -> None:
    if not finite:
        pairs = zip(batch.ids.tolist(), batch.source, batch.target, strict=True)
        shown = [f"{number}: {source[:_LONGEST]!r} / {target[:_LONGEST]!r}" for number, source, target in pairs]
        left = batch.ids.tolist()[_SHOWN:]
        more = f", and {len(left)} more: ids {left}" if left else ""
        raise NotFiniteError(
            f"the {name} of step {step + 1} is not finite; its batch is {', '.join(shown[:_SHOWN])}{more}"
        )


def check_weights(weights: Mapping[str, Any], step: int) -> None:
    """Raise `NotFiniteError` where a weight is NaN or infinite; what a strategy remembers may be."""
    for name, value in weights.items():
        if name.startswith("distillation."):
            continue  # its parameters, if it has any, are in every loss
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NotFiniteError(f"the weights {name} after step {step} are not finite, so no checkpoint was written")


BOUNDS: dict[str, tuple[float, float, str]] = {
    "gradient_norm": (0, 1e3, "the steps are too large: try a lower --model.lr or --trainer.gradient_clip_val 1"),
    "effective_rank": (2, float("inf"), "the student gives nearly all texts one vector, or vectors on one line"),
    "ot_violation": (0, 0.05, "plans miss their marginals: raise --strategy.iterations or --strategy.epsilon"),
    "ot_entropy": (0.01, float("inf"), "plans have one cell each: raise --strategy.epsilon, if texts have many tokens"),
}
"""Last part of the name of a logged mean -> its least and its most sound value, and what another one says."""


def sound(means: dict[str, Tensor], warned: set[str]) -> dict[str, Tensor]:
    """The means; warns once of each that is outside of its `BOUNDS`, and waits for the device for that.

    Args:
        means: name -> mean of the steps since the last look.
        warned: names of which it was done, which grows.
    """
    for name in [name for name in means if name not in warned]:
        least, most, meaning = BOUNDS.get(name.rpartition("/")[2], (-torch.inf, torch.inf, ""))
        if meaning and not least <= (value := float(means[name])) <= most:
            warned.add(name)
            rank_zero_warn(f"{name} is {value:.3g}, expected {least:g} to {most:g}: {meaning}")
    return means


def health_of(vectors: Tensor, truncated: float) -> dict[str, Tensor]:
    """What to log of the student in a step: the share of its texts that were cut, and the `effective_rank`."""
    return {"info/truncated": torch.tensor(truncated), "info/effective_rank": effective_rank(vectors[:_RANKED])}


def effective_rank(vectors: Tensor) -> Tensor:
    """How many directions vectors (B, D) spread over around their mean, from 1 to min(B, D); 0 if all are the same.

    The participation ratio (sum l)^2 / sum l^2 of the eigenvalues l of their covariance (Gao et al., bioRxiv 214262),
    which takes a product of matrices and no decomposition.
    """
    centred = (vectors.detach() - vectors.detach().mean(0)).float()
    products = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    spread = products.diagonal().sum()
    return spread.square() / products.square().sum().clamp(min=1e-20)


def gradient_norm(module: nn.Module) -> Tensor:
    """The norm of all gradients of a module as one vector; under FSDP of this rank's shards."""
    return nn.utils.get_total_norm([weight.grad for weight in module.parameters() if weight.grad is not None])


class RunningMeans:
    """Means of named scalars over the steps since a point; adding to them does not wait for the device."""

    def __init__(self) -> None:
        self.point = 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def start_at(self, point: int) -> None:
        """Begin again, unless it is still the point that they began at."""
        if point != self.point:
            self.point, self.sums, self.counts = point, {}, {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Count the values of one step, detached."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.float() if name in self.sums else value.float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """Name -> mean over the steps that had the value."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"point": self.point, "sums": {k: float(v) for k, v in self.sums.items()}, "counts": dict(self.counts)}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.point, self.counts = state["point"], dict(state["counts"])
        self.sums = {name: torch.tensor(total) for name, total in state["sums"].items()}
