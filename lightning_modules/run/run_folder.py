"""The run folder: all that it takes to repeat a run, and what came out of it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from foundations.errors import InputError
from foundations.files import read_json, write_json, write_whole
from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.lightning_private import data_of
from lightning_modules.run.loggers import log_results
from lightning_modules.run.plots import plot_curves, plot_groups, plot_rows
from lightning_modules.run.start import Start, remove_of_slurm
from retrieval.collection import Collection
from retrieval.results import LEXICAL, Result, averages, by_language, named, to_json
from retrieval.trec import write_qrels, write_run
from retrieval.views import views_of

PACKAGES = ("potstill", "torch", "lightning", "transformers", "tokenizers", "pot", "torchmetrics", "wandb", "numpy")


class RunFolder(Callback):
    """Writes configuration, versions, results, TREC run and plots into the run folder, and results to the loggers.

    Args:
        folder: the run folder.
        config: the full configuration.
        config_yaml: the same as YAML, with its comments.
        evaluation: gives the results.
        plots: whether to draw ``results.png``, ``curves.png`` and ``groups.png``.
        start: where the run starts; None is a new one.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        config_yaml: str,
        evaluation: RetrievalEvaluation,
        plots: bool = True,
        start: Start | None = None,
    ) -> None:
        self.folder, self.config, self.config_yaml = folder, config, config_yaml
        self.evaluation, self.plots = evaluation, plots
        self.start = start if start is not None and start.checkpoint is not None else None
        self.history: list[dict[str, float]] = []

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Write what a new run starts from.

        Raises:
            InputError: the processes of the run go on from different checkpoints.
        """
        chosen = str(self.start.checkpoint) if self.start else None
        if stage == "fit" and trainer.strategy.broadcast(chosen) != chosen:
            raise InputError("its processes chose different checkpoints: name the run, --resume DIR", self.folder)
        if stage == "fit" and self.start is None:
            self._write_beginning(trainer)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Write what a run goes on with, now that its checkpoint was accepted."""
        if self.start is not None:
            if trainer.is_global_zero:
                self.start.accept()
            self._write_beginning(trainer)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        """Remove what a signal of SLURM left behind that did not end the run."""
        if trainer.is_global_zero:
            remove_of_slurm(self.folder)

    def _write_beginning(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_whole(self.folder / "config.yaml") as file:
            file.write(self.config_yaml)
        self._write_environment()
        shares: dict[str, int] = getattr(data_of(trainer), "shares", {})
        parts = {"pairs_in_an_epoch": shares} if shares else {}
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config | parts)

    def _write_environment(self) -> None:
        """Versions and command; those of a resumed run are added to those of the first part."""
        path, now = self.folder / "environment.json", environment()
        if path.is_file():
            first = read_json(path)
            now = first | {"resumed": [*first.get("resumed", []), now]}
        write_json(path, now)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Add a point to the curves: dev metrics, and the means of the losses since the last point."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.history.append({"step": trainer.global_step, **metrics})

    def state_dict(self) -> dict[str, Any]:
        """The points of the curves."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves; those in the best checkpoint, which is loaded for the test, may be shorter."""
        self.history = max(self.history, list(state_dict["history"]), key=len)

    def on_test_end(self, trainer: Trainer, *_: Any) -> None:
        """Write the results, unless the run was a trial of a few batches (``fast_dev_run``)."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            results = self.evaluation.results
            collections = data_of(trainer).collections
            write_json(self.folder / "history.json", self.history)
            write_results(self.folder, results, collections)
            languages = {collection.language for collection in collections.values()}
            plots = self._draw(results, languages) if self.plots else []
            log_results(trainer.loggers, means_of(results), plots)

    def _draw(self, results: dict[str, Result], languages: set[str]) -> list[Path]:
        plots = [plot_rows(self.folder / "results.png", results)]
        if by_group := plot_groups(self.folder / "groups.png", results):
            plots.append(by_group)
        if self.history:
            plots.append(plot_curves(self.folder / "curves.png", self.history, languages))
        return plots


def write_results(folder: Path, results: dict[str, Result], collections: Mapping[str, Collection]) -> None:
    """Write ``metrics.json``, ``per_query.json``, the TREC runs of the student and of BM25, and the judgments.

    With several languages there are a run and judgments for each of them, ``test.sw.pooled.run``, and with views for
    each of those, ``test.text_to_image.pooled.run``; see `retrieval.results` for the JSON files.
    """
    for name, result in results.items():
        row, _, language = name.partition("/")
        stem = named("test", language).replace("/", ".")
        for score, run in result.runs.items() if row in ("test", *LEXICAL) else ():
            if any(run.values()):
                write_run(folder / f"{stem}.{score}.run", run, "potstill")
        if row == "test":
            for view in views_of(collections[name]):
                write_qrels(folder / ".".join(filter(None, (stem, view.name, "qrels"))), view.qrels)
    per_query = by_language({name: result.per_query for name, result in results.items()})
    write_json(folder / "per_query.json", to_json(per_query))
    means = means_of(results)
    write_json(folder / "metrics.json", to_json(means, averages(means)))


def means_of(results: Mapping[str, Result]) -> dict[str, dict[str, dict[str, float]]]:
    """Language -> row -> metric -> mean over queries; see `by_language`."""
    return by_language({name: result.means for name, result in results.items()})


def environment() -> dict[str, Any]:
    """Versions, machine and command line of this process."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
    }
