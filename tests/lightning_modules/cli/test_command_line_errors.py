"""Wrong input: one clear message, exit status 2, no traceback, nothing written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def fails(script, tiny_config, tmp_path, capfd):
    """Run train.py with the tiny config and wrong options; give its message."""

    def run(*arguments: object, config: bool = True) -> str:
        output = tmp_path / "runs"
        base = ["--config", tiny_config] if config else []
        done = script("train.py", *base, "--output", output, "--logger", "none", *arguments)
        assert done.status == 2, done
        assert done.out == ""
        said = re.sub(r"^.*: mean pooling assumed\n", "", done.err)  # once in a process
        assert said.startswith("train.py: error: ")
        assert len(said.strip().splitlines()) <= 2
        assert len(said) < 400
        assert "Traceback" not in said + capfd.readouterr().err
        assert not output.exists()
        return said.removeprefix("train.py: error: ").strip()

    return run


OPTIONS = [
    (["--strategy", "contrastiv"], "unknown distillation strategy 'contrastiv', did you mean 'contrastive'?\nchoices"),
    (["--strategy", "ddp"], "use --trainer.strategy ddp"),
    (["--data", "startr"], "unknown dataset 'startr', did you mean 'starter'?"),
    (["--student", "statik"], "unknown student 'statik', did you mean 'static'?"),
    (["--strategy"], "--strategy needs a value\nchoices: ot"),
    (["--strategy", "nowhere.Loss"], "strategy: No module named 'nowhere'"),
    (["--strategy", "strategies.ot.Loss"], "strategy: module 'strategies.ot' has no att"),
    (["--strategy", "torch.nn.Linear"], "torch.nn.Linear does not correspond to a subclass of DistillationStrategy"),
    (["--strategy.epsilonn", "1"], "unknown option strategy.epsilonn, did you mean 'epsilon'?"),
    (["--strategy.epsilon", "abc"], "strategy.epsilon is 'abc', expected a number"),
    (["--strategy.epsilon", "-1"], "epsilon is -1.0, expected a number above 0"),
    (["--strategy.solver", "exactly"], "reference, triton, exact, ipot, did you mean 'exact'?"),
    (["--data.batch_sizes", "1"], "unknown option data.batch_sizes, did you mean 'batch_size'?"),
    (["--data.batch_size", "0"], "batch_size is 0, expected at least 1"),
    (["--data.batch_size", "1000"], "found 100 training pairs, fewer than one batch of 1000"),
    (["--trainer.max_epoch", "1"], "unknown option --trainer.max_epoch, did you mean 'max_epochs'?"),
    (["--trainer.max_epochs", "abc"], "trainer.max_epochs is 'abc', expected a whole number"),
    (["--trainer.accelerator", "gpux"], "invalid accelerator name"),
    (["--modle.lr", "1"], "unknown option --modle.lr, did you mean 'model.lr'?"),
    (["--model.lr", "abc"], "model.lr is 'abc', expected a number"),
    (["--model.lr", "-1"], "lr is -1.0, expected a number above 0"),
    (["--score", "cosine"], "model.score is 'cosine', expected one of pooled, maxsim, both"),
    (["--model.score", "maxsin"], "'maxsin', expected one of pooled, maxsim, both, hybrid, did you mean 'maxsim'?"),
    (["--evaluation.metrics", "map"], "evaluation.metrics is 'map', expected a list such as [a, b]"),
    (["--evaluation.metrics", "[mapp]"], "unknown metric 'mapp', did you mean 'map'?"),
    (["--logger", "csv,wanb"], "logger is 'wanb', expected one of wandb, csv, tensorboard, none, did you mean 'wandb'"),
    (["--student.model", "/no/such/model"], "/no/such/model: no such folder: expected a model's folder"),
    (["--student.layers", "9"], "layers is 9, expected a number from 1 to 2"),
    (["--config", "/no/such.yaml"], "/no/such.yaml: no such config file"),
    (["--data.root", "/no/such/folder"], "/no/such/folder: no such folder, expected one with pairs.tsv"),
    (["--resume", "/no/such/run"], "/no/such/run: no config.yaml there, expected the folder of a run"),
    (["--from", "best"], "--from names a checkpoint to go on from: it needs --resume"),
    (["mse"], "unexpected argument 'mse': options begin with --"),
    (["--print_shtab", "fish"], "--print_shtab is 'fish', expected one of bash"),
    (["fit"], "unexpected argument 'fit': train.py fits and tests, leave out fit"),
    (["--lr", "0.01"], "unknown option --lr, did you mean 'model.lr'?"),
    (["--seed", "3"], "unknown option --seed, did you mean 'seed_everything'?"),
    (["--epochs", "3"], "unknown option --epochs, did you mean 'trainer.max_epochs'?"),
    (["--student.pooling", "last"], "did you mean 'lasttoken'?"),
    (["--strategy", "contrastive", "--strategy.temperatur", "1"], "strategy.temperatur, did you mean 'temperature'?"),
    (["--data", "swahili"], "unknown dataset 'swahili'; a language is chosen by --data.language"),
    (["--seed_everything", "-1"], "seed_everything is -1, expected a number from 0 to 4294967295"),
    (["--seed_everything", "4294967296"], "seed_everything is 4294967296, expected a number from 0 to 4294967295"),
    (["--name", "x" * 300], "name has 300 bytes, expected at most 200"),
    (["--name", "ọ̀" * 50], "name has 250 bytes, expected at most 200"),
    (["--name", "../x"], "name is '../x', expected the name of a folder within "),
    (["--name", "a/../../x"], "name is 'a/../../x', expected the name of a folder within "),
    (["--name", "/tmp/x"], "name is '/tmp/x', expected the name of a folder within "),
    (["--name", "."], "name is '.', expected the name of a folder within "),
    (["--name", "a\nb"], r"name is 'a\nb', expected the name of a folder within "),
    (["--trainer.precision", "bf16-true"], "precision is 'bf16-true', expected one of 32-true, bf16-mixed, 16-mixed"),
    (["--trainer.precision", "64-true", "--strategy", "ot"], "precision is '64-true', expected one of 32-true, bf"),
    (["--trainer.precision", "64"], "precision is '64', expected one of 32-true, bf16-mixed, 16-mixed"),
    (["--trainer.callbacks+=LearningRateMonitor"], "the callback LearningRateMonitor needs a logger, expected"),
    (["--trainer.callbacks=DeviceStatsMonitor"], "the callback DeviceStatsMonitor needs a logger, expected"),
    (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
     "the monitor of EarlyStopping is 'val_loss', expected one of dev/map, dev/ndcg@10, dev/precision@1, train/loss"),
    (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches is 0, expected at least 1"),
    (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val is -1"),
    (["--trainer.log_every_n_steps", "-1"], "trainer.log_every_n_steps is -1, expected at least 0"),
    (["--checkpoint_every", "0"], "checkpoint_every is 0, expected at least 1"),
    (["--trainer.val_check_interval", "11"], "trainer.val_check_interval is 11, expected at most 10, the batches"),
    (["--trainer.devices", "-7"], "`devices` selected with `CPUAccelerator` should be an int > 0"),
    (["--trust", "yes"], "--trust is 'yes', expected no value"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), OPTIONS, ids=[" ".join(case[0]) for case in OPTIONS])
def test_wrong_option(fails, arguments, message):
    assert message in fails(*arguments)


def test_nothing_is_suggested_that_the_strategy_has_not(fails):
    assert fails("--strategy", "ot", "--strategy.temperature", "1") == "unknown option strategy.temperature"


@pytest.mark.parametrize("rest", ["", "/sub"])
def test_output_at_a_file(script, tiny_config, tmp_path, rest):
    (tmp_path / "file").write_text("")
    done = script("train.py", "--config", tiny_config, "--output", f"{tmp_path}/file{rest}", "--logger", "none")
    assert done.status == 2
    assert done.err.endswith(f"output is {tmp_path}/file{rest}, but {tmp_path}/file is a file, expected a folder\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tasks_of_slurm_that_do_not_fit(fails, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert "You set `--ntasks=4` in your SLURM bash script" in fails("--logger", "wandb")


def test_callbacks_with_what_they_need(script, tiny_config, tmp_path):
    words = ["--config", tiny_config, "--output", tmp_path, "--name", "a/b", "--strategy", "mse", "--logger", "csv"]
    early = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=dev/ndcg@10"]
    done = script("train.py", *words, "--trainer.callbacks+=LearningRateMonitor", *early, "--trainer.max_epochs", "1")
    assert done.status == 0, done.err
    assert "lr-" in (tmp_path / "a" / "b" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()[0]


def test_data_that_need_an_option(fails):
    assert fails("--data", "tsv", config=False) == "--data.root is missing, expected a value"


CONFIGS = [
    ("model:\n  lr: 1\n  lrr: 1\n", 3, "unknown option model.lrr, did you mean 'lr'?"),
    ("model:\n  lr: abc\n", 2, "model.lr is 'abc', expected a number"),
    ("trainer:\n  max_epoch: 1\n", 2, "unknown option trainer.max_epoch, did you mean 'max_epochs'?"),
    ("modle:\n  lr: 1\n", 2, "unknown option modle.lr, did you mean 'model.lr'?"),
    ("strategy: ot\n", 1, "unknown option strategy, in a config file it is model.strategy"),
    ("model:\n  strategy: mse\n", 2, "strategy is 'mse', expected class_path: strategies.mse.MSE"),
    ("model:\n  strategy:\n    class_path: strategies.ot.OptimalTransport\n    init_args:\n      epsilonn: 1\n", 5,
     "unknown option strategy.epsilonn, did you mean 'epsilon'?"),
    ("model:\n  strategy:\n    class_path: strategies.ot.OptimalTransport\n    init_args:\n\n      epsilon: a\n", 6,
     "strategy.epsilon is 'a', expected a number"),
    ("data:\n  class_path: datamodules.tsv.TSV\n", 1, "module 'datamodules.tsv' has no attribute 'TSV'"),
    ("model:\n  lr: [1\n", 3, "invalid YAML"),
    ("- model\n", 1, "found a list, expected YAML with keys and values"),
    ("[]\n", 1, "found a list, expected YAML with keys and values"),
    ("", 1, "found nothing, expected YAML with keys and values"),
    ("model:\n  lr: \x07\n", 2, "is a control character"),
    ("model:\n  lr: !!int foo\n", 2, "'foo' is no int"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message"), CONFIGS, ids=[case[2][:30] for case in CONFIGS])
def test_wrong_config_file(fails, tmp_path, text, line, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    error = fails("--config", path)
    assert error.startswith(f"{path}:{line}: ")
    assert message in error


def test_config_file_that_is_not_utf8(fails, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(b"model:\n  lr: \xff\n")
    assert fails("--config", path).startswith(f"{path}:2: invalid UTF-8")


def test_the_flag_is_blamed_and_not_the_file_that_it_overrides(fails, tmp_path):
    path = tmp_path / "right.yaml"
    path.write_text("model:\n  lr: 0.1\n")
    assert fails("--config", path, "--model.lr", "abc") == "model.lr is 'abc', expected a number"


DATA = [
    ("pairs.tsv", b"cat\tpaka\nonly one\n", 2, "found 1 column, expected 2: source<TAB>target"),
    ("pairs.tsv", b"", None, "the file is empty"),
    ("queries.tsv", b"cat\tpaka\ncat\tpaka\n", 2, "the id 'cat' is already that of line 1"),
    ("queries.tsv", b"cat\tpaka\nsun\tjua \xff\n", 2, "invalid UTF-8"),
    ("qrels", b"cat 0 cat-sun 1\ncat 0 cat-dog 99999999999999999999\n", 2, "the grade is 99999999999999999999"),
    ("qrels", b"dog 0 cat-sun 1\n", None, "none of the 1 judged queries is among the queries"),
    ("qrels", b"\n", None, ""),
    ("documents.tsv", None, None, "no such file"),
]


@pytest.mark.parametrize(("name", "content", "line", "message"), DATA, ids=[f"{case[0]} {case[3]}" for case in DATA])
def test_wrong_data(fails, tsv_folder, tmp_path, name, content, line, message):
    folder = tmp_path / "data"
    shutil.copytree(tsv_folder, folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    error = fails("--data.root", folder)
    assert error.startswith(f"{folder / name}:" + (f"{line}: " if line else ""))
    assert message in error


@pytest.mark.slow
def test_in_a_process_of_its_own(process, tiny_config, tmp_path):
    done = process("train.py", "--config", tiny_config, "--output", tmp_path / "runs", "--strategy.epsilonn", "1")
    assert (done.status, done.out) == (2, "")
    assert done.err == "train.py: error: unknown option strategy.epsilonn, did you mean 'epsilon'?\n"
    assert not (tmp_path / "runs").exists()


SCRIPTS = [
    ("evaluate.py", [], "expected either a run folder, or --run FILE and --qrels FILE (see --help)"),
    ("evaluate.py", ["--run", "a.run"], "expected either a run folder, or --run FILE and --qrels FILE"),
    ("evaluate.py", ["--scor", "x"], "unrecognized arguments: --scor (see --help)"),
    ("evaluate.py", ["here", "--score", "x"], "argument --score: invalid choice: 'x'"),
    ("evaluate.py", ["/no/such"], "/no/such: no config.yaml there, expected the folder of a run"),
    ("evaluate.py", ["--run", "/no/such", "--qrels", "/no/such"], "/no/such: no such file"),
    ("compare.py", [], "the following arguments are required: RUN (see --help)"),
    ("compare.py", ["a", "b", "--foo"], "unrecognized arguments: --foo"),
    ("compare.py", ["/no/a", "/no/b"], "/no/a: no such run"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), SCRIPTS)
def test_other_scripts(script, name, arguments, message):
    done = script(name, *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"{name}: error: {message}")
    assert len(done.err.splitlines()) == 1


def test_evaluate_with_what_is_no_checkpoint(script, finished_run, tmp_path):
    config = Path(finished_run, "config.yaml")
    done = script("evaluate.py", finished_run, "--checkpoint", config)
    assert done.status == 2
    assert done.err == f"evaluate.py: error: {config}: cannot be read as a checkpoint (UnpicklingError)\n"
    done = script("evaluate.py", finished_run, "--checkpoint", tmp_path / "none.ckpt")
    assert done.err == f"evaluate.py: error: {tmp_path / 'none.ckpt'}: no such checkpoint\n"


def test_evaluate_with_a_checkpoint_of_another_model(script, finished_run, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    text = Path(finished_run, "config.yaml").read_text()
    assert "layers: null" in text
    (folder / "config.yaml").write_text(text.replace("layers: null", "layers: 1"))
    done = script("evaluate.py", folder, "--checkpoint", finished_run / "checkpoints" / "best.ckpt")
    assert done.status == 2
    assert "does not fit the model of the run's config.yaml: Unexpected key(s)" in done.err
    assert len(done.err) < 600


def test_fsdp_on_a_cpu_is_refused_in_a_line_before_there_is_a_folder(script, tiny_config, tmp_path):
    words = ["--config", tiny_config, "--output", tmp_path / "runs", "--logger", "none"]
    done = script("train.py", *words, "--trainer.strategy", "fsdp", "--trainer.devices", "2")
    assert done.status == 2
    assert "fsdp" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
