"""Several languages in one run of train.py: the list, the files, the tables, and resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from datamodules.tsv import TSVDataModule
from foundations.errors import InputError
from lightning_modules.cli.cli import expand_languages, in_folder_name, noise_in_folder_name
from lightning_modules.run.loggers import result_table
from retrieval.results import LEXICAL
from retrieval.statistics import macro_interval, macro_permutation_test, macro_t_test
from retrieval.table import format_interval, format_p

METRICS = ["map", "ndcg@10", "precision@1"]


class Tongues(TSVDataModule):
    """A TSV folder for each language.

    Args:
        root: folder of the folders.
        language: name of one of them.
        **options: those of `TSVDataModule`.
    """

    def __init__(self, root: str, language: str = "sw", **options) -> None:
        super().__init__(root=f"{root}/{language}", **options)


CLASS = f"{Tongues.__module__}.Tongues"


@pytest.fixture(scope="session")
def tongues(tmp_path_factory, tsv_folder) -> Path:
    """Two languages: the words of the second are those of the first, backwards; it has half of the pairs."""
    root = tmp_path_factory.mktemp("tongues")
    shutil.copytree(tsv_folder, root / "sw")
    shutil.copytree(tsv_folder, root / "ws")
    for name in ("pairs.tsv", "queries.tsv", "dev.queries.tsv"):
        lines = [line.split("\t") for line in (tsv_folder / name).read_text().splitlines()]
        lines = lines[: len(lines) // 2] if name == "pairs.tsv" else lines
        (root / "ws" / name).write_text("".join(f"{first}\t{text[::-1]}\n" for first, text in lines))
    return root


@pytest.fixture(scope="session")
def train(tongues, tiny_config, script):
    """Train on both languages with a temperature, into a folder."""

    def run(output: Path, *words: object):
        return script(
            "train.py", "--config", tiny_config, "--strategy", "contrastive", "--data", CLASS,
            "--data.root", tongues, "--data.language", "sw, ws", "--data.temperature", 3, "--data.batch_size", 10,
            "--output", output, "--checkpoint_every", 7, *words,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def finished(train, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("languages")
    done = train(output, "--logger", "csv,wandb", "--plots", "true")
    assert done.status == 0, done.err
    folder = output / "Tongues-sw+ws-contrastive-seed0"
    (output / "out").write_text(done.out)
    (output / "err").write_text(done.err)
    assert folder.is_dir()
    return folder


def load(folder: Path, name: str):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_files(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {"test.sw.pooled.run", "test.ws.pooled.run", "test.sw.qrels", "test.ws.qrels", "results.png"}
    assert not {"test.pooled.run", "test.qrels"} & names
    config = yaml.safe_load((finished / "config.yaml").read_text())["data"]
    assert config["class_path"] == CLASS
    assert (config["init_args"]["language"], config["init_args"]["temperature"]) == ("sw, ws", 3)


def test_metrics(finished):
    means, values = load(finished, "metrics.json"), load(finished, "per_query.json")
    assert list(means) == ["test", "undistilled", "teacher", *LEXICAL, "languages"]
    assert list(values) == ["languages"]
    assert list(means["languages"]) == list(values["languages"]) == ["sw", "ws"]
    for row in ("test", "undistilled", "teacher"):
        for metric in METRICS:
            each = [means["languages"][name][row][metric] for name in ("sw", "ws")]
            queries = [list(values["languages"][name][row][metric].values()) for name in ("sw", "ws")]
            assert each == pytest.approx([sum(found) / 6 for found in queries])
            assert means[row][metric] == pytest.approx(sum(each) / 2)
    rows = {name: means["languages"][name] for name in ("sw", "ws")}
    assert rows["sw"]["test"] != rows["ws"]["test"] != means["test"]
    assert rows["sw"]["teacher"] == rows["ws"]["teacher"]  # the English queries are the same
    assert means["test"]["map"] > means["undistilled"]["map"]


def test_other_people_score_each_language_alike(finished):
    import ir_measures

    for name in ("sw", "ws"):
        run = ir_measures.read_trec_run(str(finished / f"test.{name}.pooled.run"))
        qrels = ir_measures.read_trec_qrels(str(finished / f"test.{name}.qrels"))
        found = ir_measures.calc_aggregate([ir_measures.AP], qrels, run)[ir_measures.AP]
        assert found == pytest.approx(load(finished, "metrics.json")["languages"][name]["test"]["map"], abs=1e-9)


def test_the_best_checkpoint_is_that_of_the_average(finished):
    lines = (finished / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    columns = lines[0].split(",")
    curves = {
        name: [
            float(line.split(",")[columns.index(name)]) for line in lines[1:] if line.split(",")[columns.index(name)]
        ]
        for name in ("dev/map", "dev/sw/map", "dev/ws/map")
    }
    assert len(curves["dev/map"]) == 2
    assert curves["dev/map"] == pytest.approx([sum(each) / 2 for each in zip(*list(curves.values())[1:], strict=True)])
    import torch

    state = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=False)["callbacks"]
    best = next(each for name, each in state.items() if "dev/map" in name)
    assert float(best["best_model_score"]) == pytest.approx(max(curves["dev/map"]))


def test_the_table(finished):
    out = (finished.parent / "out").read_text()
    values = load(finished, "per_query.json")["languages"]
    groups, before = ([values[name][row]["map"] for name in ("sw", "ws")] for row in ("test", "undistilled"))
    mean = load(finished, "metrics.json")["test"]["map"]
    lines = [line.split() for line in out.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:2] == ["distilled", "student"])
    assert [line[:1] for line in lines[at : at + 3]] == [["distilled"], ["ws"], ["average"]]
    assert " ".join(lines[at + 2][1:4]) == format_interval(mean, macro_interval(groups))
    assert sum(line[:1] == ["average"] for line in lines) == 6
    differences = [{q: one[q] - other[q] for q in one} for one, other in zip(groups, before, strict=True)]
    tests = [format_p(test(differences)) for test in (macro_t_test, macro_permutation_test)]
    sentence = next(line for line in out.splitlines() if "of the undistilled teacher (average of 2 languages" in line)
    assert "12 queries" in sentence
    assert all(p in sentence for p in tests)
    assert max(map(len, out.splitlines()[at - 5 : at + 8])) <= 120


def test_what_an_epoch_is_made_of_is_printed_and_logged(finished):
    # 100 and 50 pairs: 100^(1/3) : 50^(1/3) = 0.5575 : 0.4425
    assert "sw 100 (66.7%) -> 84 (56.0%), ws 50 (33.3%) -> 66 (44.0%)" in (finished.parent / "err").read_text()
    logged = yaml.safe_load((finished / "csv" / "version_0" / "hparams.yaml").read_text())
    assert logged["pairs_in_an_epoch"] == {"sw": 84, "ws": 66}


def test_wandb_has_a_line_for_each_language(finished):
    tables = [json.loads(path.read_text()) for path in finished.rglob("*.table.json")]
    found = next(table for table in tables if table["columns"][:2] == ["system", "language"])
    means = load(finished, "metrics.json")
    assert found["columns"][2:] == METRICS
    assert [line[:2] for line in found["data"][6:9]] == [["test", "sw"], ["test", "ws"], ["test", "average"]]
    assert found["data"][8][2:] == [means["test"][metric] for metric in METRICS]


def test_a_single_language_has_the_old_table():
    columns, data = result_table({"": {"test": {"map": 0.5}, "undistilled": {"map": 0.25}}})
    assert columns == ["system", "map"]
    assert data == [["undistilled", 0.25], ["test", 0.5]]


def test_a_row_that_a_language_lacks_has_no_average():
    _, data = result_table({"sw": {"test": {"map": 0.5}, "teacher": {"map": 0.9}}, "so": {"test": {"map": 0.25}}})
    assert [line[:2] for line in data] == [["test", "sw"], ["test", "so"], ["test", "average"], ["teacher", "sw"]]
    assert data[2][2] == 0.375


def test_workers_change_nothing(finished, train, tmp_path):
    assert train(tmp_path, "--logger", "none", "--data.num_workers", 2).status == 0
    for name in ("metrics.json", "per_query.json", "test.sw.pooled.run", "test.ws.pooled.run"):
        assert (tmp_path / finished.name / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.slow
def test_two_ranks_agree_with_one(finished, tongues, tiny_config, process, tmp_path):
    """Half of the batch on each of two ranks: the same sums up to rounding, the same queries, each once."""
    done = process(
        "train.py", "--config", tiny_config, "--strategy", "contrastive", "--data",
        "tests.lightning_modules.cli.test_languages.Tongues", "--data.root", tongues, "--data.language", "sw, ws",
        "--data.temperature", 3,
        "--data.batch_size", 5, "--trainer.devices", 2, "--trainer.strategy", "ddp", "--student.dropout", 0,
        "--output", tmp_path, "--name", "two", "--logger", "none", timeout=500,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.err.count("pairs of an epoch") == 1
    two, one = load(tmp_path / "two", "metrics.json"), load(finished, "metrics.json")
    assert two["undistilled"] == pytest.approx(one["undistilled"], abs=1e-12)
    assert {
        name: list(rows["test"]["map"]) for name, rows in load(tmp_path / "two", "per_query.json")["languages"].items()
    } == {name: list(rows["test"]["map"]) for name, rows in load(finished, "per_query.json")["languages"].items()}
    assert 0 < two["test"]["map"] < 1


def test_resume_in_mid_epoch(finished, script, tmp_path):
    """The last checkpoint is that of step 28 of 30; an epoch has 15."""
    import torch

    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for path in [*folder.glob("*.json"), *folder.glob("*.run"), *folder.glob("*.qrels")]:
        path.unlink()
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)
    assert state["global_step"] == 28
    done = script("train.py", "--resume", folder, "--trust", "--logger", "none")
    assert done.status == 0, done.err
    for name in ("metrics.json", "per_query.json", "test.sw.pooled.run", "test.ws.qrels"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


def test_evaluate_gives_the_same_numbers(finished, script, tmp_path):
    done = script("evaluate.py", finished, "--trust", "--json", tmp_path / "scores.json")
    assert done.status == 0, done.err
    assert "pairs of an epoch" not in done.err
    found, means, values = (
        load(tmp_path, "scores.json"),
        load(finished, "metrics.json"),
        load(finished, "per_query.json"),
    )
    assert found.keys() == means.keys()
    for name, rows in found["languages"].items():
        assert {row: each["means"] for row, each in rows.items()} == means["languages"][name]
        assert {row: each["per_query"] for row, each in rows.items()} == values["languages"][name]
    assert {row: found[row]["means"] for row in ("test", "undistilled", "teacher")} == {
        row: means[row] for row in ("test", "undistilled", "teacher")
    }
    assert "average" in done.out


def test_compare(finished, script):
    done = script("compare.py", f"{finished}:undistilled", finished, "--metrics", "map")
    assert done.status == 0, done.err
    assert [word for word in done.out.split() if word in ("sw", "ws", "average")] == ["sw", "ws", "average"]
    assert "12 queries" in done.out
    assert "over 3 comparisons" in done.out


def test_parts_of_different_kinds(tongues, tiny_config, script, tmp_path):
    config = {
        "temperature": 2.0,
        "batch_size": 10,
        "parts": {
            "one": {"class_path": "datamodules.tsv.TSVDataModule", "init_args": {"root": str(tongues / "sw")}},
            "two": {"class_path": CLASS, "init_args": {"root": str(tongues), "language": "ws"}},
        },
    }
    mixed = {"data": {"class_path": "datamodules.mixture.MixtureDataModule", "init_args": config}}
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(mixed))
    done = script(
        "train.py", "--config", tiny_config, "--config", tmp_path / "mixed.yaml", "--strategy", "mse", "--output",
        tmp_path, "--logger", "none", "--trainer.max_epochs", 1,
    )  # fmt: skip
    assert done.status == 0, done.err
    means = load(tmp_path / "mixture-one+two-mse-seed0", "metrics.json")
    assert list(means["languages"]) == ["one", "two"]


@pytest.mark.parametrize(
    ("language", "options", "message"),
    [
        (",", [], "data.language is ',', expected languages such as sw,so,mr"),
        ("sw,,ws", [], "data.language is 'sw,,ws', expected languages such as sw,so,mr"),
        ("sw,", [], "data.language is 'sw,', expected languages such as sw,so,mr"),
        ("sw,ws, SW", [], "data.language is 'sw,ws, SW', which has 'sw' twice"),
        ("sw,xx", [], "tongues0/xx: no such folder"),
        ("sw,ws", ["--data.temperature", "0"], "temperature is 0.0, expected a number above 0"),
        ("sw,ws", ["--data.temperature", "-1"], "temperature is -1.0, expected a number above 0"),
        ("sw,ws", ["--data.temperature", "hot"], "data.temperature is 'hot', expected a number"),
        ("sw,average", [], "the part 'average' needs another name"),
    ],
)
def test_errors(train, tmp_path, language, options, message):
    done = train(tmp_path, "--data.language", language, *options)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_temperature_without_languages_is_told():
    data = Namespace(class_path="a.B", init_args=Namespace(language="sw", temperature=2.0))
    with pytest.warns(UserWarning, match=r"data.temperature has no effect: there is one language only"):
        assert expand_languages(data) is data


def test_what_the_parts_and_the_mixture_get():
    options = Namespace(language="sw,so", root="x", batch_size=7, limit_pairs=5, temperature=2.0, seed=0)
    found = expand_languages(Namespace(class_path="a.B", init_args=options)).init_args
    assert (found.temperature, found.batch_size, "limit_pairs" in found, "root" in found) == (2.0, 7, False, False)
    for name, part in found.parts.items():
        assert part.class_path == "a.B"
        assert vars(part.init_args) == vars(options) | {"language": name, "temperature": 1.0}


@pytest.mark.parametrize(
    ("language", "name"),
    [("sw", "sw"), (None, None), ("sw, so", "sw+so"), ("Scottish Gaelic,a/b", "Scottish_Gaelic+a_b"),
     (",".join("abcdefgh"), "a+b+c+d+e+f+g+h"), (",".join("abcdefghij"), "a+b+c+d+e+f+g+3more")],
)  # fmt: skip
def test_folder_names(language, name):
    assert in_folder_name(Namespace(class_path="a.B", init_args=Namespace(language=language))) == name


def test_wrong_list_has_an_input_error():
    with pytest.raises(InputError, match="expected languages such as sw,so,mr"):
        expand_languages(Namespace(class_path="a.B", init_args=Namespace(language=" , ")))


def test_the_id_of_a_dataset_is_in_the_folder_name():
    data = Namespace(class_path="a.B", init_args=Namespace(id="neuclir/1/fa/hc4-filtered"))
    assert in_folder_name(data) == "neuclir-1-fa-hc4-filtered"
    assert in_folder_name(Namespace(class_path="a.B", init_args=Namespace(root="/x"))) is None


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, ""),
        ({"rate": 0.0, "level": "caption", "text": "", "text_severity": 3}, ""),
        ({"rate": 0.4, "level": "caption"}, "noise0.4"),
        ({"rate": 0.25, "level": "image", "text": "ocr", "text_severity": 3}, "image0.25-ocr3"),
        ({"index_file": "/data/0.2.npy", "image": "jpeg", "image_severity": 1}, "noise0.2-jpeg1"),
    ],
)
def test_runs_of_other_noise_have_another_name(options, name) -> None:
    data = Namespace(class_path="a.B", init_args=Namespace(noise=Namespace(**options) if options else None))
    assert noise_in_folder_name(data) == name
