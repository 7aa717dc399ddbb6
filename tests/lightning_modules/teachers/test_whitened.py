"""The whitened space of a teacher: the map itself, and runs in it from training to search."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
import yaml
from lightning.pytorch import Callback, Trainer

from datamodules.pairs import Candidate, PairBatch, collate, make_pairs
from datamodules.tsv import TSVDataModule
from foundations.errors import InputError
from lightning_modules.commands.evaluate import load_weights, open_run
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.encoding import encode, encode_into
from lightning_modules.students.static import StaticEncoder
from lightning_modules.teachers.base import Teacher
from lightning_modules.teachers.cached import CachedTeacher
from lightning_modules.teachers.online import OnlineTeacher
from lightning_modules.teachers.run import RunTeacher
from lightning_modules.teachers.whitened import WhitenedTeacher, Whitening
from retrieval.index.shards import MappedShards
from retrieval.trec import read_run
from strategies.base import Embeddings
from strategies.contrastive import Contrastive
from strategies.kl import KL
from strategies.margin_mse import MarginMSE
from strategies.mse import MSE
from tests.conftest import TEXTS
from tests.lightning_modules.test_distillation import STRATEGIES
from tests.training_steps import losses_of_steps

SOURCES = [f"text {number}" for number in range(300)]


class Drawn(Teacher):
    """Random vectors with a few large directions and a common one; a text has 1 to 5 tokens, the mean is pooled."""

    dim = 6

    def __init__(self) -> None:
        self.asked: list[str] = []

    def fit_idf(self, texts, side="queries"):
        raise NotImplementedError

    def fingerprint(self, side="queries"):
        return "drawn"

    def states(self, text: str) -> np.ndarray:
        random = np.random.default_rng(list(text.encode()))
        spread = np.array([3, 1, 0.5, 0.2, 0.1, 0.05])
        return 2 + random.normal(size=(int(random.integers(1, 6)), 6)) * spread

    def encode(self, texts, tokens=False, device=None, side="queries"):
        self.asked += [] if tokens else texts
        states = [self.states(text) for text in texts]
        pooled = np.stack([state.mean(0) / np.linalg.norm(state.mean(0)) for state in states])
        padded, mask = np.zeros((len(texts), 5, 6)), np.zeros((len(texts), 5), dtype=bool)
        for row, state in enumerate(states):
            padded[row, : len(state)], mask[row, : len(state)] = state, True
        single = [torch.from_numpy(each).float() for each in (pooled, padded)]
        return Embeddings(single[0], single[1], torch.from_numpy(mask)) if tokens else Embeddings(single[0])


def by_hand(texts: list[str], shrinkage: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean, matrix and scale by their formulas, with SciPy's power of a matrix."""
    means = np.stack([Drawn().states(text).mean(0) for text in texts])
    pooled = means / np.linalg.norm(means, axis=1, keepdims=True)
    covariance = np.cov(pooled.T, bias=True)
    shrunk = covariance + shrinkage * np.linalg.eigvalsh(covariance).mean() * np.eye(6)
    matrix = scipy.linalg.fractional_matrix_power(shrunk, -0.5)
    return pooled.mean(0), matrix, float(np.linalg.norm(means, axis=1).mean())


@pytest.mark.parametrize("shrinkage", [0.1, 1.0])
def test_the_map_is_the_formula(shrinkage):
    space, teacher = Whitening(shrinkage), Drawn()
    space.fit(teacher, [*SOURCES, *SOURCES[:50]])
    assert sorted(teacher.asked) == sorted(SOURCES), "each source counts once"
    mean, matrix, scale = by_hand(SOURCES, shrinkage)
    state = space.get_extra_state()
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["matrix"], matrix, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state["scale"], scale, rtol=1e-5)

    texts = SOURCES[:7]
    mapped = WhitenedTeacher(teacher, space).encode(texts, tokens=True)
    for row, text in enumerate(texts):
        states = Drawn().states(text)
        pooled = (states.mean(0) / np.linalg.norm(states.mean(0)) - mean) @ matrix
        np.testing.assert_allclose(mapped.pooled[row], pooled / np.linalg.norm(pooled), atol=1e-4)
        np.testing.assert_allclose(mapped.tokens[row, : len(states)], (states / scale - mean) @ matrix, atol=1e-3)
        assert (mapped.tokens[row, len(states) :] == 0).all()


