"""The command line: LightningCLI with Potstill's defaults, run folder, loggers and error messages."""

from __future__ import annotations

import inspect
import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, Namespace, get_loader, set_loader, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import PairsDataModule
from foundations.errors import InputError, as_input_error
from foundations.yaml_files import check_yaml
from lightning_modules.cli.checks import (
    check_callbacks,
    check_interval,
    check_numbers,
    check_place,
    check_precision,
    check_seed,
)
from lightning_modules.cli.errors import OptionError, explain, keys_of, reason
from lightning_modules.cli.front_door import CONFIGS, Arguments
from lightning_modules.cli.help import OPTIONS
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.models.trust import guarded, guarding
from lightning_modules.names import STUDENTS, TEACHERS, moved, short_name
from lightning_modules.run.diagnostics import Diagnostics
from lightning_modules.run.loggers import make_loggers, parse_names
from lightning_modules.run.run_folder import RunFolder
from lightning_modules.run.signals import EndOnSignal
from lightning_modules.run.start import Start, find_start, flat, new_start
from lightning_modules.run.trainer import (
    Checkpoint,
    StepSeed,
    WholeCheckpoints,
    default_precision,
    progress_callbacks,
)
from strategies import STRATEGIES

TRAINER_DEFAULTS: dict[str, Any] = {
    "use_distributed_sampler": False,  # the datamodule shares pairs and texts out over the ranks
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "logger": False,
}

CHECKPOINT_STEPS, CHECKPOINT_SHARE = 100, 0.05
"""Optimiser steps between checkpoints, unless writing them would take more than this share of the time."""

# Why each of these says nothing to a user of ours:
IGNORED_WARNINGS = (
    "does not have many workers",  # texts are small: one process reads them faster
    "Checkpoint directory .* exists and is not empty",  # it is, when a run is resumed
    "isinstance\\(treespec, LeafSpec\\)",  # torch, seen from Lightning: pytorch-lightning issue 20945
    "The `srun` command is available on your system",  # running one process on a SLURM machine is fine
    "It is recommended to use `self.log",  # sync_dist: all ranks have the same dev and test values
    "The number of training batches .* is smaller than the logging interval",  # it counts steps of the whole run
    "LightningCLI's args parameter is intended",  # the front door rewrites the arguments
)

QUIET_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")  # tips and greetings


def _load(text: str) -> Any:
    """The value of an option, or the content of a file."""
    check_yaml(text)
    return guarded(get_loader("yaml")(moved(text)))


set_loader("potstill", _load, (yaml.YAMLError,))
# Refuse os.system and its like as a value, and leave alone what has no type to be checked against.
set_parsing_settings(import_path_denylist=[], instantiate_subclass_spec_in_any=False)


