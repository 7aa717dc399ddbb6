"""The scores of a study as figures: means over seeds with intervals, what is missing, and tests between strategies."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from foundations.errors import InputError
from retrieval.results import AVERAGE
from retrieval.statistics import holm, macro_mean, macro_t_test
from studies.robustness import area_under_curve, mmi, relative_drop, t_interval
from studies.runs import AFTER, Condition, Score

Series = tuple[str, str]
"""Stage and kind of noise, such as ``("training", "correspondence-caption")``."""


@dataclass(frozen=True)
class Figure:
    """A mean over seeds.

    Args:
        value: the mean; of one seed it is that seed's value.
        interval: 95 % t-interval over the seeds; None for one seed.
        seeds: that it is the mean over.
        complete: whether these are all the seeds of the study.
    """

    value: float
    interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    complete: bool


@dataclass(frozen=True)
class Difference:
    """Two strategies under the same noise.

    Args:
        series: the noise.
        level: of it.
        language: or ``average``.
        first: a strategy.
        second: the other one.
        difference: value of the first minus that of the second, on the seeds that both have.
        p: two-sided, paired over queries, Holm-corrected over all pairs and levels of this series and language.
        seeds: that both have.
    """

    series: Series
    level: float
    language: str
    first: str
    second: str
    difference: float
    p: float
    seeds: int


class Study:
    """Scores by strategy, noise, language and seed.

    A figure is a mean over the seeds that there are, and says which they are; the average of the languages takes the
    seeds that all of them have, and the summaries of a curve (area, MMI, drops) the seeds that all its levels have.

    Args:
        scores: of the runs.
        metric: what they are.
    """

    def __init__(self, scores: Sequence[Score], metric: str) -> None:
        self.metric, self.scores = metric, list(scores)
        self.by_cell: dict[tuple[str, Condition, str], dict[int, Score]] = defaultdict(dict)
        for score in scores:
            self.by_cell[score.strategy, score.condition, score.language][score.seed] = score
        self.strategies = sorted({score.strategy for score in scores})
        self.languages = sorted({score.language for score in scores})
        self.seeds = tuple(sorted({score.seed for score in scores}))
        conditions = sorted({score.condition for score in scores} - {Condition()})
        self.series: list[Series] = sorted({(each.stage, each.kind) for each in conditions}, key=_series_order)
        self._levels = {
            series: [0.0, *(each.level for each in conditions if (each.stage, each.kind) == series)]
            for series in self.series
        }

    @property
    def groups(self) -> list[str]:
        """The languages, and their average where there are several."""
        return [*self.languages, *([AVERAGE] if len(self.languages) > 1 else [])]

    def levels(self, series: Series) -> list[float]:
        """The levels of a kind of noise, 0 for none among them."""
        return self._levels[series]

    def per_seed(self, strategy: str, series: Series | None, level: float, language: str) -> dict[int, float]:
        """Seed -> value; of the average of the languages for the seeds that every language has."""
        if language != AVERAGE:
            found = self.by_cell.get((strategy, condition(series, level), language), {})
            return {seed: found[seed].value for seed in sorted(found)}
        each = [self.per_seed(strategy, series, level, name) for name in self.languages]
        return {seed: fmean(values[seed] for values in each) for seed in each[0] if all(seed in v for v in each)}

    def figure(self, strategy: str, series: Series | None, level: float, language: str) -> Figure | None:
        """The mean over seeds; None where there is none."""
        return self._mean(self.per_seed(strategy, series, level, language))

    def summary(
        self, strategy: str, series: Series, language: str, of: Callable[[list[float], list[float]], float]
    ) -> Figure | None:
        """A figure of each seed's curve, averaged over the seeds that have all levels.

        Args:
            strategy: whose curve.
            series: the noise.
            language: or ``average``.
            of: takes levels and values; see `SUMMARIES`.
        """
        return self._mean(self._summaries(strategy, series, language, of))

    def _summaries(
        self, strategy: str, series: Series, language: str, of: Callable[[list[float], list[float]], float]
    ) -> dict[int, float]:
        levels = self.levels(series)
        values = [self.per_seed(strategy, series, level, language) for level in levels]
        seeds = [seed for seed in values[0] if all(seed in each for each in values)]
        return {seed: of(levels, [each[seed] for each in values]) for seed in seeds}

    def overall_mmi(self, strategy: str, kinds: Sequence[Series], language: str) -> Figure | None:
        """MMI over several kinds of noise, each weighing the same; of the seeds that all of them have."""
        each = [self._summaries(strategy, kind, language, SUMMARIES["mmi"]) for kind in kinds]
        return self._mean({seed: fmean(one[seed] for one in each) for seed in each[0] if all(seed in o for o in each)})

    def _mean(self, values: dict[int, float]) -> Figure | None:
        if not values:
            return None
        numbers = list(values.values())
        value = numbers[0] if len(numbers) == 1 else fmean(numbers)
        return Figure(value, t_interval(numbers), tuple(values), tuple(values) == self.seeds)

    def missing(self) -> list[str]:
        """The cells that a full study would have and this one has not, in words, a line a cell."""
        lines = []
        places: Iterable[tuple[Series | None, float]] = itertools.chain(
            [(None, 0.0)], ((series, level) for series in self.series for level in self.levels(series)[1:])
        )
        for (series, level), strategy, language in itertools.product(list(places), self.strategies, self.languages):
            absent = [seed for seed in self.seeds if seed not in self.per_seed(strategy, series, level, language)]
            if absent:
                where = title(series) + f" {level:g}" if series else CLEAN_TITLE
                seeds = f"seed{'s' if len(absent) > 1 else ''} {', '.join(map(str, absent))}"
                lines.append(" / ".join(part for part in (strategy, where, language, seeds) if part))
        return lines

    def differences(self, series: Series, language: str) -> list[Difference]:
        """Every pair of strategies at every level, on values of each query averaged over the seeds that both have.

        Raises:
            InputError: two runs of a language have different queries.
        """
        found = []
        for level in self.levels(series):
            for first, second in itertools.combinations(self.strategies, 2):
                names = self.languages if language == AVERAGE else [language]
                seeds = set(self.per_seed(first, series, level, language)) & set(
                    self.per_seed(second, series, level, language)
                )
                if not seeds:
                    continue
                groups = [
                    self._query_differences(first, second, condition(series, level), name, sorted(seeds))
                    for name in names
                ]
                enough = min(map(len, groups)) > 1
                p = macro_t_test(groups) if enough else 1.0
                found.append(Difference(series, level, language, first, second, macro_mean(groups), p, len(seeds)))
        corrected = holm([each.p for each in found]) if found else []
        return [
            Difference(each.series, each.level, each.language, each.first, each.second, each.difference, p, each.seeds)
            for each, p in zip(found, corrected, strict=True)
        ]

    def _query_differences(
        self, first: str, second: str, where: Condition, language: str, seeds: list[int]
    ) -> dict[str, float]:
        one, other = (self.by_cell[strategy, where, language] for strategy in (first, second))
        queries = list(one[seeds[0]].per_query)
        for score in [each[seed] for each in (one, other) for seed in seeds]:
            if len(score.per_query) != len(queries) or any(query not in score.per_query for query in queries):
                raise InputError(
                    f"{score.run} and {one[seeds[0]].run} have different queries, so they cannot be compared"
                )
        values = [
            np.mean([[each[seed].per_query[query] for query in queries] for seed in seeds], axis=0)
            for each in (one, other)
        ]
        return dict(zip(queries, (values[0] - values[1]).tolist(), strict=True))


SUMMARIES: dict[str, Callable[[list[float], list[float]], float]] = {
    "drop": lambda _, values: relative_drop(values[0], values[-1]),
    "auc": area_under_curve,
    "mmi": lambda _, values: mmi(values[0], values[1:]),
}
"""``drop``: relative drop from clean to the highest level; ``auc``: area under the curve over its range; ``mmi``."""

CLEAN_TITLE = "no noise"


def condition(series: Series | None, level: float) -> Condition:
    """The condition of a level of a kind of noise; at level 0 all kinds are the same, that of the clean test.

    >>> condition(("test", "text-ocr after correspondence-caption-0.4"), 0.0)
    Condition(stage='training', kind='correspondence-caption', level=0.4)
    """
    if series is None:
        return Condition()
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