def test_the_covariance_of_what_it_was_fitted_on():
    """C (C + m I)^-1: no direction above 1, and the larger the variance was, the nearer to 1."""
    space, teacher = Whitening(0.01), Drawn()
    space.fit(teacher, SOURCES)
    pooled = teacher.encode(SOURCES).pooled.double().numpy()
    state = space.get_extra_state()
    mapped = (pooled - state["mean"].numpy()) @ state["matrix"].numpy()
    values = np.linalg.eigvalsh(np.cov(pooled.T, bias=True))
    found = np.linalg.eigvalsh(np.cov(mapped.T, bias=True))
    np.testing.assert_allclose(found, values / (values + 0.01 * values.mean()), atol=1e-3)
    assert values.max() / values.min() > 100
    assert found.max() / found.min() < 3


def test_a_fit_takes_a_sample_of_many_texts(monkeypatch):
    monkeypatch.setattr("lightning_modules.teachers.whitened._MOST_TEXTS", 100)
    space, teacher = Whitening(), Drawn()
    space.fit(teacher, SOURCES)
    assert teacher.asked == SOURCES[::3]


def test_what_cannot_be_whitened():
    with pytest.raises(ValueError, match="shrinkage is 0, expected a number above 0"):
        Whitening(0)
    with pytest.raises(InputError, match="gives the 1 sources one and the same vector"):
        Whitening().fit(Drawn(), ["a", "a"])
    with pytest.raises(ValueError, match="the whitened space is not there yet"):
        Whitening()(Drawn().encode(["a"]))


def test_the_map_stays_in_single_precision_and_in_the_state(tmp_path):
    space = Whitening()
    space.fit(Drawn(), SOURCES)
    side = Drawn().encode(SOURCES[:3], tokens=True)
    expected = space(side)
    torch.save(space.state_dict(), tmp_path / "space.ckpt")
    again = Whitening().to(torch.bfloat16)
    again.load_state_dict(torch.load(tmp_path / "space.ckpt", weights_only=True))
    with torch.autocast("cpu", torch.bfloat16):
        found = again(side)
    assert found.pooled.equal(expected.pooled)
    assert found.tokens.equal(expected.tokens)
    assert found.tokens.dtype == found.pooled.dtype == torch.float32


def test_idf_weights_pass_through(tiny_bert):
    teacher, space = OnlineTeacher(tiny_bert, max_length=32), Whitening()
    teacher.fit_idf(TEXTS)
    space.fit(teacher, TEXTS)
    plain, mapped = (each.encode(TEXTS, tokens=True) for each in (teacher, WhitenedTeacher(teacher, space)))
    assert mapped.weights.equal(plain.weights)
    assert mapped.mask.equal(plain.mask)


def test_the_fingerprint_tells_the_spaces_apart():
    spaces = [Whitening(), Whitening(), Whitening(4)]
    for space in spaces:
        space.fit(Drawn(), SOURCES)
    first, same, other = (WhitenedTeacher(Drawn(), space).fingerprint() for space in spaces)
    assert first == same
    assert len({first, other, Drawn().fingerprint()}) == 3


def whitened_module(strategy, tiny_bert, tiny_unigram, **options) -> DistillationModule:
    teacher, student = OnlineTeacher(tiny_bert, max_length=32), StaticEncoder(tiny_unigram, max_length=32)
    module = DistillationModule(student, teacher, strategy, space="whitened", **options)
    module.log = module.log_dict = lambda *_, **__: None
    module.space.fit(teacher, TEXTS)
    return module


LISTED = {"kl": KL, "margin_mse": MarginMSE, "contrastive maxsim": lambda: Contrastive(score="maxsim")}