class PotstillParser(LightningArgumentParser):
    """The parser: no abbreviations, class paths of today for those of before, and errors as exceptions."""

    def __init__(self, *args: Any, **options: Any) -> None:
        defaults: dict[str, Any] = {"allow_abbrev": False, "parser_mode": "potstill"}
        super().__init__(*args, **defaults | options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
        """Raise the message instead of printing it with the usage; `PotstillCLI` makes it clear."""
        raise OptionError(str(message))

    def instantiate_classes(self, cfg: Namespace, **options: Any) -> Namespace:
        """Build everything; a list of languages makes a mixture, which is not in the saved configuration."""
        if cfg.get("data") is not None:
            cfg = cfg.clone()
            cfg["data"] = expand_languages(cfg["data"])
        built: Namespace = super().instantiate_classes(cfg, **options)
        return built


class PotstillCLI(LightningCLI):
    """Builds student, teacher, strategy, datamodule and trainer from a command line that `front_door` rewrote.

    The data are read before the run folder is made, so wrong input leaves nothing behind.

    Args:
        arguments: what `front_door.parse` gave.
        evaluate_only: build neither run folder nor loggers nor checkpoints.
        signals: may ask the run to end.
    """

    folder: Path
    """The run folder, which is locked until `close`."""

    beginning: str | None
    """How the run starts, where it goes on with another one or was asked to."""

    def __init__(self, arguments: Arguments, evaluate_only: bool = False, signals: EndOnSignal | None = None) -> None:
        self.arguments, self.evaluate_only, self.signals = arguments, evaluate_only, signals
        self.start: Start | None = None
        for message in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", f".*{message}")
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        for file in arguments.configs:
            keys_of(file)  # a file that is no YAML has a clear error here
        try:
            with guarding(evaluate_only or bool(arguments.resume)):
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
        except OptionError as error:
            raise explain(str(error), arguments.configs, arguments.cli) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other runs have the folder."""
        if self.start is not None:
            self.start.close()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is ours: loggers, run folder, evaluation."""
        ours: dict[str, tuple[Any, Any]] = {
            "--logger NAMES": (str, "wandb"),
            "--output DIR": (str, "runs"),
            "--name NAME": (str, None),
            "--checkpoint_every N": (int | None, None),
            "--plots BOOL": (bool, True),
        }
        for name, (kind, default) in ours.items():
            parser.add_argument(name.split()[0], type=kind, default=default, help=OPTIONS[name])
        parser.add_class_arguments(RetrievalEvaluation, "evaluation")
        parser.set_defaults(
            {
                "model.student": {"class_path": STUDENTS["static"]},
                "model.teacher": {
                    "class_path": TEACHERS["cached"],
                    "init_args": {"teacher": {"class_path": TEACHERS["online"]}},
                },
                "model.strategy": {"class_path": STRATEGIES["ot_contrastive"]},
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and refuse what cannot be used before anything is built."""
        super().parse_arguments(parser, args)
        with as_input_error():
            check_seed(self.config["seed_everything"])
            if not self.evaluate_only:
                check_numbers(flat(self.config.as_dict()))
                check_precision(self.config["trainer"]["precision"])
                check_place(self.config["output"], self.config["name"])

    def before_instantiate_classes(self) -> None:
        """Choose the precision where nobody did, and look for a run to go on with; its config.yaml has both."""
        trainer = self.config["trainer"]
        if trainer["precision"] is None:
            student = self.config["model"]["student"]["class_path"]
            trainer["precision"] = default_precision(str(trainer["accelerator"]), student)
        if not self.evaluate_only:
            if trainer.get("default_root_dir") is not None:
                warnings.warn("trainer.default_root_dir has no effect: it is the run folder", stacklevel=2)
            self._find_start()

    def _find_start(self) -> None:
        """Look for a run to go on with, and keep to it where its checkpoint decides; a line says so."""
        ours, now = self.arguments, flat(yaml.safe_load(self._dump()))
        name = self.config["name"] or self.default_name()
        self.start = start = find_start(ours.resume, ours.checkpoint, self.config["output"], name, now)
        self.is_finished = start is not None and start.is_finished(now)
        if start is None:
            self.beginning = None if ours.resume is None else "there is no run of this name to go on with: a new one"
            return
        kept = start.without_effect(now, named=bool(ours.resume))
        self.beginning = start.describe(now, kept)
        for key in kept:
            self.config[key] = start.before[key]

    def instantiate_classes(self) -> None:
        """Build everything; a wrong option is an InputError."""
        try:
            super().instantiate_classes()
        except (InputError, ArgumentError):
            raise
        except (ValueError, MisconfigurationException) as error:
            raise InputError(reason(str(error))) from error

    def instantiate_trainer(self, **_: Any) -> Trainer:
        """Build the trainer with our callbacks and loggers, after the data were read.

        Its ``default_root_dir`` is the run folder: a SLURM job starts from any ``hpc_ckpt_*.ckpt`` that lies there.
        """
        config = self.config_init
        self.datamodule: LightningDataModule
        self.datamodule.seed = self.seed
        self.evaluation: RetrievalEvaluation = config["evaluation"]
        shows_bar = config["trainer"].get("enable_progress_bar") is not False
        options: dict[str, Any] = {"enable_progress_bar": shows_bar and sys.stdout.isatty()}
        callbacks: list[Callback] = [self.evaluation, *(progress_callbacks() if shows_bar else [])]
        if self.evaluate_only:
            options |= {"logger": False, "enable_checkpointing": False, "default_root_dir": CONFIGS}
            return self._trainer(callbacks=callbacks, **options)
        names = parse_names(config["logger"])
        # On every rank, as there is no barrier yet: one makes what is missing, under a lock, and the others wait.
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        self.evaluation.check(self.datamodule.collections, self.model.score)
        loader: Any = self.datamodule.train_dataloader()  # too few pairs for a batch: an error before there is a folder
        if hasattr(loader, "__len__"):
            check_interval(config["trainer"], len(loader))
        self._read_images()
        self.start = self.start or new_start(config["output"], config["name"] or self.default_name())
        self.folder = self.start.folder
        self.evaluation.large.folder = self.folder
        own, logger = config["trainer"].get("callbacks") or [], config["trainer"].get("logger") or False
        own = own if isinstance(own, list) else [own]
        check_callbacks(own, bool(logger or names), self.evaluation.metrics, self.datamodule.collections)
        callbacks += [*([self.signals] if self.signals else []), StepSeed(self.seed)]
        callbacks += [*self._checkpoints(), self._run_folder()]
        callbacks += [Diagnostics(self.folder, config["plots"]), *own]
        own_plugins = config["trainer"].get("plugins") or []
        own_plugins = own_plugins if isinstance(own_plugins, list) else [own_plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in own_plugins):
            options["plugins"] = [*own_plugins, WholeCheckpoints()]
        trainer = self._trainer(callbacks=callbacks, logger=logger, default_root_dir=self.folder, **options)
        trainer.loggers = trainer.loggers or make_loggers(config["logger"], self.folder)  # they make the run folder
        return trainer

    def _trainer(self, **options: Any) -> Trainer:
        try:
            return super().instantiate_trainer(**options)
        except (RuntimeError, TypeError) as error:  # variables of a cluster that do not fit, a number of devices
            raise InputError(reason(str(error))) from error

    def _read_images(self) -> None:
        """Refuse a teacher that does not fit, and let one of images encode: damaged files have no folder yet."""
        data: Any = self.datamodule
        if self.model.siamese:
            return
        data.check_teacher(self.model.teacher)
        if data.first_image() is not None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self.model.prepare_teacher(data, True, self.evaluation.teacher_sides(data.collections))

    @property
    def seed(self) -> int:
        """Seed of the run."""
        seed = self.config.get("seed_everything")
        return 0 if seed is None or isinstance(seed, bool) else int(seed)

    def default_name(self) -> str:
        """Name of the run folder: data, language, strategy, noise of the training pairs, and seed."""
        data, strategy = self.config["data"], self.config["model"]["strategy"]
        names = short_name("data", data["class_path"]), short_name("strategy", strategy["class_path"])
        short = [names[0], in_folder_name(data), names[1], noise_in_folder_name(data)]
        return "-".join([*(part for part in short if part), f"seed{self.seed}"])

    def _checkpoints(self) -> list[Checkpoint]:
        folder, metric, every = self.folder / "checkpoints", self.evaluation.metrics[0], self.config["checkpoint_every"]
        share = CHECKPOINT_SHARE if every is None else None
        return [
            Checkpoint(folder, "best", monitor=f"dev/{metric}", mode=self.evaluation.monitor_mode),
            Checkpoint(folder, "last", CHECKPOINT_STEPS if every is None else every, share, self.signals),
        ]

    def _run_folder(self) -> RunFolder:
        text = self._dump()
        return RunFolder(self.folder, yaml.safe_load(text), text, self.evaluation, self.config["plots"], self.start)

    def _dump(self) -> str:
        text: str = self.parser.dump(self.config, skip_none=False)
        return text

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint with the best dev metric; None where nothing was validated. All ranks have to ask."""
        folder = Path(self.trainer.strategy.broadcast(str(self.folder)))  # the others may have named theirs later
        path = folder / "checkpoints" / "best.ckpt"
        return path if path.is_file() else None


MIXTURE = "datamodules.mixture.MixtureDataModule"
_MOST_IN_A_NAME = 8
_OF_THE_PARTS = ("limit_pairs",)


def expand_languages(data: Namespace) -> Namespace:
    """The configuration of a datamodule, or of a mixture where it names several languages.

    Every part has all options but the language; those of `PairsDataModule` are the mixture's as well, except
    limit_pairs, which holds for each part.
    """
    options = data.get("init_args") or _namespace()
    language = options.get("language")
    if not isinstance(language, str) or data.class_path == MIXTURE:
        return data
    if "," not in language:
        if options.get("temperature", 1) != 1:
            warnings.warn("data.temperature has no effect: there is one language only", stacklevel=2)
        return data
    names = language_names(language)
    common = set(inspect.signature(PairsDataModule).parameters).difference(_OF_THE_PARTS)
    shared: dict[str, Any] = {name: value for name, value in vars(options).items() if name in common}
    parts = {
        re.sub(r"[^\w.+-]", "_", name): _namespace(
            class_path=data.class_path, init_args=_namespace(**vars(options) | {"language": name, "temperature": 1.0})
        )
        for name in names
    }
    return _namespace(class_path=MIXTURE, init_args=_namespace(parts=parts, **shared))


def language_names(languages: str) -> list[str]:
    """The languages in ``sw,so,mr``."""
    names = [name.strip() for name in languages.split(",")]
    if "" in names:
        raise InputError(f"data.language is {languages!r}, expected languages such as sw,so,mr")
    folded = [name.casefold() for name in names]
    for name in names:
        if folded.count(name.casefold()) > 1:
            raise InputError(f"data.language is {languages!r}, which has {name!r} twice")
    return names


def in_folder_name(data: Namespace) -> str | None:
    """The languages of a datamodule's configuration (``sw+so+mr``), or its id (``neuclir-1-fa``), or None."""
    options = data.get("init_args") or _namespace()
    language: str | None = options.get("language")
    if language is None and isinstance(identifier := options.get("id"), str):
        return re.sub(r"[^\w.-]+", "-", identifier)
    if data.class_path == MIXTURE:
        names = list(options.get("parts") or ())
    elif isinstance(language, str) and "," in language:
        names = [re.sub(r"[^\w.-]", "_", name) for name in language_names(language)]
    else:
        return language
    if len(names) > _MOST_IN_A_NAME:
        names = [*names[: _MOST_IN_A_NAME - 1], f"{len(names) - _MOST_IN_A_NAME + 1}more"]
    return "+".join(names) or None


def noise_in_folder_name(data: Namespace) -> str:
    """The noise of the training pairs of a datamodule's configuration: ``noise0.4``, ``image0.4-ocr3``; or nothing."""
    noise = (data.get("init_args") or _namespace()).get("noise") or _namespace()
    level = "image" if noise.get("level") == "image" else "noise"
    rate, file = noise.get("rate") or 0, noise.get("index_file")
    parts = [f"{level}{Path(file).stem}" if file else f"{level}{rate:g}" if rate else ""]
    for kind in ("text", "image"):
        severity = noise.get(f"{kind}_severity") or 0
        parts.append(f"{noise.get(kind)}{severity}" if noise.get(kind) and severity else "")
    return "-".join(part for part in parts if part)


def _namespace(**values: Any) -> Namespace:
    return Namespace(**values)  # type: ignore[no-untyped-call]
