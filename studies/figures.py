"""The scores of a study as figures: means over seeds with intervals, what is missing, and tests between strategies."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from foundations.errors import InputError
from retrieval.results import AVERAGE
from retrieval.statistics import holm, macro_mean, macro_t_test
from studies.runs import AFTER, CLEAN, Condition, RunScore

Series = tuple[str, str]
"""Stage and kind of noise, such as ``("training", "correspondence-caption")``."""
NO_NOISE: Series = ("", CLEAN)
Summary = Callable[[list[float], list[float]], float]
"""A figure of a curve, given its levels and its values."""


@dataclass(frozen=True)
class Figure:
    """A mean over seeds."""

    value: float  # the mean; of one seed it is that seed's value
    interval: tuple[float, float] | None  # 95 % t-interval over the seeds; None for one seed
    seeds: tuple[int, ...]  # that it is the mean over
    complete: bool  # whether these are all the seeds of the study


@dataclass(frozen=True)
class Difference:
    """Two strategies, ``first`` and ``second``, under the same noise."""

    series: Series  # the noise
    level: float  # its rate or severity
    language: str  # or ``average``
    first: str
    second: str
    difference: float  # value of the first minus that of the second, on the seeds that both have
    p: float  # two-sided, paired over queries, Holm-corrected over all pairs and levels of this series and language
    seeds: int  # that both have


class Study:
    """Scores by strategy, noise, language and seed.

    A figure is a mean over the available seeds, and lists them. The average over languages uses the seeds that every
    language has, and the summaries of a curve (area, MMI, drop) the seeds that every level has.

    Args:
        scores: of the runs.
        metric: the metric that the scores are values of.
    """

    def __init__(self, scores: Sequence[RunScore], metric: str) -> None:
        self.metric, self.scores = metric, list(scores)
        self.by_cell: dict[tuple[str, Condition, str], dict[int, RunScore]] = defaultdict(dict)
        for score in scores:
            self.by_cell[score.strategy, score.condition, score.language][score.seed] = score
        self.strategies = sorted({score.strategy for score in scores})
        self.languages = sorted({score.language for score in scores})
        self.seeds = tuple(sorted({score.seed for score in scores}))
        conditions = sorted({score.condition for score in scores} - {Condition()})
        self.series: list[Series] = sorted({each.series for each in conditions}, key=_series_order) or [NO_NOISE]
        self._levels = {
            series: [0.0, *(each.level for each in conditions if each.series == series)] for series in self.series
        }

    @property
    def groups(self) -> list[str]:
        """The languages, and their average where there are several."""
        return [*self.languages, *([AVERAGE] if len(self.languages) > 1 else [])]

    def levels(self, series: Series) -> list[float]:
        """The levels of a kind of noise, 0 for none among them."""
        return self._levels[series]

    def noise_kinds(self, side: str) -> list[Series]:
        """The kinds of noise that runs trained on clean pairs were tested under, on side ``text`` or ``image``."""
        return [each for each in self.series if each[0] == "test" and each[1].startswith(f"{side}-")
                and AFTER not in each[1]]  # fmt: skip

    def per_seed(self, strategy: str, series: Series, level: float, language: str) -> dict[int, float]:
        """Seed -> value; for the average of the languages, of the seeds that every language has."""
        if language == AVERAGE:
            parts = [self.per_seed(strategy, series, level, name) for name in self.languages]
            return {seed: fmean(values) for seed, values in _complete(parts).items()}
        scores = self.by_cell.get((strategy, condition(series, level), language), {})
        return {seed: scores[seed].value for seed in sorted(scores)}

    def figure(self, strategy: str, series: Series, level: float, language: str) -> Figure | None:
        """The mean over seeds; None where no seed has a value."""
        return self._mean(self.per_seed(strategy, series, level, language))

    def summary(self, strategy: str, series: Series, language: str, of: Summary) -> Figure | None:
        """A figure of each seed's curve, such as those of `SUMMARIES`, averaged over the seeds that have all levels."""
        return self._mean(self._summaries(strategy, series, language, of))

    def _summaries(self, strategy: str, series: Series, language: str, of: Summary) -> dict[int, float]:
        levels = self.levels(series)
        curves = _complete([self.per_seed(strategy, series, level, language) for level in levels])
        return {seed: of(levels, curve) for seed, curve in curves.items()}

    def overall_mmi(self, strategy: str, kinds: Sequence[Series], language: str) -> Figure | None:
        """MMI over several kinds of noise with equal weights, of the seeds that have all kinds."""
        parts = [self._summaries(strategy, kind, language, SUMMARIES["mmi"]) for kind in kinds]
        return self._mean({seed: fmean(values) for seed, values in _complete(parts).items()})

    def _mean(self, values: dict[int, float]) -> Figure | None:
        if not values:
            return None
        numbers = list(values.values())
        value = numbers[0] if len(numbers) == 1 else fmean(numbers)
        return Figure(value, t_interval(numbers), tuple(values), tuple(values) == self.seeds)

    def missing(self) -> list[str]:
        """The cells that a full study would have and this one has not, in words, a line a cell."""
        lines = []
        levels = [(NO_NOISE, 0.0), *((series, level) for series in self.series for level in self.levels(series)[1:])]
        for (series, level), strategy, language in itertools.product(levels, self.strategies, self.languages):
            absent = [seed for seed in self.seeds if seed not in self.per_seed(strategy, series, level, language)]
            if absent:
                noise = title(series) + (f" {level:g}" if level else "")
                seeds = f"seed{'s' if len(absent) > 1 else ''} {', '.join(map(str, absent))}"
                lines.append(" / ".join(part for part in (strategy, noise, language, seeds) if part))
        return lines

    def differences(self, series: Series, language: str) -> list[Difference]:
        """Every pair of strategies at every level, on values of each query averaged over the seeds that both have."""
        names = self.languages if language == AVERAGE else [language]
        differences = []
        for level, (first, second) in itertools.product(
            self.levels(series), itertools.combinations(self.strategies, 2)
        ):
            in_both = self.per_seed(first, series, level, language).keys() & self.per_seed(
                second, series, level, language
            )
            if not in_both:
                continue
            where, seeds = condition(series, level), sorted(in_both)
            groups = [self._query_differences(first, second, where, name, seeds) for name in names]
            p = macro_t_test(groups) if min(map(len, groups)) > 1 else 1.0
            differences.append(Difference(series, level, language, first, second, macro_mean(groups), p, len(seeds)))
        corrected = holm([each.p for each in differences]) if differences else []
        return [replace(each, p=p) for each, p in zip(differences, corrected, strict=True)]

    def _query_differences(
        self, first: str, second: str, where: Condition, language: str, seeds: list[int]
    ) -> dict[str, float]:
        scores = [[self.by_cell[strategy, where, language][seed] for seed in seeds] for strategy in (first, second)]
        reference = scores[0][0]
        for score in itertools.chain(*scores):
            if score.per_query.keys() != reference.per_query.keys():
                raise InputError(f"{score.run} and {reference.run} have different queries and cannot be compared")
        minuend, subtrahend = (
            np.mean([[score.per_query[query] for query in reference.per_query] for score in of_strategy], axis=0)
            for of_strategy in scores
        )
        return dict(zip(reference.per_query, (minuend - subtrahend).tolist(), strict=True))