@pytest.mark.parametrize("name", [*STRATEGIES, *LISTED])
def test_every_strategy_learns_in_it(name, tiny_bert, tiny_unigram):
    torch.manual_seed(0)
    module = whitened_module((STRATEGIES | LISTED)[name](), tiny_bert, tiny_unigram)
    module.lists = name in LISTED
    passages = (Candidate("the big red sun"), Candidate("a small cat", "paka mdogo"))
    pairs = make_pairs([("the cat", "paka mdogo"), ("water is life", "maji ni uhai"), ("good morning", "habari")])
    batch: PairBatch = collate([replace(pair, candidates=passages if module.lists else ()) for pair in pairs])
    if module.distillation.needs_weights:
        module.student.fit_idf(batch.target)
        module.teacher.fit_idf(batch.source)
    seen = []
    module.distillation.register_forward_hook(lambda _, sides, __: seen.append(sides))
    losses = losses_of_steps(module, batch)
    assert losses[-1] < 0.9 * losses[0]
    teacher = seen[0][1]
    assert teacher.pooled.equal(module.space(module.teacher.encode(batch.source)).pooled)
    if module.lists:
        sun = module.space(module.teacher.encode(["the big red sun"])).pooled[0]
        torch.testing.assert_close(teacher.candidates.pooled[0, 0], sun)


def test_a_siamese_student_has_no_teacher_to_whiten(tiny_bert, tiny_unigram):
    teacher, student = OnlineTeacher(tiny_bert, max_length=32), StaticEncoder(tiny_unigram, max_length=32)
    module = DistillationModule(student, teacher, Contrastive(), space="whitened", siamese=True)
    assert module.space is None
    assert module.teacher_in_space is module.teacher


def trained(folder, tiny_bert, tiny_unigram, steps, start=None, **options) -> DistillationModule:
    teacher = CachedTeacher(OnlineTeacher(tiny_bert, max_length=32), str(folder / "cache"))
    student = StaticEncoder(tiny_unigram, max_length=32)
    module = DistillationModule(student, teacher, MSE(), space="whitened", schedule="constant")
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=TSVDataModule(batch_size=10, **options), ckpt_path=start, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return module


@pytest.mark.parametrize("cached", [True, False])
def test_a_resumed_run_keeps_its_space_to_the_bit(cached, tiny_bert, tiny_unigram, tsv_folder, tmp_path, monkeypatch):
    models = tiny_bert, tiny_unigram
    options = {"root": str(tsv_folder), "cache_pairs": cached}
    whole = trained(tmp_path, *models, steps=6, **options)
    data = TSVDataModule(**options)
    data.setup("fit")
    again = Whitening()
    again.fit(OnlineTeacher(tiny_bert, max_length=32), [pair.source for pair in data.pairs])
    torch.testing.assert_close(whole.space.get_extra_state(), again.get_extra_state(), rtol=1e-4, atol=1e-4)

    trained(tmp_path, *models, steps=3, **options)
    monkeypatch.setattr(Whitening, "fit", lambda *_, **__: pytest.fail("fitted again"))
    resumed = trained(tmp_path, *models, steps=6, start=tmp_path / "3.ckpt", **options)
    for name, value in whole.space.get_extra_state().items():
        assert resumed.space.get_extra_state()[name].equal(value), name
    for name, value in whole.named_parameters():
        assert dict(resumed.named_parameters())[name].equal(value), name


def test_streamed_pairs_give_a_sample(tiny_bert, tiny_unigram, tsv_folder, tmp_path):
    streamed = trained(tmp_path, tiny_bert, tiny_unigram, 2, root=str(tsv_folder), stream=True, vocabulary_sample=60)
    assert streamed.space.is_fitted
    assert not (tmp_path / "cache").exists(), "nothing of a stream is stored"


@pytest.fixture(scope="module")
def whitened_run(tmp_path_factory, tiny_config, script):
    """The folder of a short run in the whitened space, scored pooled and by MaxSim."""
    output = tmp_path_factory.mktemp("whitened")
    words = ["--config", tiny_config, "--strategy", "ot", "--model.space", "whitened", "--model.score", "both"]
    done = script("train.py", *words, "--output", output, "--name", "run", "--logger", "none")
    assert done.status == 0, done.err
    return output / "run"


