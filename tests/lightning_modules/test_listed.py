from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datamodules.pairs import Candidate, Pair, collate
from foundations.errors import InputError
from lightning_modules.distillation import DistillationModule
from lightning_modules.listed import takes_candidates, with_candidates
from lightning_modules.students.static import StaticEncoder
from lightning_modules.teachers.online import OnlineTeacher
from strategies.base import Embeddings, ListEmbeddings
from strategies.contrastive import Contrastive
from strategies.kl import KL
from strategies.margin_mse import MarginMSE
from strategies.mse import MSE
from strategies.weighted_sum import WeightedSum
from tests.training_steps import losses_of_steps

PAIRS = [
    Pair("the cat", "paka", 0, (Candidate("a small cat"), Candidate("the big red sun", "jua kubwa", 2.0))),
    Pair("water", "maji", 1),
    Pair("the sun", "jua", 2, (Candidate("the big red sun", "jua kubwa"),)),
]


def code(text: str) -> list[float]:
    return [float(len(text)), float(ord(text[0])), float(ord(text[-1]))]


def reader(calls: list[list[str]], sign: float, length: int):
    """Encodes a text as numbers made of its letters, and remembers what it was asked."""

    def read(texts: list[str]) -> Embeddings:
        calls.append(texts)
        pooled = sign * torch.tensor([code(text) for text in texts])
        mask = torch.arange(length) < torch.tensor([min(length, len(text)) for text in texts])[:, None]
        return Embeddings(pooled, pooled[:, None].expand(-1, length, -1) * mask[..., None], mask)

    return read


def test_each_passage_is_encoded_once_and_stands_at_its_places():
    batch, asked, asked_student = collate(PAIRS), [], []
    side = Embeddings(torch.ones(3, 3), ids=batch.ids)
    student, teacher = with_candidates(side, side, batch.candidates, reader(asked, 1, 4), reader(asked_student, -1, 6))
    assert asked == [["a small cat", "the big red sun"]]
    assert asked_student == [["jua kubwa"]]
    for row, pair in enumerate(PAIRS):
        assert teacher.listed[row].tolist() == [True] * len(pair.candidates) + [False] * (2 - len(pair.candidates))
        for column, each in enumerate(pair.candidates):
            assert teacher.candidates.pooled[row, column].tolist() == code(each.source)
            ours = student.candidates
            wanted = torch.tensor(code(each.source) if each.target is None else code(each.target))
            wanted = wanted if each.target is None else -wanted
            assert ours.pooled[row, column].equal(wanted)
            assert ours.tokens[row, column, 0].equal(wanted)
            assert ours.mask[row, column].sum() == (4 if each.target is None else 6)
    assert student.candidates.tokens.shape == (3, 2, 6, 3)
    assert student.ids.equal(batch.ids)
    assert teacher.scores[0, 1] == 2
    assert teacher.candidates.ids[0, 1] == teacher.candidates.ids[2, 0]


@pytest.mark.parametrize("score", ["pooled", "maxsim"])
def test_a_batch_without_candidates_gives_empty_lists(score):
    """Other ranks may have some, and gather."""
    side = Embeddings(torch.eye(3), torch.eye(3)[None].expand(3, 3, 3), torch.ones(3, 3).bool(), torch.arange(3))
    lists = with_candidates(side, side, None, reader([], 1, 4), reader([], 1, 4))
    assert all(isinstance(each, ListEmbeddings) and not each.listed.any() for each in lists)
    assert KL(score=score)(*lists)["kl_listed"] == 0
    assert MarginMSE(score=score)(*lists)["margin_mse"] == 0
    strategy = Contrastive(score=score)
    terms = strategy(*lists)
    assert terms["contrastive_listed"] == 0
    torch.testing.assert_close(terms["contrastive"], strategy(side, side)["contrastive"])


def test_who_takes_candidates():
    plain = [replace(pair, candidates=()) for pair in PAIRS]
    scored = [replace(PAIRS[0], candidates=(Candidate("x", score=1.0),))]
    assert takes_candidates(KL(), PAIRS)
    assert not takes_candidates(KL(), plain)
    assert not takes_candidates(MSE(), plain)
    for strategy in (MarginMSE(), KL(passages="listed"), WeightedSum({"a": MSE(), "b": MarginMSE()})):
        assert takes_candidates(strategy, PAIRS)
        with pytest.raises(InputError, match=f"{type(strategy).__name__} learns from candidate passages, but no"):
            takes_candidates(strategy, plain)
    with pytest.warns(UserWarning, match="the training pairs list candidate passages, which MSE ignores; kl, margin"):
        assert not takes_candidates(MSE(), PAIRS)
    with pytest.warns(UserWarning, match="list candidate passages with scores, which KL ignores"):
        assert not takes_candidates(KL(passages="batch"), scored)
    with pytest.warns(UserWarning, match="Contrastive uses the listed passages, but not their scores"):
        assert takes_candidates(Contrastive(), scored)


