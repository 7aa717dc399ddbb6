"""The rows of a run's results: the student and what it is compared with, on one language or on several.

Results are kept by name: ``test``, ``undistilled``, ``teacher`` and, of texts, ``bm25`` (the queries as they are),
``hybrid`` (the student and that) and ``bm25_english``; with several languages ``test/sw`` and so on. Files hold
``{row: ...}`` for one language and ``{"languages": {language: {row: ...}}}`` for several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from foundations.errors import InputError
from foundations.files import read_json
from retrieval.collection import Run
from retrieval.metrics import PerQuery

LABELS = {
    "undistilled": "undistilled teacher",
    "bm25": "BM25 as it is",
    "test": "distilled student",
    "hybrid": "student + BM25",
    "bm25_english": "BM25 on English",
    "teacher": "teacher on English",
}
"""Row -> what people read, in the order of tables."""

OF_STUDENT = ("test", "hybrid")
PLAIN = ("undistilled", "bm25")
"""Rows of the same queries that need no training."""
LEXICAL = ("bm25", "hybrid", "bm25_english")

AVERAGE = "average"
LANGUAGES = "languages"
_ORDER_IN_FILES = ("test", "undistilled", "teacher", *LEXICAL)
T = TypeVar("T")
Rows = dict[str, PerQuery]
"""Row -> metric -> query id -> value."""


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder came to its end: its metrics are written last."""
    return (folder / "metrics.json").is_file()


def english_note(folder: Path) -> str | None:
    """A line for below the table of a run whose student has read documents in English, by its diagnostics.json."""
    path = folder / "diagnostics.json"
    english = read_json(path).get("english") if path.is_file() else None
    if not english or not english["searched"]:
        return None
    return (
        f"in training, the student has read {english['documents']:,} of the {english['searched']:,} documents in "
        "English (no queries, no judgments); --data.english sources leaves them out"
    )


def named(row: str, language: str) -> str:
    """The name of a row in one language; the row itself where there is one language only.

    >>> named("test", "sw"), named("test", "")
    ('test/sw', 'test')
    """
    return f"{row}/{language}" if language else row


def by_language(results: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Language -> row -> result; the language of a run with a single one is ``""``.

    Args:
        results: results by name; names that are no row of the table, such as ``dev``, are left out.

    >>> by_language({"dev": 0, "test": 1, "undistilled": 2}), by_language({"test/sw": 1, "test/so": 2})
    ({'': {'test': 1, 'undistilled': 2}}, {'sw': {'test': 1}, 'so': {'test': 2}})
    """
    grouped: dict[str, dict[str, T]] = {}
    for row in _ORDER_IN_FILES:
        for name, result in results.items():
            split, _, language = name.partition("/")
            if split == row:
                grouped.setdefault(language, {})[row] = result
    return grouped


def averages(means: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Row -> metric -> mean over the languages of (language -> row -> metric -> mean), where all of them have it."""
    first, *others = means.values()
    return {
        row: {
            metric: fmean(rows[row][metric] for rows in means.values())
            for metric in metrics
            if all(metric in rows[row] for rows in others)
        }
        for row, metrics in first.items()
        if all(row in rows for rows in others)
    }


def to_json(grouped: Mapping[str, Mapping[str, T]], top: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is written into a file: results from `by_language`, and `top` above the languages if there are several."""
    if list(grouped) == [""]:
        return dict(grouped[""])
    return dict(top or {}) | {LANGUAGES: {language: dict(rows) for language, rows in grouped.items()}}


def from_json(content: dict[str, Any]) -> dict[str, Any]:
    """Language -> row -> what was written by `to_json`; an InputError for something else."""
    if not isinstance(content, dict):
        raise InputError(f"the results of a run are a {type(content).__name__}, expected a JSON object by rows")
    languages: dict[str, Any] | None = content.get(LANGUAGES)
    return {"": content} if languages is None else languages


def view_of(name: str) -> tuple[str, str]:
    """The view (and the group in it) that a metric belongs to, and the metric in it.

    >>> view_of("maxsim/regions/people/success@1"), view_of("maxsim/map")
    (('regions/people', 'maxsim/success@1'), ('', 'maxsim/map'))
    """
    prefix = "maxsim/" if name.startswith("maxsim/") else ""
    view, _, metric = name.removeprefix(prefix).rpartition("/")
    return view, prefix + metric


def groups(grouped: Mapping[str, Rows], row: str, metric: str) -> list[dict[str, float]]:
    """The values of a metric by query in each language, for `retrieval.statistics`; empty where one lacks it."""
    if not all(metric in rows.get(row, {}) for rows in grouped.values()):
        return []
    return [rows[row][metric] for rows in grouped.values()]


@dataclass(frozen=True)
class Result:
    """How one system did on one collection.

    Args:
        means: metric -> mean over the queries; also median ranks, which are no means.
        per_query: metric -> query id -> value.
        runs: ``pooled``, ``maxsim`` or ``bm25`` -> the ranked lists; with views ``text_to_image.pooled`` and so on.
    """

    means: dict[str, float]
    per_query: PerQuery
    runs: dict[str, Run] = field(default_factory=dict)
