"""The figures that a run prints, writes and logs before its first step, and the leak check from the command line."""

import json
import re
import shutil

import pytest

from lightning_modules.run.diagnostics import remarks
from lightning_modules.run.text_statistics import TextStatistics


@pytest.fixture
def leaky_folder(tsv_folder, tmp_path):
    """The TSV folder with test queries among the targets: one exactly, one with another case and a full stop."""
    folder = shutil.copytree(tsv_folder, tmp_path / "leaky")
    files = (folder / "queries.tsv", folder / "dev.queries.tsv")
    queries = [line.split("\t")[1] for file in files for line in file.read_text().splitlines()]
    pairs = (folder / "pairs.tsv").read_text().splitlines()
    kept = [line for line in pairs if line.split("\t")[1] not in queries]
    leaks = [f"a\t{queries[0]}", f"b\t{queries[1].upper()}."]
    (folder / "pairs.tsv").write_text("\n".join([*kept, *leaks]) + "\n")
    return folder, len(kept)


def test_a_run_writes_its_figures(finished_run, tsv_folder):
    content = json.loads((finished_run / "diagnostics.json").read_text())
    target = content["texts"]["train target"]
    lines = (tsv_folder / "pairs.tsv").read_text().splitlines()
    assert target["texts"] == len(lines) == content["leaks"]["checked"]
    assert target["words"] == pytest.approx(sum(len(line.split("\t")[1].split()) for line in lines) / len(lines))
    assert sum(target["histogram"]) == len(lines)
    assert set(content["texts"]) == {"train source", "train target", "dev queries", "dev documents"}
    assert (finished_run / "lengths.png").stat().st_size > 1000


def run(script, tiny_config, tmp_path, *words):
    output = ("--output", tmp_path, "--name", "run", "--logger", "none", "--trainer.max_epochs", "1")
    done = script("train.py", "--config", tiny_config, "--strategy", "mse", *output, *words)
    assert done.status == 0, done.err
    return done.out, json.loads((tmp_path / "run" / "diagnostics.json").read_text())


def test_leaks_are_reported(script, tiny_config, tmp_path, leaky_folder):
    folder, kept = leaky_folder
    out, content = run(script, tiny_config, tmp_path, "--data.root", folder)
    assert f"warning: 2 of {kept + 2} training pairs hold a query of dev or test (1 exactly)" in out
    assert "--data.remove_leaks true drops them" in out
    assert content["leaks"]["pairs"] == 2
    assert content["texts"]["train target"]["texts"] == kept + 2


def test_leaks_are_dropped(script, tiny_config, tmp_path, leaky_folder):
    folder, kept = leaky_folder
    out, content = run(script, tiny_config, tmp_path, "--data.root", folder, "--data.remove_leaks", "true")
    assert f"dropped: 2 of {kept + 2} training pairs" in out
    assert content["leaks"] | {"examples": []} == {
        "checked": kept + 2, "pairs": 2, "exact": 1, "examples": [], "dropped": True,
    }  # fmt: skip
    assert content["texts"]["train target"]["texts"] == kept


def test_nothing_left(script, tiny_config, tmp_path, leaky_folder):
    folder, _ = leaky_folder
    (folder / "pairs.tsv").write_text("".join((folder / "pairs.tsv").read_text().splitlines(keepends=True)[-2:]))
    words = ("--data.root", folder, "--data.remove_leaks", "true", "--output", tmp_path, "--name", "run")
    done = script("train.py", "--config", tiny_config, "--strategy", "mse", *words)
    assert done.status == 2
    assert "every training pair holds a query of dev or test" in done.err
    assert not (tmp_path / "run").exists()


def test_unknown_tokens_are_remarked_on():
    def figures(unknown):
        return TextStatistics(1, 1.0, 1.0, unknown, 0.0, 1.0, 1, {}, [1])

    rows = {"train target": figures(0.5), "dev queries": figures(0.01)}
    expected = "warning: 50.0% of the tokens of train target are unknown to the model that reads them"
    assert remarks(rows, None, {}) == [expected]


def test_the_option_that_cures_cut_texts_is_named(script, tiny_config, tmp_path):
    cut = ("--student.max_length", "3", "--model.teacher.max_length", "3")
    out, _ = run(script, tiny_config, tmp_path, *cut)
    assert re.search(r"warning: the student cuts \d+\.\d% of train target; --student.max_length 6 lets it read", out)
    assert "of dev documents; --model.teacher.max_length 6 lets it read more" in out
    done = script("train.py", "--config", tiny_config, "--student.max_length", "6", "--model.teacher.max_length", "6",
                  "--print_config")  # fmt: skip
    assert done.status == 0, done.err


def test_the_table_says_that_documents_were_read(script, tiny_config, tmp_path, tsv_folder):
    out, content = run(script, tiny_config, tmp_path, "--data.english", "documents")
    documents = len((tsv_folder / "documents.tsv").read_text().splitlines())
    assert content["english"] == {"pairs": 100 + documents, "documents": documents, "searched": documents}
    note = f"the student has read {documents} of the {documents} documents in English (no queries, no judgments)"
    assert note in out
    assert note in script("evaluate.py", tmp_path / "run").out
    out, content = run(script, tiny_config, tmp_path / "sources", "--data.english", "sources")
    assert "has read" not in out