def _complete(parts: Sequence[dict[int, float]]) -> dict[int, list[float]]:
    """Seed -> the values of all parts, for the seeds that every part has."""
    return {seed: [part[seed] for part in parts] for seed in parts[0] if all(seed in part for part in parts)}


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of independent values, one a seed; None for fewer than two.

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
    """Area under a robustness curve by trapezoids, divided by the range of rising levels: the mean value over them.

    >>> area_under_curve([0.0, 0.2, 0.8], [1.0, 0.5, 0.5])
    0.5625
    """
    heights = (np.array(values[1:]) + np.array(values[:-1])) / 2
    return float(np.sum(np.diff(levels) * heights) / (levels[-1] - levels[0]))


SUMMARIES: dict[str, Summary] = {
    "drop": lambda _, values: relative_drop(values[0], values[-1]),
    "auc": area_under_curve,
    "mmi": lambda _, values: mmi(values[0], values[1:]),
}
"""``drop``: relative drop from clean to the highest level; ``auc``: area under the curve over its range; ``mmi``."""


def condition(series: Series, level: float) -> Condition:
    """The condition of a level of a kind of noise; level 0 of every kind is the clean test.

    >>> condition(("test", "text-ocr after correspondence-caption-0.4"), 0.0)
    Condition(stage='training', kind='correspondence-caption', level=0.4)
    """
    stage, kind = series
    if level > 0:
        return Condition(stage, kind, level)
    _, after, trained = kind.partition(AFTER)
    name, _, amount = trained.rpartition("-")
    return Condition("training", name, float(amount)) if after else Condition()


def title(series: Series) -> str:
    """A kind of noise as people read it.

    >>> title(("training", "correspondence-caption")), title(("test", "image-gaussian_noise"))
    ('wrong correspondence, caption level', 'test image noise: gaussian noise')
    """
    if series == NO_NOISE:
        return "no noise"
    stage, kind = series
    kind, after, trained = kind.partition(AFTER)
    if after:
        return f"{title((stage, kind))}, after training with {trained.replace('-', ' ')}"
    if kind.startswith("correspondence-"):
        level, *rest = kind.removeprefix("correspondence-").split("+")
        return f"wrong correspondence, {level} level" + "".join(f", with {each.replace('-', ' ')}" for each in rest)
    side, _, name = kind.partition("-")
    return f"{stage} {side} noise: {name.replace('_', ' ')}"


def level_name(series: Series) -> str:
    """What the levels are: ``rate`` or ``severity``."""
    return "rate" if series[1].startswith("correspondence-") else "severity"


def _series_order(series: Series) -> tuple[bool, bool, str]:
    stage, kind = series
    return stage != "training", not kind.startswith("correspondence"), kind
