"""Figures of robustness: what is lost under noise, and intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of independent runs.

    Args:
        values: one a seed.
        confidence: between 0 and 1.

    Returns:
        Lower and upper end; None for fewer than two values.

    >>> [round(end, 3) for end in t_interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    mean = float(np.mean(values))
    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def relative_drop(clean: float, noisy: float) -> float:
    """Share of the clean value that is lost; below 0 where noise helped.

    >>> relative_drop(0.5, 0.4)
    0.19999999999999996
    """
    return (clean - noisy) / clean if clean else float("nan")


def mmi(clean: float, noisy: Sequence[float]) -> float:
    """MMI of MMRobustness (Qiu et al. 2022): (clean - mean over perturbations) / clean; lower is more robust.

    >>> round(mmi(533.7, [499.2, 492.3]), 4)
    0.0711
    """
    return relative_drop(clean, float(np.mean(noisy)))


def area_under_curve(levels: Sequence[float], values: Sequence[float]) -> float:
    """Area under a robustness curve by trapezoids, divided by the range of levels: the mean value over the levels.

    Args:
        levels: rates or severities, rising.
        values: one a level.

    >>> area_under_curve([0.0, 0.2, 0.8], [1.0, 0.5, 0.5])
    0.5625
    """
    heights = (np.array(values[1:]) + np.array(values[:-1])) / 2
    return float(np.sum(np.diff(levels) * heights) / (levels[-1] - levels[0]))