def module_of(strategy, tiny_bert, tiny_unigram, **options) -> DistillationModule:
    teacher, student = OnlineTeacher(tiny_bert, max_length=32), StaticEncoder(tiny_unigram, max_length=32)
    module = DistillationModule(student, teacher, strategy, **options)
    module.log = module.log_dict = lambda *_, **__: None
    module.lists = True
    return module


@pytest.mark.parametrize("build", [KL, MarginMSE, lambda: Contrastive(score="maxsim")])
def test_the_loss_falls_in_20_steps(build, tiny_bert, tiny_unigram):
    torch.manual_seed(0)
    module, batch = module_of(build(), tiny_bert, tiny_unigram), collate(PAIRS)
    losses = losses_of_steps(module, batch)
    assert losses[-1] < 0.8 * losses[0]


def test_a_siamese_student_reads_the_passages_with_gradient(tiny_bert, tiny_unigram):
    module = module_of(Contrastive(), tiny_bert, tiny_unigram, siamese=True)
    module.teacher.encode = None
    module.training_step(collate(PAIRS), 0).backward()
    (small,) = module.student.tokenize(["small"])["input_ids"][:, 1:-1]  # a word that stands in a passage alone
    assert all(table.weight.grad[small].abs().sum() > 0 for table in module.student.token_tables())


@pytest.fixture
def listed_folder(tsv_folder, tmp_path) -> Path:
    """The TSV folder without bitext, and with three passages for each of its pairs of words."""
    folder = tmp_path / "lists"
    shutil.copytree(tsv_folder, folder)
    pairs = [line.split("\t") for line in (folder / "pairs.tsv").read_text().splitlines()]
    (folder / "pairs.tsv").unlink()
    pairs = [pair for pair in pairs if " " in pair[0]][::3]
    queries, lists = [], []
    for number, (english, swahili) in enumerate(pairs):
        first, second = english.split()
        other = pairs[(number * 7 + 3) % len(pairs)][0].replace(" ", "-")
        passages = {f"{first}-{second}": 9.0, f"{second}-{first}": 7.5, other: -3.0}
        queries.append(f"t{number}\t{english}\t{swahili}")
        lists.append(json.dumps([f"t{number}", *map(list, passages.items())]))
    (folder / "train.queries.tsv").write_text("\n".join(queries))
    (folder / "candidates.jsonl").write_text("\n".join(lists))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "term"), [("kl", "kl_listed"), ("margin_mse", "margin_mse")])
def test_train_on_a_folder_with_candidates(script, tiny_config, listed_folder, tmp_path, strategy, term):
    words = ["--config", tiny_config, "--data.root", listed_folder, "--output", tmp_path, "--name", "run"]
    words += ["--strategy", strategy, "--logger", "csv", "--trainer.max_epochs", "1"]
    done = script("train.py", *words, "--trainer.log_every_n_steps", "1")
    assert done.status == 0, done.err
    assert f"train/{term}" in next((tmp_path / "run").rglob("metrics.csv")).read_text()
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_no_candidates_is_one_line_before_training(script, tiny_config, tmp_path):
    words = ["--config", tiny_config, "--output", tmp_path, "--name", "run", "--logger", "none"]
    done = script("train.py", *words, "--strategy", "margin_mse")
    assert done.status == 2
    assert "MarginMSE learns from candidate passages, but no training pair lists any" in done.err
    assert "Traceback" not in done.err
    assert "epoch" not in done.out


def test_a_broken_list_is_one_line_before_training(script, tiny_config, listed_folder, tmp_path):
    with (listed_folder / "candidates.jsonl").open("a") as file:
        file.write('\n["t0", ["cat-mat", 1]]')
    words = ["--config", tiny_config, "--data.root", listed_folder, "--output", tmp_path, "--name", "run"]
    done = script("train.py", *words, "--strategy", "kl", "--logger", "none")
    assert done.status == 2
    assert "candidates.jsonl:31: query 't0' has a list on line 1 already" in done.err
    assert "Traceback" not in done.err
