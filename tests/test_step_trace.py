"""How many files one goes through to follow a run: up to its first step, and within a step."""

from __future__ import annotations

import json
import re

import pytest

from docs.house import ROOT

MOST_BEFORE_THE_FIRST_STEP = 50
MOST_WITHIN_A_STEP = {"mse": 10, "ot": 18}

CONFIG = """\
model:
  teacher:
    class_path: lightning_modules.teachers.cached.CachedTeacher
    init_args:
      teacher:
        class_path: lightning_modules.teachers.online.OnlineTeacher
        init_args: {{model: {model}, max_length: 32}}
  student:
    class_path: lightning_modules.students.static.StaticEncoder
    init_args: {{model: {model}, max_length: 32}}
data:
  class_path: datamodules.tsv.TSVDataModule
  init_args: {{root: {root}, batch_size: 10}}
trainer: {{max_steps: 2, accelerator: cpu}}
"""


def newcomers_path() -> list[str]:
    """The files of the list at the head of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(r"^\d\. `(\S+)`", text, re.MULTILINE)


def test_the_newcomers_path_exists():
    files = newcomers_path()
    assert len(files) == 7
    assert files[0] == "train.py"
    assert [name for name in files if not (ROOT / name).is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("strategy", MOST_WITHIN_A_STEP)
def test_a_run_goes_through_few_files(process, tsv_folder, tiny_bert, tmp_path, strategy):
    out = tmp_path / "trace.json"
    config = tmp_path / "static.yaml"
    config.write_text(CONFIG.format(root=tsv_folder, model=tiny_bert))
    words = ["--config", config, "--strategy", strategy, "--output", tmp_path, "--name", "run", "--logger", "none"]
    done = process("tests/step_trace.py", out, *words, environment={"POTSTILL_CACHE": str(tmp_path / "cache")})
    assert done.status == 0, done.err
    # The second step: the first one also makes what is kept for the others.
    trace = json.loads(out.read_text())
    assert len(trace["steps"]) == 2
    for part, entered, most in (
        ("before the first step", trace["before"], MOST_BEFORE_THE_FIRST_STEP),
        ("within a step", trace["steps"][1], MOST_WITHIN_A_STEP[strategy]),
    ):
        files = "\n".join(f"{file}: {function}" for file, function in entered.items())
        assert len(entered) <= most, f"{len(entered)} files {part}, expected at most {most}:\n{files}"
    if strategy == "mse":
        path = newcomers_path()
        assert [file for file in trace["before"] if file in path[:2]] == path[:2], "the way to the module is another"
        assert [file for file in trace["steps"][1] if file in path] == path[2:], "the way of a step is another"
