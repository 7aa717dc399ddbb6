"""What a run leaves behind, and that it is enough to repeat the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.run.run_folder import RunFolder

METRICS = ["map", "ndcg@10", "precision@1"]


def load(folder: Path, name: str):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_files(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert names == {
        "checkpoints", "config.yaml", "csv", "curves.png", "diagnostics.json", "environment.json", "history.json",
        "lengths.png", "metrics.json", "per_query.json", "results.png", "test.pooled.run", "test.qrels",
        ".run.lock", "test.bm25_english.run", "test.hybrid.run",  # BM25 of the queries as they are finds nothing here
    }  # fmt: skip
    assert {path.name for path in (finished_run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_metrics_are_the_means_of_the_queries(finished_run):
    means, values = load(finished_run, "metrics.json"), load(finished_run, "per_query.json")
    assert list(means) == list(values) == ["test", "undistilled", "teacher", "bm25", "hybrid", "bm25_english"]
    for row, metrics in means.items():
        assert list(metrics) == list(values[row]) == METRICS
        for metric, mean in metrics.items():
            each = values[row][metric]
            assert set(each) == {"cat", "mat", "morning", "friend", "sun", "water"}
            assert sum(each.values()) / len(each) == pytest.approx(mean, abs=1e-12)
    assert means["test"] != means["undistilled"] != means["teacher"]


def test_truncation_is_reported(script, tiny_config, tmp_path):
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run", "--logger", "csv"]
    done = script("train.py", *words, "--student.max_length", "3", "--trainer.max_epochs", "1")
    assert done.status == 0, done.err
    assert "--student.max_length 6 lets it read more" in done.out
    lines = (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/info/truncated")
    assert any(0 < float(line.split(",")[column]) <= 1 for line in lines[1:] if line.split(",")[column])


def lengths_matter(warnings):
    return sum("does not look at pooled vectors" in str(each.message) for each in warnings)


@pytest.mark.parametrize(("options", "times"), [(["--strategy.pooled_weight", "0"], 1), ([], 0)])
def test_a_loss_without_pooled_vectors_is_reported_where_they_are_searched(
    script, tiny_config, tmp_path, recwarn, options, times
):
    words = ["--config", tiny_config, "--output", tmp_path, "--logger", "none", "--trainer.max_epochs", "1"]
    assert script("train.py", *words, "--strategy", "ot", *options).status == 0
    assert lengths_matter(recwarn) == times
    recwarn.clear()
    assert script("train.py", *words, "--strategy", "ot", *options, "--model.score", "maxsim").status == 0
    assert lengths_matter(recwarn) == 0


def test_other_people_score_the_run_alike(finished_run):
    import ir_measures

    run = ir_measures.read_trec_run(str(finished_run / "test.pooled.run"))
    qrels = list(ir_measures.read_trec_qrels(str(finished_run / "test.qrels")))
    names = dict(zip(METRICS, (ir_measures.AP, ir_measures.nDCG @ 10, ir_measures.P @ 1), strict=True))
    found = ir_measures.calc_aggregate(names.values(), qrels, list(run))
    for name, measure in names.items():
        assert found[measure] == pytest.approx(load(finished_run, "metrics.json")["test"][name], abs=1e-9)


def test_environment(finished_run):
    content = load(finished_run, "environment.json")
    assert content["command"][0] == "train.py"
    assert "--strategy" in content["command"]
    assert content["versions"]["torch"][0].isdigit()
    assert content["python"].startswith("3.")


def test_config_is_whole(finished_run):
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert config["model"]["strategy"]["class_path"] == "strategies.mse.MSE"
    assert config["model"]["lr"] == 0.003
    assert config["model"]["weight_decay"] is not None
    assert config["evaluation"]["metrics"] == METRICS
    assert config["seed_everything"] == 0


@pytest.mark.slow
def test_config_repeats_the_run(script, finished_run, tmp_path):
    done = script(
        "train.py", "--config", finished_run / "config.yaml", "--output", tmp_path, "--name", "again",
        "--logger", "none",
    )  # fmt: skip
    assert done.status == 0, done.err
    for name in ("metrics.json", "per_query.json", "test.pooled.run", "test.qrels"):
        assert (tmp_path / "again" / name).read_bytes() == (finished_run / name).read_bytes(), name


def test_what_is_printed(script, tiny_config, tmp_path):
    done = script(
        "train.py", "--config", tiny_config, "--output", tmp_path, "--strategy", "mse", "--trainer.max_epochs", 1,
        "--logger", "none", "--plots", "true",
    )  # fmt: skip
    assert done.status == 0, done.err
    folder = tmp_path / "tsv-mse-seed0"
    assert max(map(len, done.out.splitlines()[:8])) <= 120
    for label in ("undistilled teacher", "distilled student", "teacher on English"):
        assert label in done.out
    assert f"map of the student is {ratio(folder):.2f} times that of the undistilled teacher (6 queries;" in done.out
    assert str(folder) in done.out
    assert str(folder / "curves.png") in done.out
    assert "\r" not in done.out + done.err
    assert [line.split("  ")[:2] for line in done.err.splitlines()] == [["epoch 1/1", "step 10"]]


def ratio(folder: Path) -> float:
    means = load(folder, "metrics.json")
    return means["test"]["map"] / means["undistilled"]["map"]


def test_evaluate_gives_the_same_numbers(script, finished_run, tmp_path, capfd):
    done = script("evaluate.py", finished_run, "--json", tmp_path / "scores.json")
    assert done.status == 0, done.err
    assert "Warning" not in done.err
    assert "callbacks" not in done.err + capfd.readouterr().err
    found, means, values = (
        load(tmp_path, "scores.json"),
        *(load(finished_run, f"{n}.json") for n in ("metrics", "per_query")),
    )
    assert {row: content["means"] for row, content in found.items()} == means
    assert {row: content["per_query"] for row, content in found.items()} == values


def test_evaluate_with_other_metrics_and_scores(script, finished_run, tmp_path):
    words = ["--metrics", "mrr", "map", "--score", "both", "--json", tmp_path / "scores.json"]
    assert script("evaluate.py", finished_run, *words).status == 0
    found = load(tmp_path, "scores.json")["test"]["means"]
    assert list(found) == ["mrr", "map", "maxsim/mrr", "maxsim/map"]
    assert found["map"] == load(finished_run, "metrics.json")["test"]["map"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.json"]


def test_evaluate_a_trec_run(script, finished_run, tmp_path):
    words = ["--run", finished_run / "test.pooled.run", "--qrels", finished_run / "test.qrels", "--metrics", *METRICS]
    done = script("evaluate.py", *words, "--json", tmp_path / "scores.json")
    assert done.status == 0, done.err
    assert load(tmp_path, "scores.json")["test"]["means"] == load(finished_run, "metrics.json")["test"]


def test_compare_two_rows(script, finished_run):
    done = script("compare.py", f"{finished_run}:undistilled", finished_run)
    assert done.status == 0, done.err
    assert "6 queries" in done.out


def test_a_finished_run_is_left_as_it_is(script, finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = script("train.py", "--resume", folder)
    assert done.status == 0
    assert done.err == f"{folder}: this run is finished, there is nothing to resume\n"
    assert "distilled student" in done.out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_rows_to_compare_with_can_be_left_out(script, tiny_config, tmp_path):
    words = ("--output", tmp_path, "--name", "run", "--logger", "none", "--trainer.max_epochs", "1")
    done = script(
        "train.py",
        "--config",
        tiny_config,
        "--strategy",
        "mse",
        *words,
        "--evaluation.undistilled",
        "false",
        "--evaluation.bm25",
        "false",
        "--plots",
        "true",
    )
    assert done.status == 0, done.err
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text())) == {"test", "teacher"}
    assert "undistilled teacher" not in done.out
    assert (tmp_path / "run" / "results.png").is_file()


def test_the_curve_stays_whole_when_the_best_checkpoint_is_loaded_for_the_test(tmp_path):
    folder, points = RunFolder(tmp_path, {}, "", RetrievalEvaluation()), [{"step": 4.0}, {"step": 8.0}, {"step": 12.0}]
    folder.load_state_dict({"history": points[:2]})  # a resumed run
    assert folder.history == points[:2]
    folder.history.append(points[2])
    folder.load_state_dict({"history": points[:1]})  # best.ckpt
    assert folder.history == points


def test_a_damaged_checkpoint_is_refused_and_the_folder_left_alone(finished_run, script, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    (folder / "metrics.json").unlink()  # as if the run had been cut off
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"garbage")
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "# as it was\n")
    done = script("train.py", "--resume", folder)
    assert done.status == 2
    assert "last.ckpt: cannot be read as a checkpoint" in done.err
    assert config.read_text().endswith("# as it was\n")


def test_a_job_starts_from_no_other_runs_weights(script, tiny_config, tmp_path, monkeypatch):
    """What Lightning writes, or looks for, where it is told nothing else is in the run folder."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("SLURM_JOB_ID", "5"), ("SLURM_NTASKS", "1"), ("SLURM_JOB_NAME", "job")):
        monkeypatch.setenv(name, value)
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    words = ["--strategy", "mse", "--output", "out", "--name", "run", "--logger", "none", "--trainer.max_epochs", "1"]
    callback = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename=own"]
    done = script("train.py", "--config", tiny_config, *words, *callback)
    assert done.status == 0, done.err
    assert {path.name for path in tmp_path.iterdir()} == {"hpc_ckpt_1.ckpt", "out"}
    assert (tmp_path / "out" / "run-5" / "checkpoints" / "own.ckpt").is_file()
    assert script("evaluate.py", "out/run-5").status == 0


