"""The command line: LightningCLI with Potstill's defaults, run folder, loggers and error messages."""

from __future__ import annotations

import inspect
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from datamodules import DATAMODULES
from datamodules.base import PairsDataModule
from lightning_modules.distillation import DistillationModule
from lightning_modules.front_door import SHORT_NAMES, STUDENTS, Arguments, did_you_mean
from lightning_modules.loggers import make_loggers, parse_names
from lightning_modules.reproducibility import StepSeed
from lightning_modules.retrieval_evaluation import RetrievalEvaluation
from lightning_modules.run_folder import RunFolder, new_run_folder, newest_run_folder
from retrieval.errors import InputError
from strategies import STRATEGIES

TRAINER_DEFAULTS: dict[str, Any] = {
    "use_distributed_sampler": False,  # the datamodule shares pairs and texts out over the ranks
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "logger": False,
}
# Why each of these says nothing to a user of ours:
IGNORED_WARNINGS = (
    "does not have many workers",  # texts are small: one process reads them faster
    "Checkpoint directory .* exists and is not empty",  # it is, when a run is resumed
    "isinstance\\(treespec, LeafSpec\\)",  # torch, seen from Lightning: pytorch-lightning issue 20945
    "The `srun` command is available on your system",  # running one process on a SLURM machine is fine
    "LightningCLI's args parameter is intended",  # the front door rewrites the arguments
)
QUIET_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")  # tips and greetings


class PotstillParser(LightningArgumentParser):
    """The parser; its errors are InputErrors with the place in the config file and the nearest option."""

    config_files: tuple[Path, ...] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
        """Raise InputError instead of printing the usage."""
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        keys = re.findall(r"(?:Key|key|option|Option|arguments?:?)\s+['\"]?(?:--)?([\w.]+)", " ".join(lines))
        key = keys[-1].rsplit(".", 1)[-1] if keys else ""
        place = find_key(self.config_files, key) if key else None
        hint = did_you_mean(key, sorted(self._known_names())) if key else ""
        raise InputError(" ".join(lines[:3]) + hint, *(place or ()))

    def _known_names(self) -> set[str]:
        names = {action.dest.rsplit(".", 1)[-1] for action in self._actions}
        for path in [*DATAMODULES.values(), *STUDENTS.values(), *STRATEGIES.values()]:
            module, _, name = path.rpartition(".")
            for kind in getattr(__import__(module, fromlist=[name]), name).__mro__:
                if kind.__module__.split(".")[0] in ("datamodules", "strategies", "lightning_modules"):
                    names |= set(inspect.signature(kind.__init__).parameters)
        return names - {"self", "options", "args", "kwargs"}


