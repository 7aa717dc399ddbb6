"""A mixture of clean and noisy pairs, by how far each of them stands out from chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ABOVE = 2.0
"""Values above this, in standard deviations of the noisy component, start the clean ones."""
NARROWEST = 0.1
"""The smallest standard deviation of a component, so that none falls onto one value."""


@dataclass(frozen=True)
class Mixture:
    """Gaussians of numbers: a noisy component, which is known, N(0, 1), and clean ones above it.

    Args:
        shares: share of the noisy and of each clean component; (K,), float64, sums to one.
        means: (K,); the first is 0.
        deviations: standard deviations; (K,); the first is 1.
    """

    shares: Tensor
    means: Tensor
    deviations: Tensor

    def clean_posterior(self, values: Tensor) -> Tensor:
        """The probability that each value came from a clean component.

        Values are first clamped to between 0 and the highest clean mean. Beyond that a wider component would take over
        again, and the least of all values would count as clean, or the greatest as noisy.

        Args:
            values: any shape; may be infinite.

        Returns:
            As the values, of their dtype.
        """
        inside = values.to(self.means).clamp(min=0.0).clamp(max=self.means.max())
        distances = (inside[..., None] - self.means) / self.deviations
        scores = self.shares.log() - self.deviations.log() - 0.5 * distances.square()
        return 1 - scores.softmax(-1)[..., 0].to(values)


def fit_mixture(values: Tensor, iterations: int = 100, tolerance: float = 1e-5) -> Mixture | None:
    """Fit clean components, and all shares, by expectation maximisation (Dempster et al. 1977).

    Two Gaussians make up the clean pairs, because some are easy and some hard; the noisy component stays N(0, 1). The
    start does not depend on chance, so equal values give equal mixtures. Runs on the CPU in float64.

    Args:
        values: numbers; those that are not finite are left out; (N,).
        iterations: the most iterations.
        tolerance: stop once the mean log-likelihood grows by less than this.

    Returns:
        The mixture, or None where fewer than two values are clearly above chance.

    Example:
        >>> import torch
        >>> mixture = fit_mixture(torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, 5.0, 5.1, 7.0, 7.3, 7.2]))
        >>> mixture.shares.round(decimals=2)
        tensor([0.5000, 0.2000, 0.3000], dtype=torch.float64)
        >>> mixture.clean_posterior(torch.tensor([0.5, 5.5])).round(decimals=2)
        tensor([0., 1.])
    """
    x = values.detach().flatten().cpu().double().numpy()  # NumPy: many operations on few numbers
    x = np.sort(x[np.isfinite(x)])
    high = x[x > ABOVE]
    if len(high) < 2:
        return None
    halves = np.array_split(high, 2)
    clean = len(high) / (2 * len(x))
    shares = np.array([max(1 - 2 * clean, 1e-3), clean, clean])[:, None]
    means = np.array([0.0, *(half.mean() for half in halves)])[:, None]
    deviations = np.array([1.0, *(half.std() for half in halves)]).clip(NARROWEST)[:, None]
    before = -math.inf
    for _ in range(iterations):
        scores = np.log(shares / deviations) - 0.5 * np.square((x - means) / deviations)
        largest = scores.max(0)
        densities = np.exp(scores - largest)
        total = densities.sum(0)
        likelihood = float((np.log(total) + largest).mean())
        if likelihood - before < tolerance:
            break
        before = likelihood
        responsibility = densities / total
        mass = responsibility.sum(1, keepdims=True).clip(1e-12)
        shares = mass / len(x)
        means[1:] = (responsibility @ x[:, None] / mass)[1:]
        variances = (responsibility * np.square(x - means)).sum(1, keepdims=True) / mass
        deviations[1:] = np.sqrt(variances[1:]).clip(NARROWEST)
    return Mixture(*(torch.from_numpy(part[:, 0].copy()) for part in (shares, means, deviations)))
