"""Short names of the command line. Class paths are text, so that this module imports nothing heavy."""

from __future__ import annotations

from datamodules import DATAMODULES
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

SCORES = ("pooled", "maxsim", "both")

SHORT_NAMES = {"strategy": STRATEGIES, "data": DATAMODULES, "student": STUDENTS}

FULL_KEYS = {"strategy": "model.strategy", "data": "data", "student": "model.student"}
"""Option as it is typed -> option of the parser."""

TEACHERS = {
    "cached": "lightning_modules.teachers.cached.CachedTeacher",
    "online": "lightning_modules.teachers.online.OnlineTeacher",
    "open_clip": "lightning_modules.teachers.open_clip.OpenClipTeacher",
    "locked_image": "lightning_modules.teachers.locked_image.LockedImageTeacher",
}