def find_key(files: tuple[Path, ...], key: str) -> tuple[Path, int] | None:
    """The file and line that have a YAML key, or None."""
    for path in reversed(files):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.match(rf"\s*{re.escape(key)}\s*:", line):
                return path, number
    return None


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar without the version number."""

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """What to show at the end of the bar."""
        return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}


class PotstillCLI(LightningCLI):
    """Builds student, teacher, strategy, datamodule and trainer from a command line that `front_door` rewrote.

    The data are read before the run folder is made, so wrong input leaves nothing behind.

    Args:
        arguments: what `front_door.parse` gave.
        evaluate_only: build neither run folder nor loggers nor checkpoints.
    """

    folder: Path
    """The run folder."""

    def __init__(self, arguments: Arguments, evaluate_only: bool = False) -> None:
        self.arguments, self.evaluate_only = arguments, evaluate_only
        for message in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", f".*{message}")
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        PotstillParser.config_files = tuple(arguments.configs)
        super().__init__(
            DistillationModule,
            PairsDataModule,
            subclass_mode_data=True,
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_class=PotstillParser,
            args=arguments.cli,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is ours: loggers, run folder, evaluation."""
        parser.add_argument("--logger", type=str, default="wandb", help="wandb, csv, tensorboard or none; with commas")
        parser.add_argument("--output", type=str, default="runs", help="where run folders go")
        parser.add_argument("--name", type=str, default=None, help="name of the run folder")
        parser.add_argument("--checkpoint_every", type=int, default=100, help="optimiser steps between checkpoints")
        parser.add_class_arguments(RetrievalEvaluation, "evaluation")
        parser.set_defaults(
            {
                "model.student": {"class_path": "lightning_modules.static_encoder.StaticEncoder"},
                "model.teacher": {
                    "class_path": "lightning_modules.cached_teacher.CachedTeacher",
                    "init_args": {"teacher": {"class_path": "lightning_modules.teacher.OnlineTeacher"}},
                },
                "model.strategy": {"class_path": "strategies.ot.OptimalTransport"},
            }
        )

    def instantiate_classes(self) -> None:
        """Build everything; a wrong option is an InputError."""
        try:
            super().instantiate_classes()
        except (InputError, ArgumentError):
            raise
        except ValueError as error:
            raise InputError(str(error)) from error

    def instantiate_trainer(self, **_: Any) -> Trainer:
        """Build the trainer with our callbacks and loggers, after the data were read."""
        config = self.config_init
        self.datamodule: LightningDataModule
        self.datamodule.seed = self.seed  # type: ignore[attr-defined]
        evaluation = config["evaluation"]
        self.evaluation: RetrievalEvaluation = evaluation
        callbacks: list[Callback] = [evaluation, ProgressBar(refresh_rate=10)]
        if self.evaluate_only:
            return super().instantiate_trainer(callbacks=callbacks, logger=False, enable_checkpointing=False)
        parse_names(config["logger"])
        self.datamodule.setup("fit")
        name = config["name"] or self.default_name()
        if self.arguments.resume is None:
            self.folder = new_run_folder(config["output"], name)
        else:
            self.folder = Path(self.arguments.resume or newest_run_folder(config["output"], name))
            os.environ.setdefault("POTSTILL_RUN_FOLDER", str(self.folder))
        callbacks += [StepSeed(self.seed), *self._checkpoints(evaluation), self._run_folder()]
        own = config["trainer"].get("callbacks") or []
        logger = config["trainer"].get("logger") or make_loggers(config["logger"], self.folder) or False
        return super().instantiate_trainer(callbacks=[*callbacks, *own], logger=logger)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        seed = self.config.get("seed_everything")
        return 0 if seed is None or isinstance(seed, bool) else int(seed)

    def default_name(self) -> str:
        """Name of the run folder: data, language, strategy and seed."""
        data, strategy = self.config["data"], self.config["model"]["strategy"]
        language = data.get("init_args", {}).get("language")
        short = [short_name("data", data["class_path"]), language, short_name("strategy", strategy["class_path"])]
        return "-".join([*(part for part in short if part), f"seed{self.seed}"])

    def _checkpoints(self, evaluation: RetrievalEvaluation) -> list[ModelCheckpoint]:
        folder, every = self.folder / "checkpoints", self.config["checkpoint_every"]
        metric = evaluation.metrics[0]
        options: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "auto_insert_metric_name": False}
        return [
            ModelCheckpoint(filename="best", monitor=f"dev/{metric}", mode="max", **options),
            ModelCheckpoint(filename="last", every_n_train_steps=every, **options),
        ]

    def _run_folder(self) -> RunFolder:
        text = self.parser.dump(self.config, skip_none=False)
        return RunFolder(self.folder, yaml.safe_load(text), text)

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint with the best dev metric."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path | None:
        """The checkpoint to resume from, if one was written."""
        path = self.folder / "checkpoints" / "last.ckpt"
        return path if path.is_file() else None


def short_name(kind: str, class_path: str) -> str:
    """The short name of a class path, or the name of the class."""
    names = {path: name for name, path in SHORT_NAMES[kind].items()}
    return names.get(class_path, class_path.rpartition(".")[2])
