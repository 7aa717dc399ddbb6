"""What is kept of the values of training steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
