"""Short names of the command line. Class paths are text, so that this module imports nothing heavy."""

from __future__ import annotations

import re
from typing import Any

from datamodules import DATAMODULES
from foundations.errors import InputError
from strategies import STRATEGIES

STUDENTS: dict[str, str] = {
    "transformer": "lightning_modules.students.transformer.TransformerEncoder",
    "static": "lightning_modules.students.static.StaticEncoder",
}
"""Short name, as in ``--student static``, -> class path."""

LOSS = "train/loss"
"""The name of the training loss in logs."""

LOGGERS = ("wandb", "csv", "tensorboard", "none")
SHELLS = ("bash", "zsh", "tcsh")
SCORES = ("pooled", "maxsim", "both", "hybrid")

SHORT_NAMES = {"strategy": STRATEGIES, "data": DATAMODULES, "student": STUDENTS}

TEACHERS = {
    "cached": "lightning_modules.teachers.cached.CachedTeacher",
    "online": "lightning_modules.teachers.online.OnlineTeacher",
    "open_clip": "lightning_modules.teachers.open_clip.OpenClipTeacher",
    "locked_image": "lightning_modules.teachers.locked_image.LockedImageTeacher",
    "run": "lightning_modules.teachers.run.RunTeacher",
}

MOVED = {
    "datamodules.flickr30k.Flickr30kDataModule": "datamodules.flickr30k.datamodule.Flickr30kDataModule",
    "datamodules.flickr30k_entities.Flickr30kEntitiesDataModule": "datamodules.flickr30k_entities.datamodule.Flickr30kEntitiesDataModule",  # noqa: E501
    "datamodules.mmarco.MMarcoDataModule": "datamodules.mmarco.datamodule.MMarcoDataModule",
    "datamodules.miracl.MIRACLDataModule": "datamodules.published.miracl.MIRACLDataModule",
    "datamodules.ciral.CIRALDataModule": "datamodules.published.ciral.CIRALDataModule",
    "datamodules.africlirmatrix.AfriCLIRMatrixDataModule": "datamodules.published.africlirmatrix.AfriCLIRMatrixDataModule",  # noqa: E501
    "datamodules.starter.StarterDataModule": "datamodules.starter.emoji.StarterDataModule",
    "datamodules.starter_english.StarterEnglishDataModule": "datamodules.starter.english.StarterEnglishDataModule",
    "datamodules.starter_images.StarterImagesDataModule": "datamodules.starter.images.StarterImagesDataModule",
    "lightning_modules.encoder.TransformerEncoder": "lightning_modules.students.transformer.TransformerEncoder",
    "lightning_modules.static_encoder.StaticEncoder": "lightning_modules.students.static.StaticEncoder",
    "lightning_modules.teacher.OnlineTeacher": "lightning_modules.teachers.online.OnlineTeacher",
    "lightning_modules.cached_teacher.CachedTeacher": "lightning_modules.teachers.cached.CachedTeacher",
    "lightning_modules.run_teacher.RunTeacher": "lightning_modules.teachers.run.RunTeacher",
    "lightning_modules.open_clip_teacher.OpenClipTeacher": "lightning_modules.teachers.open_clip.OpenClipTeacher",
    "lightning_modules.locked_image_teacher.LockedImageTeacher": "lightning_modules.teachers.locked_image.LockedImageTeacher",  # noqa: E501
    "datamodules.wikiclir.WikiCLIRDataModule": "datamodules.published.wikiclir.WikiCLIRDataModule",
    "datamodules.schamoni.SchamoniDataModule": "datamodules.published.schamoni.SchamoniDataModule",
    "datamodules.ir_collection.IrDatasetsDataModule": "datamodules.published.ir_collection.IrDatasetsDataModule",
}
"""Class path of before the modules had folders -> that of today. Old configurations and checkpoints have the former."""

GONE = {
    "starter_help": "afriqa",
    "datamodules.starter_help.StarterHelpDataModule": "afriqa",
    "datamodules.starter.help.StarterHelpDataModule": "afriqa",
}
"""Short name or class path of a dataset that was taken out -> the short name of what to use in its place."""

_GONE = re.compile(rf"(?<![\w.])(?:{'|'.join(re.escape(name) for name in GONE if '.' in name)})(?![\w.])")
_MOVED = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, MOVED))})(?![\w.])")


def short_name(kind: str, class_path: str) -> str:
    """The short name of a class path, or the name of the class."""
    names = {path: name for name, path in SHORT_NAMES[kind].items()}
    return names.get(class_path, class_path.rpartition(".")[2])


def was_taken_out(name: str) -> InputError:
    """The error for a name in `GONE`.

    >>> was_taken_out("starter_help")
    InputError("the dataset 'starter_help' was taken out: use --data afriqa in its place")
    """
    return InputError(f"the dataset {name!r} was taken out: use --data {GONE[name]} in its place")


def moved(value: Any) -> Any:
    """A class path, a configuration, or one as text, with today's class path for each that `MOVED` has.

    Raises:
        InputError: it names a class that was taken out.

    >>> moved("class_path: lightning_modules.encoder.TransformerEncoder")
    'class_path: lightning_modules.students.transformer.TransformerEncoder'
    """
    if isinstance(value, str):
        if gone := _GONE.search(value):
            raise was_taken_out(gone[0])
        return _MOVED.sub(lambda match: MOVED[match[0]], value)
    if isinstance(value, dict):
        return {key: moved(each) for key, each in value.items()}
    return [moved(each) for each in value] if isinstance(value, list) else value
