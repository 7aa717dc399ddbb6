"""Which pairs are put together wrongly, judged by how far their scores stand out from chance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from strategies.base import INFO_PREFIX
from strategies.mixture import fit_mixture

FEWEST = 100
"""Scores that must be in memory before any pair is judged."""
MOST = 0.9
"""Share of noisy pairs beyond which none is judged: the student then knows too little."""
_UNKNOWN = -1


def standing(cosines: Tensor, labels: Tensor, same: Tensor | None) -> Tensor:
    """How far the cosine of each pair stands out from those of its student with other sources.

    (c_ii - mean_j c_ij) / (std_j c_ij sqrt(1 + 1 / n)) over the n sources j with another id: standard deviations above
    chance. The source of a wrong pair is as good as drawn by lot, so this has mean 0 and variance 1 for wrong pairs,
    whatever the student has learnt so far; unless it has learnt these pairs by heart.

    Args:
        cosines: of the students with all sources; (B, N).
        labels: place of the own source; (B,).
        same: True at other places with the own source's id; (B, N), or None.

    Returns:
        (B,); NaN where there are no two other sources that differ.
    """
    others = torch.ones_like(cosines, dtype=torch.bool) if same is None else ~same
    others = others.scatter(1, labels[:, None], False)
    count = others.sum(1)
    mean = (cosines * others).sum(1) / count
    variance = ((cosines - mean[:, None]) * others).square().sum(1) / (count - 1) * (1 + 1 / count)
    own = cosines.gather(1, labels[:, None])[:, 0]
    return torch.where((count > 1) & (variance > 1e-12), (own - mean) / variance.sqrt(), torch.nan)


class NoiseDetector(nn.Module):
    """Divides pairs into clean and noisy by a mixture on their standings.

    Keeps the standings of the last pairs, whichever they were, since the student changes. A pair is noisy if its
    probability of being clean is under the threshold (`strategies.mixture`). On clean data the mixture's noisy share
    falls to about zero, so clean pairs are not halved into easy and hard ones.

    Source: division by a mixture on the losses as in DivideMix (Li et al. 2020, arXiv 2002.07394, section 3.1) and
    L2RM (Han et al. 2024, arXiv 2403.05105). The standing takes the place of the loss because its noisy component is
    known, while losses of hard and of wrong pairs lie side by side, at a place that moves as the student learns.

    The memory is in the state dict. All ranks must remember the same standings; gather them first.

    Args:
        memory: how many standings are kept; M.
        threshold: probability of being clean under which a pair is noisy; 0 to 1.
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
        """Keep the standings of some pairs, in the place of the oldest ones.

        Args:
            standings: (N,); of more than M, the last M are kept.
            truth: 1 at pairs known to be noisy, 0 at clean ones, -1 where that is not known; (N,), int8.

        Returns:
            The places of the pairs that were kept; (at most M,), int64.
        """
        size = len(self.standings)
        standings, truth = standings[-size:].detach(), truth[-size:]
        places = (self.seen + torch.arange(len(standings), device=standings.device)) % size
        self.standings[places] = standings.to(self.standings)
        self.truth[places] = truth
        self.detected[places] = _UNKNOWN
        self.seen += len(standings)
        return places

    def judge(self, standings: Tensor) -> Tensor:
        """Which pairs are noisy, by the standings in memory.

        Args:
            standings: (N,).

        Returns:
            True at noisy pairs; (N,).
        """
        mixture = fit_mixture(self.standings) if int(self.seen) >= FEWEST else None
        if mixture is None or mixture.shares[0] > MOST:
            return torch.zeros_like(standings, dtype=torch.bool)
        return mixture.clean_posterior(standings) < self.threshold

    def note(self, places: Tensor, noisy: Tensor) -> None:
        """Write down what was judged of the pairs in these places."""
        self.detected[places] = noisy[-len(places) :].to(torch.int8)

    def diagnostics(self) -> dict[str, Tensor]:
        """How well the judgement fits the truth, over the judged pairs in memory.

        Returns:
            ``info/noise_detected``, the share of pairs that were found noisy. Where the truth is known, also
            ``info/noise_rate``, the share that is noisy, ``info/noise_precision``, the share of noisy ones among those
            found, and ``info/noise_recall``, the share found among the noisy ones. What would be 0 / 0 is left out.
        """
        judged = self.detected != _UNKNOWN
        known = judged & (self.truth != _UNKNOWN)
        found, noisy = known & (self.detected == 1), known & (self.truth == 1)
        shares = {
            "noise_detected": ((self.detected == 1).sum(), judged.sum()),
            "noise_rate": (noisy.sum(), known.sum()),
            "noise_precision": ((found & noisy).sum(), found.sum()),
            "noise_recall": ((found & noisy).sum(), noisy.sum()),
        }
        return {INFO_PREFIX + name: part / whole for name, (part, whole) in shares.items() if int(whole) > 0}
