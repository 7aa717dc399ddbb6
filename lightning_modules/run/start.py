"""Where a run starts: its folder, which one live run has for itself, and the checkpoint that it goes on from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from foundations.errors import InputError
from foundations.yaml_files import read_yaml
from lightning_modules.models.files import read_checkpoint
from lightning_modules.names import moved
from retrieval.results import is_finished

LOCK = ".run.lock"
"""File in a run folder that its run holds a lock on while it lives."""

RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
"""Variables that say how often a job was started again."""

_RESUMABLE = ("global_step", "epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers")
_LIMITS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
_OF_THE_PLACE = ("name", "output")
_CAN_DIFFER = (*_OF_THE_PLACE, "trainer.precision")  # of one run on several machines
_STUDENT = "model.student."
_READING = ("max_length", "prefix", "query_prefix", "document_prefix", "pooling", "dropout", "query_augmentation",
            "trust_remote_code")  # fmt: skip
_IN_CHECKPOINT = ("model.projection", "model.space", "model.shrinkage", "seed_everything")
Config = dict[str, Any]
"""A configuration as dotted name -> value."""


@dataclass
class Start:
    """Where a run starts.

    Args:
        folder: the run folder.
        release: gives up the lock on it.
        before: what the run that goes on was trained with; empty for a new one.
        checkpoint: what it goes on from; None starts at step 0.
        step: optimiser steps that the checkpoint has behind it.
        damaged: other checkpoints in the folder that cannot be read.
    """

    folder: Path
    release: Callable[[], None]
    before: Config = field(default_factory=dict)
    checkpoint: Path | None = None
    step: int = 0
    damaged: tuple[Path, ...] = ()

    def changes(self, now: Config) -> Config:
        """The options of a configuration with another value than the run was trained with."""
        return {key: now[key] for key, value in self.before.items() if key in now and now[key] != value}

    def without_effect(self, now: Config, named: bool) -> list[str]:
        """Those of the `changes` that the checkpoint decides; name and output too, where the folder is ``named``."""
        ours = (*_IN_CHECKPOINT, *(_OF_THE_PLACE if named else ()))
        changed = self.changes(now) if self.checkpoint else {}
        return [key for key in changed if key in ours or _makes_the_student(key)]

    def describe(self, now: Config, kept: Sequence[str]) -> str:
        """How the run goes on, in a line; ``kept`` is what has no effect."""
        if self.is_finished(now):
            return "this run is finished, there is nothing to resume"
        if self.checkpoint is None:
            return "no checkpoint was written yet, so the run starts again"
        changed = {key: value for key, value in self.changes(now).items() if key not in kept}
        changes = ", ".join(f"{key} {value} (was {self.before[key]})" for key, value in changed.items())
        with_changes = f" with {changes}" if changes else ""
        without = f"; without effect here: {', '.join(kept)}" if kept else ""
        return f"goes on at step {self.step}{with_changes}{without}"

    def is_finished(self, now: Config) -> bool:
        """Whether there is nothing to go on with: the run came to its end, and its limits are as they were."""
        return is_finished(self.folder) and bool(self.before) and not set(_LIMITS) & set(self.changes(now))

    def accept(self) -> None:
        """Put the folder in order once the checkpoint was loaded: it is ``last.ckpt``, and no run is finished here."""
        (self.folder / "metrics.json").unlink(missing_ok=True)
        for path in self.damaged:
            path.replace(path.with_suffix(".damaged"))
        if self.checkpoint is not None and self.checkpoint.parent == self.folder:  # Lightning's, of a SLURM job
            self.checkpoint.replace(self.folder / "checkpoints" / "last.ckpt")
        remove_of_slurm(self.folder)

    def close(self) -> None:
        """Let others have the folder, which goes if nothing was written into it."""
        if _is_first() and [path.name for path in self.folder.iterdir()] == [LOCK]:
            (self.folder / LOCK).unlink()
            self.folder.rmdir()
            with suppress(OSError):  # there are other runs
                self.folder.parent.rmdir()
        self.release()


def new_start(output: str, name: str) -> Start:
    """A folder for a new run: ``name``, or ``name-2`` and so on, which is made.

    In a SLURM job the name has the job's id, and a folder is taken again in which nothing was trained.

    Raises:
        InputError: the folder cannot be made.
    """
    job = os.environ.get("SLURM_JOB_ID")
    for number in count(1):
        folder = _numbered(output, f"{name}-{job}" if job else name, number)
        is_free = not folder.exists() or bool(job and not is_finished(folder) and not checkpoints_in(folder))
        if is_free and (release := claim(folder)):
            return Start(folder, release)
    raise AssertionError("numbers do not end")


def find_start(resume: str | None, checkpoint: str | None, output: str, name: str, now: Config) -> Start | None:
    """The run to go on with, if there is one; nothing is written but its lock.

    Args:
        resume: a run folder; "" is the newest one of that name, the one with the same options first; None is none,
            unless SLURM or torchrun started this job again, or an earlier run of this job left a checkpoint: then it
            is that of the same name and options.
        checkpoint: the name of the one to go on from; None is the one with the most steps.
        output: where run folders are.
        name: of the run.
        now: the configuration.

    Raises:
        InputError: a live run has the folder, or a checkpoint is damaged or does not fit.
    """
    if checkpoint is not None and resume is None:
        raise InputError("--from names a checkpoint to go on from: it needs --resume")
    if resume:
        if not (release := claim(Path(resume))):
            raise InputError("another process is at this run: wait for its end, or stop it", resume)
        return _start(Path(resume), release, checkpoint, now)
    for folder in _candidates(resume, output, name, now):
        if release := claim(folder):
            return _start(folder, release, checkpoint, now)
    return None


def _candidates(resume: str | None, output: str, name: str, now: Config) -> Iterator[Path]:
    """Folders to go on in, the best first."""
    job = os.environ.get("SLURM_JOB_ID")
    restarted = any(os.environ.get(each, "0") not in ("", "0") for each in RESTARTS)
    if not (job or restarted or resume is not None):
        return
    for folder in sorted(_existing(output, f"{name}-{job}" if job else name), key=lambda each: not _is_same(each, now)):
        is_restart = is_finished(folder) if restarted else False
        is_restart |= bool(checkpoints_in(folder)) and not is_finished(folder)
        if (is_restart or resume is not None) and (_is_same(folder, now) or (resume is not None and not job)):
            yield folder
    if job and resume is not None:  # a run that was begun outside of a job
        yield from _existing(output, name)


def claim(folder: Path) -> Callable[[], None] | None:
    """Take the lock of a run folder, which is made as needed, on the first rank; None where a live run has it.

    Returns:
        What gives it up.

    Raises:
        InputError: the folder cannot be made or written.
    """
    if not _is_first() or (is_finished(folder) and not os.access(folder, os.W_OK)):
        return lambda: None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise InputError(f"the run folder cannot be written: {error.strerror or error}", folder) from error
    return lock.release


def checkpoints_in(folder: Path) -> list[Path]:
    """What a run can go on from: ``last.ckpt``, ``best.ckpt``, and what Lightning wrote at a signal of SLURM."""
    ours = [folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")]
    return [path for path in ours if path.is_file()] + sorted(folder.glob("hpc_ckpt_*.ckpt"))


def remove_of_slurm(folder: Path) -> None:
    """Remove what Lightning wrote at a signal of SLURM, which it would load even before a test."""
    for path in folder.glob("hpc_ckpt_*.ckpt"):
        path.unlink()


def flat(config: Mapping[str, Any], prefix: str = "") -> Config:
    """A nested configuration as dotted names and values.

    >>> flat({"model": {"lr": 1, "student": {}}, "name": None})
    {'model.lr': 1, 'name': None}
    """
    found: Config = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _is_first() -> bool:
    return rank_zero_only.rank == 0  # type: ignore[attr-defined,no-any-return]


def _start(folder: Path, release: Callable[[], None], checkpoint: str | None, now: Config) -> Start:
    try:
        start = Start(folder, release, _config(folder))
        if not start.is_finished(now):
            start.checkpoint, start.step, start.damaged = furthest(folder, checkpoint)
        if start.checkpoint is not None:
            _check_fits(start, now)
    except BaseException:
        release()
        raise
    return start


def _check_fits(start: Start, now: Config) -> None:
    """Refuse options that the optimiser's state or the weights in a checkpoint cannot follow."""
    before, changes = start.before, start.changes(now)
    if (student := f"{_STUDENT}class_path") in changes:
        raise InputError(f"model.student is {now[student]}, expected {before[student]}, as the run began", start.folder)
    if "model.embedding_lr" in changes and 0 in (rates := [each["model.embedding_lr"] for each in (now, before)]):
        frozen = "token tables cannot be frozen or freed when a run goes on"
        raise InputError(f"model.embedding_lr is {rates[0]}, but was {rates[1]}: {frozen}", start.folder)