def test_evaluate_gives_what_training_gave(whitened_run, finished_run, script, tmp_path):
    done = script("evaluate.py", whitened_run, "--json", tmp_path / "scores.json")
    assert done.status == 0, done.err
    scored = json.loads((tmp_path / "scores.json").read_text())
    rows = json.loads((whitened_run / "metrics.json").read_text())
    assert {row: values["means"] for row, values in scored.items()} == rows
    plain = json.loads((finished_run / "metrics.json").read_text())
    assert {name: rows["undistilled"][name] for name in plain["undistilled"]} == plain["undistilled"], "as it is"
    assert plain["teacher"]["map"] - 0.05 < rows["teacher"]["map"] != plain["teacher"]["map"], "nothing is lost by it"


def test_the_checkpoint_is_plain_and_whole(whitened_run):
    path = whitened_run / "checkpoints" / "best.ckpt"
    module = DistillationModule.load_from_checkpoint(path, weights_only=True, map_location="cpu")
    state = torch.load(path, weights_only=True)["state_dict"]["space._extra_state"]
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "mean": (32,), "matrix": (32, 32), "scale": ()
    }  # fmt: skip
    assert module.space.get_extra_state()["matrix"].equal(state["matrix"])
    teacher = RunTeacher(str(whitened_run))
    torch.testing.assert_close(teacher.encode(TEXTS).pooled, module.eval()(TEXTS).pooled, atol=1e-6, rtol=0)


def test_large_collections_are_mapped_as_they_are_read(whitened_run, tiny_bert, tmp_path):
    results = {}
    for most in (200_000, 50):
        cli = open_run(str(whitened_run), [f"--evaluation.shard_texts={most}", "--evaluation.bm25=false"])
        cli.model.teacher = CachedTeacher(OnlineTeacher(tiny_bert, max_length=32), str(tmp_path / "cache"), "float32")
        cli.evaluation.large.folder = tmp_path
        load_weights(cli.model, whitened_run / "checkpoints" / "best.ckpt")
        for cli.model.score in ("pooled", "maxsim"):
            cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
            results[most, cli.model.score] = dict(cli.evaluation.results)
            cli.evaluation._by_teacher.clear()
    for score, accuracy in (("pooled", 1e-5), ("maxsim", 2e-3)):
        small, large = results[200_000, score], results[50, score]
        for row, result in small.items():
            for query, scores in result.runs[score].items():
                assert large[row].runs[score][query] == pytest.approx(scores, abs=accuracy), row
    cache = next((tmp_path / "cache").iterdir())
    assert len(list(cache.glob("shards-pooled-*"))) == 1, "plain vectors serve both rows"
    assert len(list(cache.glob("whitened-*/shards-tokens-*"))) == 1


@pytest.fixture(scope="module")
def plain_index(finished_run, tsv_folder, tmp_path_factory, script):
    folder = tmp_path_factory.mktemp("plain") / "index"
    words = ["index", finished_run, tsv_folder / "documents.tsv", "--side", "teacher", "--output", folder]
    done = script("search.py", *words, "--block", 20, "--tokens")
    assert done.status == 0, done.err
    return folder


def test_a_plain_index_serves_a_whitened_run(whitened_run, plain_index, tsv_folder, script, tmp_path):
    index = tmp_path / "index"
    words = [whitened_run, tsv_folder / "documents.tsv", "--side", "teacher", "--output", index]
    done = script("search.py", "index", *words, "--block", 20, "--tokens")
    assert done.status == 0, done.err
    runs = {}
    for name, folder in (("whitened", index), ("plain", plain_index)):
        words = [folder, tsv_folder / "queries.tsv", "--run", whitened_run, "--k", 100, "--output", tmp_path / name]
        done = script("search.py", "query", *words)
        assert done.status == 0, done.err
        runs[name] = read_run(tmp_path / name)
    expected = read_run(whitened_run / "test.pooled.run")
    for query, scores in expected.items():
        assert runs["whitened"][query] == pytest.approx(scores, abs=1e-5)
        assert runs["plain"][query] == pytest.approx(runs["whitened"][query], abs=1e-6)
    done = script("search.py", "query", plain_index, "--text", "a", "--run", whitened_run, "--score", "maxsim")
    assert done.status == 2
    assert "the index holds tokens of the teacher as it is, at unit length" in done.err


