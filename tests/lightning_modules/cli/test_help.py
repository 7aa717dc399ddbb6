"""What is printed instead of a run: help, configuration, completion."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
import yaml

from datamodules import DATAMODULES
from lightning_modules.cli.front_door import short_key
from lightning_modules.cli.help import OPTIONS, short_help
from lightning_modules.names import STUDENTS
from strategies import STRATEGIES

OF_LIGHTNING = {"optimizer", "lr_scheduler"}
"""Options of every LightningCLI that do nothing here."""

SLOW_MODULES = ("torch", "lightning", "transformers", "jsonargparse", "numpy", "wandb")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_fast_and_imports_nothing_heavy(flag):
    code = f"""if True:
        import sys
        sys.argv = ["train.py", "--strategy", "ot", {flag!r}]
        import train
        train.main()
        sys.exit(str([name for name in {SLOW_MODULES} if name in sys.modules]))
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert done.stdout.strip() == short_help()
    assert time.perf_counter() - start < 2


def test_help_lists_all_short_names_with_a_sentence():
    for name in (*STRATEGIES, *DATAMODULES, *STUDENTS):
        assert re.search(rf"^  {name} +\w.*\.$", short_help(), re.M), name


@pytest.fixture(scope="module")
def completion(script) -> set[str]:
    """The options that the completion script knows."""
    out = script("train.py", "--print_shtab", "bash").out
    subprocess.run(["bash", "-n"], input=out, text=True, check=True)
    return set(re.findall(r"(?<=[( ])--([\w.]+)", out.split("option_strings=")[1].split(")")[0]))


def test_completion_has_the_options_of_the_real_parser(completion, script):
    def names(config, prefix=""):
        for key, value in config.items():
            name = prefix if key in ("class_path", "init_args") else f"{prefix}.{key}".lstrip(".")
            yield from names(value, name) if isinstance(value, dict) else [short_key(name)]

    words = ["--data.noise.rate", "0", "--data.language", "sw"]
    assert set(names(yaml.safe_load(script("train.py", *words, "--print_config").out))) - OF_LIGHTNING <= completion


def test_each_option_of_the_short_help_exists(completion):
    named = set(re.findall(r"--([\w.]+)", " ".join([*OPTIONS, *OPTIONS.values()])))
    for name in named:
        if name.endswith(".OPTION"):
            assert any(known.startswith(name.removesuffix("OPTION")) for known in completion), name
        else:
            assert name in completion, name
    text = next(text for name, text in OPTIONS.items() if name.startswith("--model."))
    for name in ("lr", "embedding_lr", "schedule", "siamese", "teacher"):
        assert name in text
        assert f"model.{name}" in completion


def test_completion_knows_short_names(script):
    done = script("train.py", "--print_shtab", "bash")
    assert done.status == 0
    names = " ".join(STRATEGIES)
    assert f"strategy_choices=({names})" in done.out
    assert "--strategy.epsilon" in done.out
    assert "--model.strategy" not in done.out
    assert "reference triton exact ipot)" in done.out
    assert script("train.py", "--print_shtab", "zsh").out.startswith("#compdef")


@pytest.mark.parametrize(("words", "found"), [
    ("--strategy.help ot", "--model.strategy.epsilon"),
    ("--data.help tsv", "--data.root"),
    ("--student.help static", "--model.student.token_weights"),
    ("--help_all", "--trainer.accumulate_grad_batches"),
])  # fmt: skip
def test_help_of_the_real_parser(script, words, found):
    done = script("train.py", *words.split())
    assert (done.status, done.err) == (0, "")
    assert found in done.out


def test_print_config_gives_itself_and_runs_nothing(script, tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--config", tiny_config, "--strategy", "mse", "--strategy.level", "token", "--seed_everything", "3"]
    first = script("train.py", *words, "--model.lr", "0.5", "--print_config")
    assert (first.status, first.err) == (0, "")
    config = yaml.safe_load(first.out)
    assert config["model"]["lr"] == 0.5
    assert config["model"]["strategy"]["class_path"] == "strategies.mse.MSE"
    assert config["model"]["strategy"]["init_args"]["level"] == "token"
    assert config["seed_everything"] == 3
    (tmp_path / "printed.yaml").write_text(first.out)
    second = script("train.py", "--config", "printed.yaml", "--print_config")
    assert second.out == first.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["printed.yaml"]


def test_flags_win_over_files_and_their_order_does_not_matter(script, tiny_config):
    words = [f"--config={tiny_config}", "--strategy=contrastive", "--model.lr=0.25", "--strategy.temperature=0.5"]
    prints = {script("train.py", *order, "--print_config").out for order in (words, words[::-1])}
    assert len(prints) == 1
    config = yaml.safe_load(prints.pop())
    assert config["model"]["lr"] == 0.25
    assert config["model"]["strategy"]["init_args"]["temperature"] == 0.5
    assert config["data"]["init_args"]["batch_size"] == 10  # of the file


@pytest.mark.parametrize("words", ["--student transformer", "--data datamodules.tsv.TSVDataModule"])
def test_naming_the_same_class_again_keeps_what_the_file_says(script, tiny_config, words):
    plain = script("train.py", "--config", tiny_config, "--print_config").out
    assert script("train.py", "--config", tiny_config, *words.split(), "--print_config").out == plain
