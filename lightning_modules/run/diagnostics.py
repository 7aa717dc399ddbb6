"""What to know before training on a language: how well both models read it, and whether test queries leak."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch import Callback, Trainer

from datamodules.base import PairsDataModule
from datamodules.images import is_image
from datamodules.leaks import Leaks
from foundations.files import write_json
from lightning_modules.lightning_private import data_of
from lightning_modules.run.loggers import log_values
from lightning_modules.run.plots import plot_lengths
from lightning_modules.run.text_statistics import BIN_EDGES, TextStatistics, flat, text_statistics
from lightning_modules.students.base import TextSide
from lightning_modules.students.tokens import Tokenization
from lightning_modules.teachers.base import Teacher
from retrieval.collection import Collection, Side
from retrieval.table import plain_table, print_table

_MOST_TEXTS = 20_000
_MANY_CUT = 0.01
"""Share of truncated texts above which a warning line is printed."""

_HARD_TO_READ = 0.02
"""Share of unknown tokens above which a warning line is printed."""


class Diagnostics(Callback):
    """Prints, logs and writes figures about the data, once the student's vocabulary is ready and before step 1.

    Args:
        folder: the run folder; ``diagnostics.json`` and ``lengths.png`` are written there.
        plots: whether to draw ``lengths.png``.
    """

    def __init__(self, folder: Path, plots: bool = True) -> None:
        self.folder, self.plots = folder, plots

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Print, write and log the figures, on the first rank."""
        if not trainer.is_global_zero:
            return
        data = data_of(trainer)
        rows = statistics(data, pl_module.student.tokenization(), pl_module.teacher.tokenization(), pl_module.reader_of)
        print_table(statistics_table(rows))
        options = {"student": length_option(pl_module.student), "teacher": length_option(pl_module.teacher)}
        for line in remarks(rows, data.leaks, options):
            print(line)
        if data.noise_report is not None:
            print(f"train noise: {data.noise_report}")
        plots = [plot_lengths(self.folder / "lengths.png", rows)] if self.plots else []
        content: dict[str, Any] = {"texts": {name: asdict(figures) for name, figures in rows.items()}}
        content["length_bins_from"] = list(BIN_EDGES)
        values = flat(rows)
        if data.leaks is not None:
            content["leaks"] = asdict(data.leaks)
            values["diagnostics/leaks"] = float(data.leaks.pairs)
        if data.english_report is not None:
            content["english"] = asdict(data.english_report)
        if data.noise_report is not None:
            content["noise"] = asdict(data.noise_report) | {"rates": data.noise_report.rates}
            values |= {f"noise/{name}": rate for name, rate in data.noise_report.rates.items()}
        write_json(self.folder / "diagnostics.json", content)
        log_values(trainer.loggers, values, plots)


def statistics(
    data: PairsDataModule,
    student: Tokenization,
    teacher: Tokenization | None,
    reader_of: Callable[[Collection, TextSide], Side] = Collection.reader,
) -> dict[str, TextStatistics]:
    """Figures of the training texts, and of what each model reads of ``dev``; images are left out.

    Of more than 20,000 texts a sample is taken: every nth pair, the first texts of a collection. Where the teacher's
    tokenization is not known (None), its rows are left out. ``reader_of`` says who reads one side of a collection.
    """
    sample = data.sample_pairs()
    sample = sample[:: -(-len(sample) // _MOST_TEXTS)]
    texts: dict[str, tuple[list[str], Side]] = {
        "train source": ([pair.source for pair in sample], "teacher"),
        "train target": ([pair.target for pair in sample], "student"),
    }
    tokenizations = {"student": student, "teacher": teacher}
    dev = [collection for collection in data.collections.values() if collection.split == "dev"]
    for side in get_args(TextSide):
        for reader in get_args(Side):
            read = (collection.texts(side).values() for collection in dev if reader_of(collection, side) == reader)
            if first := list(itertools.islice(itertools.chain.from_iterable(read), _MOST_TEXTS)):
                texts[f"dev {side}"] = (first, reader)
    written = {name: [text for text in group if not is_image(text)] for name, (group, _) in texts.items()}
    return {
        name: text_statistics(written[name], tokenization, reader)
        for name, (_, reader) in texts.items()
        if (tokenization := tokenizations[reader]) is not None and written[name]
    }


def statistics_table(rows: dict[str, TextStatistics]) -> Any:
    """The figures as a table, a line for each kind of text."""
    title = "Texts in tokens of the model that reads them; lengths in bins of 0, 1, 2-3, 4-7, 8-15, ... tokens"
    columns = ("words/text", "tokens/word", "unknown", "truncated", "median", "longest", "lengths", "script")
    lines = []
    for name, row in rows.items():
        figures = (f"{row.words:.1f}", f"{row.fertility:.2f}", f"{row.unknown:.1%}", f"{row.truncated:.1%}")
        lengths = (f"{row.median_length:.0f}", str(row.longest), row.sparkline, row.main_scripts)
        lines.append([name, f"{row.texts:,}", *figures, *lengths])
    return plain_table(["", "texts", *columns], lines, title)


def length_option(reader: Any) -> str:
    """The option with the longest text that a student or teacher reads, and twice its value; empty where it has none.

    >>> from lightning_modules.teachers.cached import CachedTeacher
    >>> from lightning_modules.teachers.online import OnlineTeacher
    >>> length_option(CachedTeacher(OnlineTeacher(max_length=128)))
    '--model.teacher.teacher.max_length 256'
    """
    name = "--model.teacher" if isinstance(reader, Teacher) else "--student"
    while isinstance(inner := getattr(reader, "teacher", None), Teacher):
        reader, name = inner, f"{name}.teacher"
    if isinstance(reader, Teacher) and "max_length" not in signature(type(reader)).parameters:
        return ""
    tokenization = reader.tokenization()
    return "" if tokenization is None else f"{name}.max_length {2 * tokenization.max_length}"


def remarks(rows: dict[str, TextStatistics], leaks: Leaks | None, options: Mapping[str, str]) -> list[str]:
    """Sentences on what is wrong with the data, if anything is.

    Args:
        rows: the figures.
        leaks: None where they were not looked for.
        options: reader -> the option that lets it read longer texts; empty where it has none.
    """
    lines = [
        f"warning: the {row.reader} cuts {row.truncated:.1%} of {name}"
        + (f"; {options[row.reader]} lets it read more" if options.get(row.reader) else "")
        for name, row in rows.items()
        if row.truncated > _MANY_CUT
    ]
    lines += [
        f"warning: {row.unknown:.1%} of the tokens of {name} are unknown to the model that reads them"
        for name, row in rows.items()
        if row.unknown > _HARD_TO_READ
    ]
    if leaks is not None and leaks.pairs:
        lines.append(f"dropped: {leaks}" if leaks.dropped else f"warning: {leaks}; --data.remove_leaks true drops them")
    return lines