def test_mapped_shards_are_the_vectors_of_the_whitened_teacher(whitened_run, plain_index, tsv_folder):
    cli = open_run(str(whitened_run))
    load_weights(cli.model, whitened_run / "checkpoints" / "best.ckpt")
    lines = (tsv_folder / "documents.tsv").read_text(encoding="utf-8").splitlines()
    texts = dict(line.split("\t") for line in lines)
    mapped = MappedShards(plain_index, cli.model.space.pooled, "mapped")
    assert mapped.tokens is None
    encoded = encode(cli.model.teacher_in_space, texts, "documents", tokens=False).of(list(texts))
    torch.testing.assert_close(torch.cat(list(mapped.pooled)), encoded.pooled, atol=1e-6, rtol=0)


def test_other_indexes_are_refused(whitened_run, finished_run, tsv_folder, script, tmp_path):
    """One that the plain student read, and one of a whitened space for a plain run."""
    documents = tsv_folder / "documents.tsv"
    for made, asked, side in ((finished_run, whitened_run, "student"), (whitened_run, finished_run, "teacher")):
        folder = tmp_path / side
        assert script("search.py", "index", made, documents, "--side", side, "--output", folder).status == 0
        done = script("search.py", "query", folder, "--text", "a", "--run", asked)
        assert (done.status, done.err.count("the index is in the space of another teacher")) == (2, 1)


def test_faiss_keeps_the_mapped_vectors_apart(whitened_run, finished_run, plain_index, script):
    pytest.importorskip("faiss")
    for run in (finished_run, whitened_run, finished_run):
        words = ["--run", run, "--k", 5, "--index", "ivf", "--nlist", 4, "--nprobe", 4]
        done = script("search.py", "query", plain_index, "--text", "paka", *words)
        assert done.status == 0, done.err
        assert "ivf: recall@5 against exact search is 1.0000" in done.out
    assert len(list(plain_index.glob("**/ivf-*.faiss"))) == 2
    shutil.rmtree(next(plain_index.glob("whitened-*")))


def test_an_index_on_disk_has_the_whitened_vectors(whitened_run, tmp_path):
    cli = open_run(str(whitened_run))
    load_weights(cli.model, whitened_run / "checkpoints" / "best.ckpt")
    texts = {str(row): text for row, text in enumerate(TEXTS)}
    shards = encode_into(tmp_path / "index", cli.model.teacher_in_space, texts, tokens=True)
    expected = cli.model.teacher_in_space.encode(TEXTS)
    torch.testing.assert_close(shards.pooled[0], expected.pooled, atol=1e-6, rtol=0)


class KeepSpace(Callback):
    """Writes what each rank has before its first step."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        torch.save(pl_module.space.get_extra_state(), f"{self.folder}/{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_ranks_have_one_space(process, tiny_config, tmp_path):
    config = yaml.safe_load(tiny_config.read_text(encoding="utf-8"))
    path = "tests.lightning_modules.teachers.test_whitened.KeepSpace"
    config["trainer"] |= {"devices": 2, "strategy": "ddp"}
    config["trainer"]["callbacks"] = [{"class_path": path, "init_args": {"folder": str(tmp_path)}}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    words = ["--config", tmp_path / "config.yaml", "--strategy", "ot", "--model.space", "whitened"]
    done = process("train.py", *words, "--output", tmp_path, "--name", "run", "--logger", "none")
    assert done.status == 0, done.err
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in first.items():
        assert second[name].equal(value), name
        assert saved["space._extra_state"][name].equal(value), name
