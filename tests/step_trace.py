"""Run train.py for some strategies, and write down which files of the product are entered before and within a step.

python tests/step_trace.py OUT.json mse,ot --data tsv ... --trainer.max_steps 2

A file is entered when a function in it is called in the main thread; what runs while modules are imported does not
count. A step is all between Lightning's hooks ``on_train_batch_start`` and ``on_train_batch_end``, those of our
callbacks included; the next batch is read after it.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from docs.house import FOLDERS  # noqa: E402

PRODUCT = (*(f"{ROOT / folder}/" for folder in FOLDERS), *(str(path) for path in ROOT.glob("*.py")))
CALLBACKS = str(ROOT / "lightning_modules" / "run" / "trainer.py")


class Trace:
    """A profile function that remembers files in the order in which they were entered."""

    def __init__(self) -> None:
        self.before: dict[str, str] = {}
        self.steps: list[dict[str, str]] = []
        self.now = self.before
        self.imports = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if not code.co_flags & inspect.CO_OPTIMIZED:  # the body of a module or of a class
            self.imports += {"call": 1, "return": -1}.get(event, 0)
        elif event == "call" and self.imports == 0 and code.co_filename.startswith(PRODUCT):
            if code.co_filename == CALLBACKS and code.co_name == "on_train_batch_start":
                self.now = {}
                self.steps.append(self.now)
            self.now.setdefault(str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname)
        elif event == "return" and code.co_filename == CALLBACKS and code.co_name == "on_train_batch_end":
            self.now = {}


def main() -> None:
    """Trace a run for each strategy; the first one alone begins in a fresh process."""
    out, strategies, words = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    import train
    from lightning_modules.cli import front_door  # noqa: F401  the imports of this file are not part of the run

    traces = {}
    for number, strategy in enumerate(strategies):
        sys.argv = ["train.py", *words, "--strategy", strategy, "--name", strategy]
        if number > 0:
            train.main()  # compiles what has to be compiled, which would take minutes with a trace
        traces[strategy] = Trace()
        sys.setprofile(traces[strategy])
        try:
            train.main()
        finally:
            sys.setprofile(None)
    out.write_text(json.dumps({name: {"before": each.before, "steps": each.steps} for name, each in traces.items()}))


if __name__ == "__main__":
    main()
