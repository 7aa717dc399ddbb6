"""Finished runs under test-time noise: which kinds and severities, and where the results are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.noise.options import EvaluationNoise
from foundations.checks import check_choice
from foundations.errors import InputError, as_input_error
from foundations.files import write_json
from foundations.yaml_files import read_yaml
from retrieval.results import by_language, to_json

TEST_NOISE_SUFFIX = ".test_noise.yaml"
"""The file next to ``noise.yaml`` is ``noise.test_noise.yaml``, as W&B's format has no key for it."""
FOLDER = "test_noise"
_KEYS = ("runs", "text", "image", "severities", "seed")


@dataclass(frozen=True)
class NoiseTests:
    """What runs are tested under."""

    runs: dict[str, list[str]]  # label -> values of which a run must have one: {"rate": ["0.0"]} is "on clean pairs"
    text: list[str]  # kinds of text noise
    image: list[str]  # kinds of image noise
    severities: list[int]  # 1 to 5
    seed: int

    def conditions(self) -> list[tuple[str, str, int]]:
        """``text`` or ``image``, kind, severity of each test."""
        kinds = [("text", kind) for kind in self.text] + [("image", kind) for kind in self.image]
        return [(side, kind, severity) for side, kind in kinds for severity in self.severities]

    def noise(self, side: str, kind: str, severity: int) -> EvaluationNoise:
        """The noise of one test; a ValueError where there is no such kind."""
        options: dict[str, Any] = {side: kind, f"{side}_severity": severity, "seed": self.seed}
        return EvaluationNoise(**options)

    def applies(self, labels: Mapping[str, str]) -> bool:
        """Whether a run is among those to test."""
        return all(labels.get(key) in values for key, values in self.runs.items())


def read_test_noise(path: Path) -> NoiseTests:
    """Read a ``.test_noise.yaml``; a wrong key or value is an InputError."""
    content = read_yaml(path)
    with as_input_error(path=path):
        for key in content:
            check_choice("key", key, _KEYS)
    severities = content.get("severities", [1, 2, 3, 4, 5])
    if not isinstance(severities, list) or not all(isinstance(each, int) and 1 <= each <= 5 for each in severities):
        raise InputError(f"severities is {severities!r}, expected a list of numbers from 1 to 5", path)
    kinds = {side: content.get(side) or [] for side in ("text", "image")}
    for side, names in kinds.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{side} is {names!r}, expected a list of kinds of noise", path)
    runs = content.get("runs") or {}
    if not isinstance(runs, dict):
        raise InputError(f"runs is {runs!r}, expected labels and their values, e.g. rate: [0.0]", path)
    labels = {key: list(map(str, values if isinstance(values, list) else [values])) for key, values in runs.items()}
    tests = NoiseTests(labels, kinds["text"], kinds["image"], severities, int(content.get("seed", 0)))
    with as_input_error(path=path):
        for condition in tests.conditions():
            tests.noise(*condition)
    return tests


def result_file(folder: Path, side: str, kind: str, severity: int) -> Path:
    """Where the result of one test of a run is."""
    return folder / FOLDER / f"{side}-{kind}-{severity}.json"


def is_tested(folder: Path, labels: Mapping[str, str], path: Path) -> bool:
    """Whether a run has all its tests under noise."""
    return not _open_conditions(read_test_noise(path), folder, labels)


def _open_conditions(tests: NoiseTests, folder: Path, labels: Mapping[str, str]) -> list[tuple[str, str, int]]:
    if not tests.applies(labels):
        return []
    return [each for each in tests.conditions() if not result_file(folder, *each).is_file()]


def measure_under_noise(folder: Path, labels: Mapping[str, str], path: Path) -> None:
    """Test a finished run under each condition that it was not tested under yet.

    The conditions are those of the ``.test_noise.yaml`` at ``path``, ``labels`` those of the cell. The model and the
    data are built once; the results equal those of ``evaluate.py`` under the same noise.
    """
    tests = read_test_noise(path)
    conditions = _open_conditions(tests, folder, labels)
    if not conditions:
        return
    from datamodules.noise.transform import noisy_collections
    from lightning_modules.commands.evaluate import load_weights, open_run

    checkpoint = folder / "checkpoints" / "best.ckpt"
    lean = ["--evaluation.undistilled=false", "--evaluation.bm25=false", "--trainer.enable_progress_bar=false"]
    cli = open_run(str(folder), lean, checkpoint)
    load_weights(cli.model, checkpoint)
    data: Any = cli.datamodule
    data.setup("test")
    clean = {name: each for name, each in data.collections.items() if each.split == "test"}
    (folder / FOLDER).mkdir(exist_ok=True)
    for side, kind, severity in conditions:
        noisy = noisy_collections(clean, tests.noise(side, kind, severity))
        cli.trainer.test(cli.model, datamodule=data.with_attributes(collections=noisy), verbose=False)
        results = by_language(cli.evaluation.results)
        content = {
            language: {row: {"means": each.means, "per_query": each.per_query} for row, each in rows.items()}
            for language, rows in results.items()
        }
        write_json(result_file(folder, side, kind, severity), to_json(content))
