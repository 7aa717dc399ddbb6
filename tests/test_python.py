"""The public interface in Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import potstill
from foundations.errors import InputError
from potstill import compare, distil, evaluate, load_student
from retrieval.collection import Collection
from tests.conftest import WORDS

TEXTS = ["maji", "paka mdogo", "jua kubwa jekundu"]


@pytest.fixture(scope="module")
def exported(finished_run, script, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "student"
    assert script("export.py", finished_run, "--to", folder).status == 0
    return folder


def test_a_run_and_its_export_are_the_same_student(finished_run, exported):
    run, folder = load_student(finished_run), load_student(exported)
    vectors = run.encode(TEXTS)
    assert (vectors.shape, vectors.dtype, run.dim) == ((3, 32), np.float32, 32)
    np.testing.assert_allclose(folder.encode(TEXTS), vectors, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(run.encode(TEXTS * 200)[-3:].round(4), vectors.round(4))
    assert run.encode([]).shape == (0, 32)


def test_tokens(finished_run, exported):
    tokens = load_student(finished_run).encode([*TEXTS, "maji"], "documents", tokens=True)
    assert [len(each) for each in tokens] == [1, 2, 3, 1]
    np.testing.assert_allclose(np.linalg.norm(tokens[2], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(tokens[0], tokens[3], atol=1e-6)
    with pytest.raises(InputError, match="expected a student exported with --score maxsim"):
        load_student(exported).encode(TEXTS, tokens=True)


@pytest.mark.slow
def test_evaluate_a_run_a_folder_and_a_collection(finished_run, exported, tsv_folder, tiny_bert):
    stored = json.loads((finished_run / "metrics.json").read_text())["test"]
    for student in (load_student(finished_run), finished_run, exported):
        assert evaluate(student, finished_run) == pytest.approx(stored, abs=1e-6)
    assert evaluate(finished_run, tsv_folder, metrics=["map"])["map"] == pytest.approx(stored["map"], abs=1e-6)
    texts = {"d": "maji", "e": "paka"}
    both = Collection("test", {"q": "maji"}, texts, {"q": {"d": 1}}, "student", "student")
    assert evaluate(exported, both, metrics=["map", "success@1"]) == {"map": 1.0, "success@1": 1.0}
    with pytest.raises(InputError, match="an exported student does not know its teacher"):
        evaluate(exported, tsv_folder)
    with pytest.raises(ValueError, match="mapp"):
        evaluate(exported, both, metrics=["mapp"])


@pytest.mark.slow
def test_distil_export_and_compare(tiny_bert, tiny_unigram, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = [(f"{a} {b}", f"{x} {y}") for a, x in WORDS.items() for b, y in WORDS.items()]
    options = {"student.model": tiny_unigram, "model.teacher.teacher.max_length": 32, "trainer.max_epochs": 1,
               "logger": "none", "plots": "false", "trainer.accelerator": "cpu"}  # fmt: skip
    student = distil(pairs, teacher=tiny_bert, strategy="mse", options=options)
    again = distil(pairs, teacher=tiny_bert, strategy="cosine", name="again", options=options)
    assert student.encode(["maji kubwa"]).shape == (1, 32)
    lines = {name: len((tmp_path / "runs/distilled-data" / name).read_text().splitlines())
             for name in ("pairs.tsv", "queries.tsv", "dev.queries.tsv", "documents.tsv")}  # fmt: skip
    assert lines == {"pairs.tsv": 80, "queries.tsv": 10, "dev.queries.tsv": 10, "documents.tsv": 100}
    rows = compare(student.folder, again.folder, metrics=["map"])
    assert [(row.run, row.queries, row.difference is None) for row in rows] == [
        ("distilled", 10, True),
        ("again", 10, False),
    ]
    folder = student.export(tmp_path / "out")
    np.testing.assert_allclose(load_student(folder).encode(TEXTS), student.encode(TEXTS), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="the folder is there already"):
        distil(pairs, teacher=tiny_bert, options=options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_student("nowhere"), "no config.yaml there"),
        (lambda: distil([("a", "b")]), "pairs is 1 pairs of different sources, expected at least 20"),
        (lambda: distil(["water"]), "pair 1 is 'water', expected a text and its translation"),
        (lambda: distil([("water", " ")]), "expected two texts that are not empty"),
        (lambda: compare("one"), "runs is 1 run folders, expected at least two"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_texts_and_sides(exported):
    student = load_student(exported)
    with pytest.raises(InputError, match="texts is 'maji', expected a list of texts"):
        student.encode("maji")
    with pytest.raises(ValueError, match="side is 'query', expected one of queries, documents"):
        student.encode(["maji"], side="query")


def test_the_import_is_cheap_and_names_are_found():
    code = "import potstill, sys; print(sorted({'torch', 'numpy', 'lightning_modules'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert set(potstill.__all__) <= set(dir(potstill))
    with pytest.raises(AttributeError, match="no attribute 'student'"):
        _ = potstill.student
