"""The rewriting of the command line, without the parser behind it."""

from __future__ import annotations

import pytest

from foundations.errors import InputError
from lightning_modules.cli.front_door import class_path, parse

OT = "--model.strategy=strategies.ot.OptimalTransport"
TSV = "--data=datamodules.tsv.TSVDataModule"


def test_classes_come_after_the_files_and_before_their_options(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("model:\n  lr: 1\n")
    words = [
        "--strategy.epsilon 1",
        "--strategy ot",
        f"--config {config}",
        "--data.root x",
        "--data tsv",
        "--model.lr=2",
    ]
    found = [parse(" ".join(order).split()).cli for order in (words, words[::-1])]
    for cli in found:
        assert cli.index(f"--config={config}") < cli.index(OT) < cli.index("--model.strategy.epsilon=1")
        assert cli.index(f"--config={config}") < cli.index(TSV) < cli.index("--data.root=x")
        assert "--model.lr=2" in cli
    assert sorted(found[0]) == sorted(found[1])


def test_config_files_keep_their_order_and_lie_over_the_defaults(tmp_path):
    paths = [tmp_path / name for name in ("b.yaml", "a.yaml")]
    for path in paths:
        path.write_text("")
    configs = parse(["--config", str(paths[0]), "--data", "starter", f"--config={paths[1]}"]).configs
    assert configs[-2:] == paths
    assert [path.name for path in configs[:-2]] == ["base.yaml", "starter.yaml"]


def test_starter_is_the_default_unless_a_file_chooses(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model: {}\n")
    starter = "--data=datamodules.starter.emoji.StarterDataModule"
    assert starter in parse(["--config", str(path)]).cli
    path.write_text("data:\n  class_path: x.Y\n")
    assert not [argument for argument in parse(["--config", str(path)]).cli if argument.startswith("--data")]
    assert starter in parse([]).cli


@pytest.mark.parametrize("words", ["--strategy ot", "--strategy=ot", "--model.strategy ot", "--model.strategy=ot"])
def test_short_names(words):
    assert OT in parse([*words.split(), "--print_config"]).cli


def test_class_paths_stay():
    assert "--model.strategy=my.Loss" in parse(["--strategy", "my.Loss"]).cli


def test_options_without_value_and_negative_numbers():
    cli = parse(["--print_config", "--strategy.epsilon", "-1", "--trainer.fast_dev_run=true"]).cli
    assert cli[-3:] == ["--print_config", "--model.strategy.epsilon=-1", "--trainer.fast_dev_run=true"]


@pytest.mark.parametrize(
    ("words", "resume"), [("", None), ("--resume", ""), ("--resume auto", ""), ("--resume --name a", "")]
)
def test_resume(words, resume):
    assert parse(words.split()).resume == resume


def test_resume_reads_the_folder_and_no_defaults(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {}\n")
    for words in (["--resume", str(tmp_path)], [f"--resume={tmp_path}"]):
        parsed = parse([*words, "--model.lr", "1"])
        assert parsed.resume == str(tmp_path)
        assert parsed.cli == [f"--config={tmp_path / 'config.yaml'}", "--model.lr=1"]


def test_help_of_one_class():
    assert parse(["--strategy.help", "ot"]).cli == ["--model.strategy.help=strategies.ot.OptimalTransport"]
    assert parse(["--data.help=tsv"]).cli == ["--data.help=datamodules.tsv.TSVDataModule"]
    assert parse(["--strategy", "ot", "--help_all"]).cli == ["--help"]


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_strategies_of_the_trainer(name):
    with pytest.raises(InputError, match=f"use --trainer.strategy {name}"):
        class_path("strategy", name)


def test_score():
    assert parse(["--score", "maxsim"]).cli[-1] == parse(["--score=maxsim"]).cli[-1] == "--model.score=maxsim"
    with pytest.raises(InputError, match="--score needs a value"):
        parse(["--score"])
