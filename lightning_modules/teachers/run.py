"""A teacher that this framework trained: the student of an earlier run."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundations.cache import content_hash
from foundations.errors import InputError
from lightning_modules.models.files import misfit, read_weights
from lightning_modules.models.settings import OwnSettings, own_settings
from lightning_modules.models.trust import read_run_config
from lightning_modules.students.base import TextEncoder, TextSide
from lightning_modules.students.tokens import Tokenization
from lightning_modules.teachers.online import OnlineTeacher
from lightning_modules.vectors import projected
from strategies.base import Embeddings

_BY_SIDE = ("prefix", "query_prefix", "document_prefix", "query_augmentation")


class RunTeacher(OnlineTeacher):
    """The student of a run folder, frozen: for example a late-interaction model that was trained on English.

    Its vectors are those of the run's best checkpoint, through the layer into the width of its own teacher where
    there is one. Length, prefixes, pooling and query augmentation are the run's. After `load`, ``projection`` is that
    layer, and ``space`` the map of `Whitening` into the space that the vectors are in; empty where it is the teacher's.

    Args:
        run: a run folder of ``train.py``.
        checkpoint: which of its checkpoints, without ``.ckpt``: ``best`` or ``last``.
        batch_size: number of texts that are encoded together.
        device: where the model runs; ``auto`` is the current GPU if there is one, else the CPU.

    Raises:
        InputError: the folder is none of a run, has no such checkpoint, or names code from elsewhere; see `trusting`.
    """

    def __init__(self, run: str, *, checkpoint: str = "best", batch_size: int = 64, device: str = "auto") -> None:
        folder = Path(run).expanduser()
        self.student = _student_config(folder)
        self.checkpoint = folder / "checkpoints" / f"{checkpoint}.ckpt"
        if not self.checkpoint.is_file():
            raise InputError("no such checkpoint; was the run cut off before its first validation?", self.checkpoint)
        options = self.student["init_args"]
        prefixes = {name: options.get(name) for name in ("prefix", "query_prefix", "document_prefix")}
        super().__init__(str(run), batch_size=batch_size, device=device, **prefixes)
        self.projection: nn.Module = nn.Identity()
        self.space: dict[str, Tensor] = {}

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        width = self.encoder.dim  # loads both
        return self.projection.out_features if isinstance(self.projection, nn.Linear) else width

    @cached_property
    def own(self) -> OwnSettings:
        """What the files of the model say that the student started from."""
        model = self.student["init_args"].get("model")
        return OwnSettings() if model is None else own_settings(str(model))

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """Both sides where their prefixes differ, or queries are augmented; see `Teacher.sides`."""
        return ("queries", "documents") if self.student["init_args"].get("query_augmentation") else super().sides

    def settings(self, side: TextSide = "queries") -> dict[str, Any]:
        """See `ModelTeacher.settings`."""
        options = dict(self.student["init_args"])
        augmentation = options.get("query_augmentation") if side == "queries" else None
        options = {name: value for name, value in options.items() if name not in _BY_SIDE}
        student = {"class_path": self.student["class_path"], "init_args": options}
        inherited = super().settings(side)
        kept = {name: inherited[name] for name in ("model", "prefix", "format")}
        return kept | {"student": student, "query_augmentation": augmentation or 0}

    def model_key(self) -> str:
        """See `ModelTeacher.model_key`."""
        return content_hash(self.checkpoint)

    def tokenization(self) -> Tokenization:
        """How queries become tokens; this loads the model."""
        return self.encoder.tokenization()

    def _load(self) -> TextEncoder:
        parts: dict[str, dict[str, Any]] = {"student": {}, "projection": {}, "space": {}}
        for name, value in read_weights(self.checkpoint).items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        student = _build(self.student, self.model)
        try:
            student.load_state_dict(parts["student"])
        except (RuntimeError, ValueError) as error:
            message = f"does not fit the student of the run's config.yaml: {misfit(error)}"
            raise InputError(message, self.checkpoint) from error
        self.space = parts["space"].get("_extra_state", {})
        if parts["projection"]:
            width, inner = parts["projection"]["weight"].shape
            self.projection = nn.Linear(inner, width).requires_grad_(False)
            self.projection.load_state_dict(parts["projection"])
        return student

    def encode_batch(self, texts: list[str], tokens: bool, side: TextSide) -> tuple[Embeddings, Tensor]:
        """See `ModelTeacher.encode_batch`."""
        embeddings, ids = super().encode_batch(texts, tokens, side)
        return projected(embeddings, self.projection.to(embeddings.pooled.device)), ids


def _student_config(run: Path) -> dict[str, Any]:
    """The student's ``class_path`` and ``init_args`` in a run's config.yaml."""
    student = read_run_config(run, "model", "student")
    try:
        return {"class_path": str(student["class_path"]), "init_args": dict(student.get("init_args") or {})}
    except (KeyError, TypeError, ValueError) as error:
        message = "has no model.student with a class_path, expected the config.yaml of a run"
        raise InputError(message, run / "config.yaml") from error


def _build(student: dict[str, Any], run: str) -> TextEncoder:
    """The student as it was before training; a wrong option is an InputError."""
    module, _, name = student["class_path"].rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        if not (isinstance(kind, type) and issubclass(kind, TextEncoder)):
            raise InputError(f"the student of the run is a {name}, expected a TextEncoder", run)
        with torch.random.fork_rng(devices=[]):  # weights that are overwritten must not move the run's random numbers
            return kind(**student["init_args"])
    except InputError:
        raise
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"cannot build the student of the run: {str(error).splitlines()[0]}", run) from error
