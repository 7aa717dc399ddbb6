"""Lightning's options for trials, on the command line: metrics are of whole collections, or there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval.results import is_finished


@pytest.fixture
def train(tiny_config, script, tmp_path):
    """The run of `finished_run` with other options of the trainer."""

    def train(*options: object):
        words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run"]
        done = script("train.py", *words, "--logger", "csv", "--checkpoint_every", "4", *options)
        assert done.status == 0, done.err
        assert "Traceback" not in done.err
        return done, tmp_path / "run"

    return train


def results(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("metrics.json", "per_query.json", "history.json")]


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.limit_test_batches", "2"],
        ["--trainer.limit_test_batches", "0.4"],
        ["--trainer.limit_val_batches", "1"],
        ["--trainer.limit_val_batches", "0.1", "--trainer.limit_test_batches", "1"],
    ],
)
def test_a_part_of_the_batches_is_the_whole_collection(train, finished_run, options):
    done, folder = train(*options)
    assert results(folder) == results(finished_run)
    assert "distilled student" in done.out


def test_no_test_gives_no_results(train, finished_run, script, tmp_path):
    done, folder = train("--trainer.limit_test_batches", "0")
    assert done.out.splitlines()[-1].startswith(f"{folder}: no results are kept of a run with ")
    assert "distilled student" not in done.out
    assert not is_finished(folder)
    assert not list(folder.glob("*.run"))
    done = script("evaluate.py", folder, "--json", tmp_path / "scores.json")
    assert done.status == 0, done.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    means = json.loads((finished_run / "metrics.json").read_text())
    assert {row: scores[row]["means"] for row in means} == means


def test_no_validation_gives_no_best_checkpoint(train):
    done, folder = train("--trainer.limit_val_batches", "0")
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.ckpt"}
    assert "distilled student" in done.out
    assert not any(name.startswith("dev") for point in json.loads(results(folder)[2]) for name in point)


def test_a_trial_run_keeps_no_results(train):
    done, folder = train("--trainer.fast_dev_run", "true")
    assert done.out.splitlines()[-1].startswith(f"{folder}: no results are kept of a run with fast_dev_run")
    assert "distilled student" not in done.out
    assert not is_finished(folder)
    assert not list(folder.glob("*.run"))


def test_overfitting_a_few_batches_evaluates_the_whole(train, script, tmp_path):
    done, folder = train("--trainer.overfit_batches", "2")
    assert "distilled student" in done.out
    done = script("evaluate.py", folder, "--json", tmp_path / "scores.json")
    assert done.status == 0, done.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    means = json.loads((folder / "metrics.json").read_text())
    assert {row: scores[row]["means"] for row in means} == means
    assert {row: len(scores[row]["per_query"]["map"]) for row in means} == dict.fromkeys(means, 6)
