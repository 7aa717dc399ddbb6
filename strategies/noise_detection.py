"""Which pairs are put together wrongly, judged by how far their scores stand out from chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from strategies.base import INFO_PREFIX

FEWEST = 100  # scores that must be in memory before any pair is judged
MOST = 0.9  # share of noisy pairs beyond which none is judged: the student then knows too little
ABOVE = 2.0  # values above this, in standard deviations of the noisy component, start the clean ones
NARROWEST = 0.1  # the smallest standard deviation of a component, so that none falls onto one value
_UNKNOWN = -1


def standing(cosines: Tensor, labels: Tensor, same: Tensor | None) -> Tensor:
    """How far the cosine of each pair stands out from those of its student with other sources.

    It is the z-score (c_ii - mean_j c_ij) / (std_j c_ij sqrt(1 + 1 / n)) over the n sources j with another id. The
    source of a wrong pair is a random one, so for wrong pairs this has mean 0 and variance 1, whatever the student has
    learnt so far; unless it has learnt these pairs by heart. NaN where there are no two other sources that differ.

    Cosines (B, N) are of the students with all sources, labels (B,) the positions of the own ones, and same (B, N) is
    True at other positions with the own source's id.
    """
    others = torch.ones_like(cosines, dtype=torch.bool) if same is None else ~same
    others = others.scatter(1, labels[:, None], False)
    count = others.sum(1)
    mean = (cosines * others).sum(1) / count
    variance = ((cosines - mean[:, None]) * others).square().sum(1) / (count - 1) * (1 + 1 / count)
    own = cosines.gather(1, labels[:, None])[:, 0]
    return torch.where((count > 1) & (variance > 1e-12), (own - mean) / variance.sqrt(), torch.nan)


class NoiseDetector(nn.Module):
    """Divides pairs into clean and noisy by a mixture on their standings, see `standing`.

    Keeps the standings of the last pairs only, since the student changes. A pair is noisy if its
    probability of being clean is under the threshold (see `NoiseMixture`). On clean data the mixture's noisy share
    falls to about zero, so clean pairs are not halved into easy and hard ones.

    Source: division by a mixture on the losses as in DivideMix (Li et al. 2020, arXiv 2002.07394, section 3.1) and
    L2RM (Han et al. 2024, arXiv 2403.05105). The standing replaces the loss because its noisy component is
    known, while losses of hard and of wrong pairs are alike, and change as the student learns.

    The memory, of M standings, is in the state dict. All ranks must remember the same standings; gather them first.
    """

    standings: Tensor
    detected: Tensor
    truth: Tensor
    seen: Tensor

    def __init__(self, memory: int, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.register_buffer("standings", torch.full((memory,), torch.nan))
        self.register_buffer("detected", torch.full((memory,), _UNKNOWN, dtype=torch.int8))
        self.register_buffer("truth", torch.full((memory,), _UNKNOWN, dtype=torch.int8))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def remember(self, standings: Tensor, truth: Tensor) -> Tensor:
        """Keep the standings of some pairs (N,), in the place of the oldest ones; of more than M, the last M.

        The truth (N,) is 1 at pairs known to be noisy, 0 at clean ones, -1 where that is not known. Returns the
        positions in memory of the pairs that were kept.
        """
        size = len(self.standings)
        standings, truth = standings[-size:].detach(), truth[-size:]
        positions = (self.seen + torch.arange(len(standings), device=standings.device)) % size
        self.standings[positions] = standings.to(self.standings)
        self.truth[positions] = truth
        self.detected[positions] = _UNKNOWN
        self.seen += len(standings)
        return positions

    def judge(self, standings: Tensor) -> Tensor:
        """Which pairs are noisy, by the standings in memory; True at noisy ones, (N,)."""
        mixture = fit_mixture(self.standings) if int(self.seen) >= FEWEST else None
        if mixture is None or mixture.shares[0] > MOST:
            return torch.zeros_like(standings, dtype=torch.bool)
        return mixture.clean_posterior(standings) < self.threshold

    def note(self, positions: Tensor, noisy: Tensor) -> None:
        """Write down what was judged of the pairs at these positions."""
        self.detected[positions] = noisy[-len(positions) :].to(torch.int8)

    def diagnostics(self) -> dict[str, Tensor]:
        """How well the judgement fits the truth, over the judged pairs in memory.

        ``info/noise_detected`` is the share of pairs that were found noisy. Where the truth is known, there are also
        ``info/noise_rate``, the share that is noisy, ``info/noise_precision``, the share of noisy ones among those
        found, and ``info/noise_recall``, the share found among the noisy ones. What would be 0 / 0 is left out.
        """
        judged = self.detected != _UNKNOWN
        known = judged & (self.truth != _UNKNOWN)
        detected, noisy = known & (self.detected == 1), known & (self.truth == 1)
        shares = {
            "noise_detected": ((self.detected == 1).sum(), judged.sum()),
            "noise_rate": (noisy.sum(), known.sum()),
            "noise_precision": ((detected & noisy).sum(), detected.sum()),
            "noise_recall": ((detected & noisy).sum(), noisy.sum()),
        }
        return {INFO_PREFIX + name: part / whole for name, (part, whole) in shares.items() if int(whole) > 0}


@dataclass(frozen=True)
class NoiseMixture:
    """Gaussians of numbers: a noisy component, which is known, N(0, 1), and clean ones above it.

    The first of the K components is the noisy one.
    """

    shares: Tensor  # of each component; (K,), float64, sum to one
    means: Tensor  # (K,); the first is 0
    deviations: Tensor  # standard deviations; (K,); the first is 1

    def clean_posterior(self, values: Tensor) -> Tensor:
        """The probability that each value came from a clean component.

        Values are first clamped to between 0 and the highest clean mean. Beyond that a wider component would take over
        again, and the least of all values would count as clean, or the greatest as noisy.
        """
        inside = values.to(self.means).clamp(min=0.0).clamp(max=self.means.max())
        distances = (inside[..., None] - self.means) / self.deviations
        scores = self.shares.log() - self.deviations.log() - 0.5 * distances.square()
        return 1 - scores.softmax(-1)[..., 0].to(values)


def fit_mixture(values: Tensor, iterations: int = 100, tolerance: float = 1e-5) -> NoiseMixture | None:
    """Fit clean components, and all shares, by expectation maximisation (Dempster et al. 1977).

    Two Gaussians make up the clean pairs, because some are easy and some hard; the noisy component stays N(0, 1). The
    start does not depend on chance, so equal values give equal mixtures. Runs on the CPU in float64, until the mean
    log-likelihood grows by less than the tolerance. Values that are not finite are left out; None where fewer than two
    are clearly above chance.

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
    return NoiseMixture(*(torch.from_numpy(part[:, 0].copy()) for part in (shares, means, deviations)))
