"""Puts a fault into the process, as the variable FAULT says; Python imports this by its name where the path has it.

``signal=NUMBER@STEP`` sends the signal in that optimiser step of this process, ``enospc@STEP`` lets no checkpoint be
written from then on for want of space, ``remove=PATH@STEP`` takes a file or folder away, ``run=COMMAND@STEP`` runs a
command of the shell. Several are separated by ``;``. Of several ranks FAULT_RANK has them, or all, where it is not set.
``SLOW`` is seconds that every step takes longer.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any


def _run(kind: str, value: str) -> None:
    if kind == "signal":
        os.kill(os.getpid(), int(value))
    elif kind == "remove":
        shutil.rmtree(value) if Path(value).is_dir() else Path(value).unlink()
    elif kind == "run":
        subprocess.run(value, shell=True, check=False)
    elif kind == "enospc":
        import torch

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        torch.save = full


def _patch(optimizer: Any) -> None:
    step, steps = optimizer.step, count(1)
    faults = [each.rpartition("@") for each in os.environ.get("FAULT", "").split(";") if each]

    def faulty(*arguments: Any, **options: Any) -> Any:
        number = next(steps)
        time.sleep(float(os.environ.get("SLOW", "0")))
        result = step(*arguments, **options)
        for what, _, at in faults:
            if int(at) == number:
                _run(*what.partition("=")[::2])
        return result

    optimizer.step = faulty


class _AfterTorch(MetaPathFinder):
    """Waits for ``torch.optim.adamw``, and changes its class when it was imported."""

    def find_spec(self, name: str, *_: object) -> Any:
        if name != "torch.optim.adamw":
            return None
        sys.meta_path.remove(self)
        spec: Any = find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            _patch(module.AdamW)

        spec.loader.exec_module = exec_module
        return spec


_RANK = os.environ.get("LOCAL_RANK", "0")
if os.environ.get("FAULT_RANK", _RANK) == _RANK and ("FAULT" in os.environ or "SLOW" in os.environ):
    if "torch.optim.adamw" in sys.modules:
        _patch(sys.modules["torch.optim.adamw"].AdamW)
    else:
        sys.meta_path.insert(0, _AfterTorch())