def furthest(folder: Path, name: str | None) -> tuple[Path | None, int, tuple[Path, ...]]:
    """The checkpoint with the most steps, or the one with that name; its steps; and those that are damaged.

    Of two with the same weights ``best`` counts, which was written after the validation.
    """
    steps: dict[Path, int] = {}
    damaged: dict[Path, InputError] = {}
    for path in checkpoints_in(folder):
        try:
            steps[path] = int(read_checkpoint(path, _RESUMABLE)["global_step"])
        except InputError as error:
            damaged[path] = error
    if name is not None:
        path = {each.stem: each for each in [*steps, *damaged]}.get(name, Path())
        if path in damaged:
            raise damaged[path]
        if path not in steps:
            stems = ", ".join(each.stem for each in steps) or "a run with a checkpoint"
            raise InputError(f"--from is {name!r}, expected {stems}", folder)
        return path, steps[path], tuple(damaged)
    furthest = max(steps, key=lambda path: (steps[path], path.stem == "best"), default=None)
    if damaged:
        sound = f"--resume {folder} --from {furthest.stem} goes on at step {steps[furthest]}" if furthest else ""
        raise InputError(f"{next(iter(damaged.values()))}; {sound or 'no other one is there: start a new run'}")
    return furthest, steps.get(furthest, 0) if furthest else 0, ()


def _makes_the_student(key: str) -> bool:
    return key.startswith(_STUDENT) and key.rpartition(".")[2] not in _READING


def _config(folder: Path) -> Config:
    path = folder / "config.yaml"
    return flat(moved(read_yaml(path))) if path.is_file() else {}


def _is_same(folder: Path, now: Config) -> bool:
    """Whether the run in a folder has these options; those that only one of two versions knows do not count."""
    before = _config(folder)
    return all(before[key] == now[key] for key in before.keys() & now.keys() if key not in _CAN_DIFFER)


def _existing(output: str, name: str) -> list[Path]:
    """The folders of a name, the newest first."""
    return list(takewhile(Path.exists, (_numbered(output, name, number) for number in count(1))))[::-1]


def _numbered(output: str, name: str, number: int) -> Path:
    return Path(output) / (name if number == 1 else f"{name}-{number}")