def test_a_refused_resume_changes_nothing_and_an_accepted_one_takes_its_options(script, finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["TSVDataModule"]["batches"] = 4  # as if it had been written in mid-epoch
    torch.save(content, last)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = ["--resume", folder, "--trainer.max_epochs", "3", "--logger", "none"]
    done = script("train.py", *words, "--data.batch_size", "5")
    assert (done.status, "cannot resume in mid-epoch" in done.err) == (2, True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "checkpoints" / "last.ckpt").write_bytes((finished_run / "checkpoints" / "last.ckpt").read_bytes())
    done = script("train.py", *words, "--model.lr", "0.5", "--model.weight_decay", "0.1", "--name", "b")
    assert done.status == 0, done.err
    assert f"{folder}: goes on at step 20 with " in done.err
    assert "model.lr 0.5 (was 0.003)" in done.err
    assert "; without effect here: name" in done.err
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["model"]["lr"], config["name"], config["trainer"]["max_epochs"]) == (0.5, "run", 3)
    content = torch.load(last, weights_only=True)
    assert content["global_step"] == 28
    groups = content["optimizer_states"][0]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.5}
    assert groups[0]["lr"] == pytest.approx(0.5 * 2 / 28)
    assert max(group["weight_decay"] for group in groups) == 0.1
    assert load(folder, "history.json")[-1]["step"] == 30
