"""How many files one goes through to follow a run: up to its first step, and within a step."""

from __future__ import annotations

import json
import re

import pytest

from docs.house import ROOT

MOST_BEFORE_THE_FIRST_STEP = 65
MOST_WITHIN_A_STEP = {"mse": 11, "ot": 19}

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
def test_a_run_goes_through_few_files(process, tsv_folder, tiny_bert, tmp_path):
    out, config = tmp_path / "trace.json", tmp_path / "static.yaml"
    config.write_text(CONFIG.format(root=tsv_folder, model=tiny_bert))
    words = ["--config", config, "--output", tmp_path, "--logger", "none", "--plots", "false"]
    cache = {"POTSTILL_CACHE": str(tmp_path / "cache")}
    done = process("tests/step_trace.py", out, ",".join(MOST_WITHIN_A_STEP), *words, environment=cache)
    assert done.status == 0, done.err
    traces = json.loads(out.read_text())
    counted = {"mse, before the first step": (traces["mse"]["before"], MOST_BEFORE_THE_FIRST_STEP)}
    for strategy, most in MOST_WITHIN_A_STEP.items():
        assert len(traces[strategy]["steps"]) == 2
        # The second step: the first one also makes what is kept for the others.
        counted[f"{strategy}, within a step"] = traces[strategy]["steps"][1], most
    for part, (entered, most) in counted.items():
        files = "\n".join(f"{file}: {function}" for file, function in entered.items())
        assert len(entered) <= most, f"{part}: {len(entered)} files, expected at most {most}:\n{files}"
    path, trace = newcomers_path(), traces["mse"]
    assert [file for file in trace["before"] if file in path[:3]] == path[:3], "the way to the module is another"
    assert [file for file in trace["steps"][1] if file in path[3:]] == path[3:], "the way of a step is another"
