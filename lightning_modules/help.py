"""The short help of train.py, made without importing torch."""

from __future__ import annotations

import ast
from pathlib import Path

from datamodules import DATAMODULES
from lightning_modules.front_door import LOGGERS, STUDENTS
from strategies import STRATEGIES

ROOT = Path(__file__).parent.parent

OPTIONS: dict[str, str] = {
    "--strategy NAME": "distillation loss, see below; a class path works as well",
    "--strategy.OPTION VALUE": "an option of it, e.g. --strategy.epsilon 0.02",
    "--data NAME": "dataset, see below (default: starter)",
    "--data.OPTION VALUE": "an option of it, e.g. --data.language sw, or sw,so,mr for several languages",
    "--student NAME": "kind of student, see below",
    "--student.OPTION VALUE": "an option of it, e.g. --student.layers 3",
    "--teacher NAME": "a run folder, whose student teaches; starter/minilm; a model's folder or name on the hub",
    "--score NAME": "compare texts by one vector (pooled), by tokens (maxsim), or report both",
    "--model.OPTION VALUE": "lr, embedding_lr, schedule, siamese, teacher, ...",
    "--trainer.OPTION VALUE": "of Lightning's Trainer: max_epochs, devices, precision, strategy (ddp, fsdp), ...",
    "--evaluation.OPTION VALUE": "metrics, k, shard_texts, undistilled",
    "--seed_everything N": "seed (default: 0)",
    "--config FILE": "YAML with any of these; several are laid over each other; options win",
    "--logger NAMES": f"one or more of {', '.join(LOGGERS)}, with commas (default: wandb, offline if not logged in)",
    "--output DIR": "where run folders go (default: runs)",
    "--name NAME": "name of the run folder (default: from data, strategy and seed)",
    "--resume [DIR]": "go on with a run that was cut off: that folder, or the newest one of this name",
    "--print_config": "print the whole configuration, and stop",
    "--print_shtab SHELL": "print a completion script for bash or zsh, and stop",
    "--help_all": "every option of everything",
    "--strategy.help NAME, --data.help NAME, --student.help NAME": "the options of one strategy, dataset or student",
}


def short_help() -> str:
    """The text of ``train.py --help``."""
    lines = [
        "usage: python train.py [--strategy NAME] [--data NAME] [--config FILE] [options]",
        "",
        "Distil a teacher into a student for a low-resource language: fit, then test with the best checkpoint.",
        "",
        "examples:",
        "  python train.py --strategy ot --data starter --data.language sw",
        "  python train.py --strategy mse --data tsv --data.root my_language/",
        "  python train.py --resume runs/starter-sw-ot-seed0",
        "",
        "options:",
        *(f"  {name:<24}  {text}" if len(name) <= 24 else f"  {name}\n{'':28}{text}" for name, text in OPTIONS.items()),
    ]
    for title, names in (("strategies", STRATEGIES), ("datasets", DATAMODULES), ("students", STUDENTS)):
        lines += ["", f"{title}:", *(f"  {name:<24}  {summary(path)}" for name, path in names.items())]
    return "\n".join(lines)


def summary(class_path: str) -> str:
    """The first sentence of a class's docstring, read from its source."""
    module, _, name = class_path.rpartition(".")
    source = (ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    raise AssertionError(f"{class_path} is not in its file")
