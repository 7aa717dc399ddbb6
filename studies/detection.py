"""How well strategies that look for noisy pairs found them: precision and recall, from the curves of the runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from studies.figures import Figure
from studies.robustness import t_interval
from studies.runs import Run, training_condition
from studies.tables import Entry, Table

HISTORY = "history.json"
"""In a run folder: what was logged at each validation."""
_NAMES = {
    "noise_precision": "precision",
    "noise_recall": "recall",
    "noise_detected": "found noisy",
    "noise_rate": "noisy",
}
_PREFIX = "train/info/"


def detection_table(runs: Sequence[Run], names: Sequence[str]) -> Table | None:
    """Precision and recall at the end of training, by strategy and noise; None where no run logged them.

    Args:
        runs: finished runs.
        names: the strategy of each.
    """
    found: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, strategy in zip(runs, names, strict=True):
        path = run.folder / HISTORY
        history = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        condition = training_condition(run.config)
        for name in _NAMES:
            logged = [point[_PREFIX + name] for point in history if _PREFIX + name in point]
            if logged and condition.level > 0:
                found[strategy][f"{condition.kind} {condition.level:g}", name].append(logged[-1])
    if not any(key[1] == "noise_precision" for values in found.values() for key in values):
        return None
    blocks = {}
    for strategy, values in found.items():
        rows = [
            [Entry(noise), *(_entry(values.get((noise, name), [])) for name in _NAMES)]
            for noise in dict.fromkeys(noise for noise, _ in values)
        ]
        blocks[strategy] = rows
    note = (
        "Of the pairs of the last epoch, averaged over languages and seeds: share of truly noisy ones among those "
        "found, share of the noisy ones that were found, share found, share that is noisy."
    )
    return Table("detection", "Detected noise", ["training noise", *_NAMES.values()], blocks, note, ["", *_NAMES])


def _entry(values: list[float]) -> Entry:
    if not values:
        return Entry("-")
    return Entry(f"{fmean(values):.3f}", Figure(fmean(values), t_interval(values), tuple(range(len(values))), True))
