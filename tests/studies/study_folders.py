"""Run folders of a made-up study, in the form in which train.py writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

QUERIES = 40
SLOPES = {"contrastive": 0.5, "mse": 0.7, "ot": 0.3}
CLASSES = {"contrastive": "strategies.contrastive.Contrastive", "mse": "strategies.mse.MSE",
           "ot": "strategies.ot.OptimalTransport"}  # fmt: skip
TEST_NOISE = {"text-keyboard": 0.06, "text-ocr": 0.03, "image-jpeg": 0.04}


def per_query(strategy: str, level: float, language: str, seed: int) -> dict[str, float]:
    """Made-up reciprocal ranks that fall with the level."""
    words = f"{strategy}{language}{seed}{level}"
    rng, queries = np.random.default_rng(list(words.encode())), np.random.default_rng(list(language.encode()))
    ease = queries.uniform(0.3, 1.0, QUERIES)
    values = ease * (0.9 - SLOPES[strategy] * level**1.5) * rng.uniform(0.8, 1.1, QUERIES)
    return {f"q{number}": float(value) for number, value in enumerate(values.clip(0, 1))}


def rows(values: dict[str, float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``metrics.json`` and ``per_query.json`` of a run."""
    low = {query: value / 5 for query, value in values.items()}
    both = {"test": {"mrr": values, "map": low}, "undistilled": {"mrr": low, "map": low}}
    means = {row: {name: float(np.mean(list(v.values()))) for name, v in of.items()} for row, of in both.items()}
    return means, both


def write_run(folder: Path, strategy: str, rate: float, language: str, seed: int, tests: bool = True) -> Path:
    """One run folder."""
    folder.mkdir(parents=True)
    noise = {"rate": rate, "level": "caption", "text": "", "text_severity": 0, "seed": 0} if rate else None
    config = {
        "seed_everything": seed,
        "model": {"strategy": {"class_path": CLASSES[strategy], "init_args": {"pooled_weight": 1.0}}, "lr": 0.001,
                  "student": {"class_path": "a.StaticEncoder", "init_args": {"model": "starter/e5-small"}},
                  "teacher": {"class_path": "a.CachedTeacher", "init_args": {"teacher": {"class_path": "a.OnlineTeacher",
                              "init_args": {"model": "starter/minilm"}}}}},
        "data": {"class_path": "a.StarterDataModule", "init_args": {"language": language, "noise": noise, "batch_size": 64}},
        "trainer": {"max_epochs": 3}, "output": str(folder.parent), "name": folder.name,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    means, values = rows(per_query(strategy, rate, language, seed))
    (folder / "metrics.json").write_text(json.dumps(means))
    (folder / "per_query.json").write_text(json.dumps(values))
    (folder / "environment.json").write_text(json.dumps({"command": ["train.py"], "versions": {"torch": "2.9"}}))
    if tests and not rate:
        (folder / "test_noise").mkdir()
        for kind, slope in TEST_NOISE.items():
            for severity in (1, 3, 5):
                noisy = {query: value * (1 - slope * severity) for query, value in values["test"]["mrr"].items()}
                means, both = rows(noisy)
                content = {"test": {"means": means["test"], "per_query": both["test"]}}
                (folder / "test_noise" / f"{kind}-{severity}.json").write_text(json.dumps(content))
    return folder


def write_study(
    output: Path,
    strategies: Sequence[str] = tuple(SLOPES),
    rates: Sequence[float] = (0.0, 0.2, 0.4, 0.8),
    languages: Sequence[str] = ("sw", "mr"),
    seeds: Sequence[int] = (0, 1, 2),
) -> Path:
    """All runs of a study."""
    for strategy in strategies:
        for rate in rates:
            for language in languages:
                for seed in seeds:
                    write_run(output / f"{strategy}-rate{rate}-{language}-seed{seed}", strategy, rate, language, seed)
    return output
