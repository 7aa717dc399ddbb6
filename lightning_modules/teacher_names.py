"""``--teacher NAME``: a run folder, a model of the starter, a model's folder, a name on the hub, or a class path.

``open_clip:...`` is a teacher that reads images as well.
"""

from __future__ import annotations

import re
from pathlib import Path

from lightning_modules.front_door import did_you_mean
from lightning_modules.starter_models import STARTER_MODELS, resolve_model
from retrieval.errors import InputError

_CACHED = "lightning_modules.cached_teacher.CachedTeacher"
_OPEN_CLIP = "open_clip:"
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def teacher_options(name: str) -> list[str]:
    """What ``--teacher NAME`` stands for.

    Args:
        name: a run folder (its student becomes the teacher), ``starter/minilm``, a model's folder, a name on the hub,
            ``open_clip:ARCHITECTURE/WEIGHTS`` with a tag of published weights or a checkpoint file,
            ``open_clip:FOLDER``, ``open_clip:hf-hub:NAME``, or the class path of a teacher, which is then used without
            a cache.

    Returns:
        Options of the real parser, in their order.

    Raises:
        InputError: it is a path where there is neither a run nor a model, or an unknown starter name.
    """
    if name.startswith(_OPEN_CLIP):
        return _open_clip(name.removeprefix(_OPEN_CLIP))
    folder = Path(name).expanduser()
    if (folder / "config.yaml").is_file() and not (folder / "config.json").is_file():
        if not (folder / "checkpoints" / "best.ckpt").is_file():
            raise InputError("this run has no checkpoints/best.ckpt yet, so its student cannot be a teacher", folder)
        return _cached("lightning_modules.run_teacher.RunTeacher", "run", name)
    if _CLASS_PATH.fullmatch(name) and not folder.exists():
        return [f"--model.teacher={name}"]
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError("neither a run (config.yaml) nor a model (config.json) is in this folder", folder)
    if folder.parent != Path() and folder.parent.is_dir() and not folder.exists():
        near = did_you_mean(folder.name, sorted(path.name for path in folder.parent.iterdir() if path.is_dir()))
        raise InputError(f"no such folder, expected a run or a model{near}", folder)
    if name not in STARTER_MODELS:  # those would be fetched
        resolve_model(name)
    return _cached("lightning_modules.teacher.OnlineTeacher", "model", name)


def _open_clip(name: str) -> list[str]:
    from lightning_modules.open_clip_teacher import HUB, check_folder, check_name

    class_path = "lightning_modules.open_clip_teacher.OpenClipTeacher"
    if name.startswith((HUB, "/", ".", "~")) or Path(name).is_dir():
        if not name.startswith(HUB):
            check_folder(Path(name).expanduser())
        # A config file may have set it, for an architecture.
        return [*_cached(class_path, "model", name), "--model.teacher.teacher.pretrained="]
    architecture, _, weights = name.partition("/")
    check_name(architecture)
    if not weights:
        raise InputError(
            f"{_OPEN_CLIP}{name} names no weights, expected {_OPEN_CLIP}{name}/TAG or {_OPEN_CLIP}{name}/FILE"
        )
    return [*_cached(class_path, "model", architecture), f"--model.teacher.teacher.pretrained={weights}"]


def _cached(class_path: str, option: str, value: str) -> list[str]:
    inner = "--model.teacher.teacher"
    return [f"--model.teacher={_CACHED}", f"{inner}={class_path}", f"{inner}.{option}={value}"]
