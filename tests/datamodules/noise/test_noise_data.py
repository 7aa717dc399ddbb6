"""Noise in datamodules and runs: any number of workers and ranks, streams, mixtures, resumed runs, test time."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.base import PairsDataModule
from datamodules.images import ImageReference, image_source, is_image
from datamodules.mixture import Mixture, MixtureDataModule
from datamodules.noise.image import IMAGE_NOISES
from datamodules.noise.options import EvaluationNoise, TrainingNoise
from datamodules.noise.text import TEXT_NOISES, TextNoise
from datamodules.noise.transform import NoisySource, NoisyTexts
from datamodules.pairs import Pair, make_pairs
from datamodules.tsv import TSVDataModule
from foundations.errors import InputError
from lightning_modules.cli.help import class_options
from lightning_modules.models.files import read_weights
from retrieval.collection import Collection

KEYBOARD = TrainingNoise(text="keyboard", text_severity=5, seed=3)


class Captions(PairsDataModule):
    """Pairs of images and captions; the test asks for images by captions."""

    def __init__(self, folder, images: int = 12, **options):
        super().__init__(**options)
        self.paths = [folder / f"{number}.png" for number in range(images)]

    def load_pairs(self):
        return [
            Pair(image_source(path), f"picha nzuri ya namba {i} {c}", i)
            for i, path in enumerate(self.paths)
            for c in range(5)
        ]

    def load_collections(self):
        def collection(name, side, text):
            queries = {f"q{i}": f"{text} {i} kubwa nyumbani karibu" for i in range(len(self.paths))}
            documents = {f"d{i}": image_source(path) for i, path in enumerate(self.paths)}
            return Collection(name, queries, documents, {q: {q.replace("q", "d"): 1} for q in queries}, side)

        return {
            "dev": collection("dev", "student", "picha ya dev"),
            "test": collection("test", "student", "picha ya mwisho"),
            "english": collection("english", "teacher", "a picture of the number"),
        }


WORDS = ["paka", "mkeka", "asubuhi", "rafiki", "jua", "maji", "uhai", "kubwa", "jekundu", "mdogo"]
"""Queries of the folder of TSV files."""


def texts_of(collection: Collection) -> tuple[list[str], list[str]]:
    return list(collection.queries.values()), list(collection.documents.values())


def test_training_noise_is_put_into_the_pairs_only(tmp_path):
    clean, noisy = Captions(tmp_path), Captions(tmp_path, noise=TrainingNoise(rate=0.4, image="jpeg", image_severity=2))
    clean.setup("fit")
    noisy.setup("fit")
    assert [texts_of(each) for each in noisy.collections.values()] == [
        texts_of(each) for each in clean.collections.values()
    ]
    assert [pair.target for pair in noisy.pairs] == [pair.target for pair in clean.pairs]
    assert all(pair.noisy is None for pair in clean.pairs)
    wrong = [ImageReference.parse(new.source).path != ImageReference.parse(old.source).path
             for new, old in zip(noisy.pairs, clean.pairs, strict=True)]  # fmt: skip
    assert [pair.noisy for pair in noisy.pairs] == wrong
    assert noisy.noise_report.rates == {"mismatched": sum(wrong) / 60, "sources_changed": 1.0}
    references = [ImageReference.parse(pair.source) for pair in noisy.pairs]
    assert {(each.noise, each.severity) for each in references} == {("jpeg", 2)}
    assert len({each.seed for each in references}) == len({each.path for each in references})
    assert clean.noise_report is None


def test_the_seed_of_an_image_does_not_hang_on_its_folder(tmp_path):
    noise = TrainingNoise(image="shot", image_severity=1, seed=4)
    seeds = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        data = Captions(folder, noise=noise)
        data.setup("fit")
        seeds.append([ImageReference.parse(pair.source).seed for pair in data.pairs])
    assert seeds[0] == seeds[1]


def test_test_noise_is_put_into_what_the_student_reads_and_into_images(tmp_path):
    noise = EvaluationNoise("keyboard", 5, "impulse", 4, seed=2)
    clean, noisy = Captions(tmp_path), Captions(tmp_path, test_noise=noise)
    clean.setup("test")
    noisy.setup("test")
    assert noisy.pairs == clean.pairs
    assert texts_of(noisy.collections["dev"]) == texts_of(clean.collections["dev"])
    assert noisy.collections["english"].queries == clean.collections["english"].queries
    expected = {name: TextNoise("keyboard", 5, 2)(text) for name, text in clean.collections["test"].queries.items()}
    assert noisy.collections["test"].queries == expected != clean.collections["test"].queries
    for name in ("test", "english"):
        for old, new in zip(texts_of(clean.collections[name])[1], texts_of(noisy.collections[name])[1], strict=True):
            reference = ImageReference.parse(new)
            assert str(replace(reference, noise="", severity=0, seed=0)) == old
            assert (reference.noise, reference.severity) == ("impulse", 4)
    assert noisy.noise_report is None


def test_severity_zero_changes_nothing(tmp_path):
    clean = Captions(tmp_path)
    noisy = Captions(
        tmp_path, noise=TrainingNoise("ocr", 0, "jpeg", 0), test_noise=EvaluationNoise("ocr", 0, "jpeg", 0)
    )
    clean.setup("fit")
    noisy.setup("fit")
    assert noisy.pairs == clean.pairs
    assert noisy.collections == clean.collections
    for name in clean.collections:
        assert texts_of(noisy.collections[name]) == texts_of(clean.collections[name])


def test_noise_comes_after_the_limit_and_is_the_same_in_every_process(tmp_path):
    found = []
    for limit in (None, 20, 20):
        data = Captions(tmp_path, limit_pairs=limit, noise=replace(KEYBOARD, rate=0.5))
        data.setup("fit")
        found.append(data.pairs)
    assert found[1] == found[2]
    assert len(found[1]) == 20
    assert 0 < sum(pair.noisy for pair in found[1]) <= 10
    changed = {pair.target for pair in found[0]}  # text noise does not hang on the place
    assert {pair.target for pair in found[1]} <= changed


def test_bad_options_are_refused_at_once(tmp_path):
    lexicon = tmp_path / "lexicon.tsv"
    lexicon.write_text("a\tb\n")
    for message, options in (
        ("the text noise is 'keybord', expected one of keyboard, insert, delete", {"text": "keybord"}),
        ("the image noise is 'jpg', expected one of gaussian, shot", {"image": "jpg"}),
        ("text_severity is 6, expected", {"text": "ocr", "text_severity": 6}),
        ("image_severity is -1, expected", {"image": "jpeg", "image_severity": -1}),
        ("text_severity is 1, but no text noise is chosen", {"text_severity": 1}),
        ("code_switch needs a file: set lexicon", {"text": "code_switch"}),
        ("mt needs a file: set translations", {"text": "mt"}),
        ("lexicon: no such file", {"text": "code_switch", "lexicon": "nope.tsv"}),
        ("rate of noise is 1.1, expected", {"rate": 1.1}),
        ("rate of noise is -0.1, expected", {"rate": -0.1}),
        ("rate of noise is nan, expected", {"rate": float("nan")}),
        ("the level of noise is 'img', expected one of caption, image, did you mean 'image'", {"level": "img"}),
        ("the rate of noise or its index_file, not both", {"rate": 0.1, "index_file": str(lexicon)}),
        ("index_file: no such file", {"index_file": "nope.npy"}),
        ("the seed of noise is -1", {"seed": -1}),
    ):
        with pytest.raises(ValueError, match=message):
            TrainingNoise(**options)
    with pytest.warns(UserWarning, match="lexicon has no effect"):
        EvaluationNoise("ocr", 1, lexicon=str(lexicon))
    with pytest.raises(TypeError):
        EvaluationNoise(rate=0.1)


def test_image_noise_without_images(tsv_folder):
    for options, message in (
        ({"noise": TrainingNoise(image="jpeg", image_severity=1)}, "no training pair's source is one"),
        ({"test_noise": EvaluationNoise(image="jpeg", image_severity=1)}, "the test collection has none"),
    ):
        data = TSVDataModule(str(tsv_folder), **options)
        with pytest.raises(InputError, match=f"the noise jpeg is for images, but {message}"):
            data.setup("fit")


def test_a_warning_where_nothing_changes(tsv_folder):
    data = TSVDataModule(
        str(tsv_folder), noise=TrainingNoise("transliteration", 5), test_noise=EvaluationNoise("transliteration", 5)
    )
    with pytest.warns(UserWarning, match="transliteration changes no target") as found:
        data.setup("fit")
    assert any("transliteration changes no text of the test collection" in str(each.message) for each in found)


def batches(data: PairsDataModule, workers: int, rank: int = 0, world: int = 1) -> list[tuple]:
    data.num_workers = workers
    data._rank = lambda: (rank, world)
    return [(b.source, b.target, b.ids.tolist(), None if b.noisy is None else b.noisy.tolist())
            for b in data.train_dataloader()]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_batches_for_any_number_of_workers_and_ranks(tsv_folder, stream):
    noise = KEYBOARD if stream else replace(KEYBOARD, rate=0.4)

    def data(**options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = TSVDataModule(str(tsv_folder), batch_size=10, stream=stream, noise=noise, seed=1, **options)
            made.setup("fit")
        return made

    alone = batches(data(), 0)
    assert alone == batches(data(), 2)
    of_ranks = [batches(data(), 0, rank, 2) for rank in range(2)]
    known = {(pair.source, pair.target, pair.noisy) for pair in data().pairs}
    for source, target, _, noisy in [batch for rank in of_ranks for batch in rank] + alone:
        assert set(zip(source, target, noisy or [None] * len(source), strict=True)) <= known
    assert any(noisy and any(noisy) for *_, noisy in alone) is not stream


def test_streamed_pairs(tsv_folder):
    clean = TSVDataModule(str(tsv_folder), stream=True)
    noisy = TSVDataModule(str(tsv_folder), stream=True, noise=KEYBOARD, test_noise=EvaluationNoise("delete", 5))
    clean.setup("fit")
    noisy.setup("fit")
    assert isinstance(noisy.pairs, NoisySource)
    change = TextNoise("keyboard", 5, 3)
    assert list(noisy.pairs) == [replace(pair, target=change(pair.target)) for pair in clean.pairs]
    assert [pair.target for pair in noisy.pairs] != [pair.target for pair in clean.pairs]
    assert "as they are read, some with a changed target (keyboard, severity 5)" in str(noisy.noise_report)
    queries = noisy.collections["test"].queries
    change = TextNoise("delete", 5, 0)
    expected = {name: change(text) for name, text in clean.collections["test"].queries.items()}
    assert dict(queries.items()) == {name: queries[name] for name in queries} == expected
    assert list(queries.values()) == list(expected.values())


def test_wrong_correspondence_of_streamed_pairs_is_refused(tsv_folder):
    data = TSVDataModule(str(tsv_folder), stream=True, noise=TrainingNoise(rate=0.2))
    with pytest.raises(InputError, match=r"wrong correspondence shuffles .* but these are streamed"):
        data.setup("fit")


def test_texts_on_disk_are_read_through_noise():
    change = TextNoise("swap", 5)
    lazy = NoisyTexts({"a": "maji", "b": "moto"}, _Changes(change), is_text=True)
    assert dict(lazy) == {"a": change("maji"), "b": change("moto")}
    assert len(lazy) == 2
    assert "a" in lazy
    assert "c" not in lazy


class _Changes:
    def __init__(self, change):
        self.text, self.image = change, lambda text: text


@pytest.mark.parametrize("own", [False, True])
def test_every_part_of_a_mixture_gets_the_noise(tmp_path, own):
    noise, test_noise = TrainingNoise(rate=0.5, level="image"), EvaluationNoise("delete", 5)
    options = {"noise": noise, "test_noise": test_noise}
    parts = {
        name: Captions(tmp_path / name, size, **(options if own else {})) for name, size in (("sw", 12), ("am", 20))
    }
    data = MixtureDataModule(parts, **({} if own else options))
    data.setup("fit")
    assert isinstance(data.pairs, Mixture)
    pairs = list(data.pairs)
    assert len(pairs) == 160
    by_image = {}
    for pair in pairs:
        assert by_image.setdefault(pair.id, pair.source) == pair.source
    wrong = sum(pair.noisy for pair in pairs)
    assert data.noise_report.rates == {"mismatched": wrong / 160}
    assert 0 < wrong <= 80
    for name, part in parts.items():
        alone = Captions(tmp_path / name, len(part.paths), **options)
        alone.setup("fit")
        assert alone.pairs == data.pairs.parts[name]
        assert data.collections[f"test/{name}"].queries == alone.collections["test"].queries
        clean = Captions(tmp_path / name, len(part.paths))
        clean.setup("fit")
        assert data.collections[f"test/{name}"].queries != clean.collections["test"].queries
        assert data.collections[f"dev/{name}"].queries == clean.collections["dev"].queries


def test_leaks_are_looked_for_in_clean_texts():
    class Leaky(PairsDataModule):
        def load_pairs(self):
            return make_pairs([(f"source {i}", f"kubwa nyumba rafiki asubuhi {i}") for i in range(30)])

        def load_collections(self):
            return {
                name: Collection(name, {"q": f"kubwa nyumba rafiki asubuhi {i}"}, {"d": "x"}, {"q": {"d": 1}})
                for i, name in enumerate(("dev", "test"))
            }

    options = {"noise": replace(KEYBOARD, rate=0.5), "test_noise": EvaluationNoise("insert", 5), "remove_leaks": True}
    data, parts = Leaky(**options), MixtureDataModule({"a": Leaky(**options)}, **options)
    for each in (data, parts):
        each.setup("fit")
        assert each.leaks.pairs == 2
        assert len(each.pairs) == 28


def run(script, tiny_config, tmp_path, name, *words):
    output = ("--output", tmp_path, "--name", name, "--logger", "csv", "--seed_everything", "1")
    done = script("train.py", "--config", tiny_config, "--strategy", "mse", *output, *words)
    assert done.status == 0, done.err
    return done.out, tmp_path / name


NOISE = ["--data.noise.rate", "0.4", "--data.noise.text", "keyboard", "--data.noise.text_severity", "5"]


@pytest.mark.slow
def test_a_run_with_noise_end_to_end(script, tiny_config, tmp_path):
    out, folder = run(script, tiny_config, tmp_path, "a", *NOISE, "--trainer.max_epochs", "1")
    content = json.loads((folder / "diagnostics.json").read_text())["noise"]
    assert content["pairs"] == 100
    assert content["mismatched"] == pytest.approx(40, abs=4)
    assert content["rates"]["mismatched"] == content["mismatched"] / 100
    assert 0.2 < content["rates"]["targets_changed"] < 0.6
    assert content["options"]["text"] == "keyboard"
    rates = content["rates"]
    assert f"train noise: 100 pairs, {rates['mismatched']:.4f} of them with another's source (caption level" in out
    assert f"{rates['targets_changed']:.4f} with a changed target (keyboard, severity 5); seed 1" in out

    _, other = run(script, tiny_config, tmp_path, "b", *NOISE, "--trainer.max_epochs", "1", "--data.num_workers", "2")
    assert (folder / "metrics.json").read_text() == (other / "metrics.json").read_text()
    weights = [read_weights(each / "checkpoints" / "best.ckpt") for each in (folder, other)]
    tensors = [key for key, value in weights[0].items() if isinstance(value, torch.Tensor)]
    assert tensors
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in tensors)


@pytest.mark.slow
def test_a_resumed_run_has_the_same_noise(script, tiny_config, tmp_path):
    # Validated once, at the end: the best checkpoint is the last step's.
    words = [*NOISE, "--model.schedule", "constant", "--trainer.check_val_every_n_epoch", "2"]
    _, whole = run(script, tiny_config, tmp_path, "whole", *words)
    run(script, tiny_config, tmp_path, "cut", *words, "--trainer.max_steps", "13", "--checkpoint_every", "13")
    (tmp_path / "cut" / "metrics.json").unlink()  # as if it had been killed
    done = script("train.py", "--resume", tmp_path / "cut", "--trainer.max_steps", "-1")
    assert done.status == 0, done.err
    assert "train noise: 100 pairs" in done.out
    assert (whole / "metrics.json").read_text() == (tmp_path / "cut" / "metrics.json").read_text()


def evaluated(script, folder, tmp_path, *words) -> dict:
    done = script("evaluate.py", folder, "--json", tmp_path / "scores.json", *words)
    assert done.status == 0, done.err
    return json.loads((tmp_path / "scores.json").read_text())


def test_evaluation_under_noise(script, finished_run, tmp_path):
    clean = evaluated(script, finished_run, tmp_path)
    assert evaluated(script, finished_run, tmp_path, "--text_noise", "delete", "--severity", "0") == clean
    changing = [seed for seed in range(40) if any(TextNoise("delete", 5, seed)(word) != word for word in WORDS[:6])]
    noisy = [
        evaluated(script, finished_run, tmp_path, "--text_noise", "delete", "--severity", "5", "--noise_seed", seed)
        for seed in (changing[0], changing[0], changing[1])
    ]
    assert noisy[0] == noisy[1] != noisy[2]
    assert noisy[0]["test"] != clean["test"]
    assert noisy[0]["undistilled"] != clean["undistilled"]
    assert noisy[0]["teacher"] == clean["teacher"]


@pytest.mark.slow
def test_test_noise_of_a_run_equals_that_of_evaluate(script, tiny_config, tmp_path):
    table = tmp_path / "mt.tsv"
    table.write_text("".join(f"{word}\tjua\n" for word in WORDS))
    words = ["--data.test_noise.text", "mt", "--data.test_noise.text_severity", "5"]
    words += ["--data.test_noise.translations", str(table)]
    _, folder = run(script, tiny_config, tmp_path, "noisy", *words, "--trainer.max_epochs", "1")
    metrics = json.loads((folder / "metrics.json").read_text())
    again = evaluated(script, folder, tmp_path)
    assert again["test"]["means"] == metrics["test"]
    same = evaluated(script, folder, tmp_path, "--text_noise", "mt", "--severity", "5", "--translations", table)
    assert same == again
    clean = evaluated(script, folder, tmp_path, "--text_noise", "delete", "--severity", "0")
    assert clean["test"]["means"] != metrics["test"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text_noise", "delet", "--severity", "1"], "the text noise is 'delet', expected one of keyboard, insert"),
        (["--text_noise", "delete", "--severity", "9"], "text_severity is 9"),
        (["--text_noise", "delete"], "noise needs a run folder, --severity, and --text_noise or --image_noise"),
        (["--severity", "2"], "noise needs a run folder, --severity, and --text_noise or --image_noise"),
        (["--image_noise", "jpeg", "--severity", "2"], "the noise jpeg is for images"),
        (["--text_noise", "code_switch", "--severity", "2"], "code_switch needs a file: set lexicon"),
    ],
)
def test_wrong_options_of_evaluate(script, finished_run, words, message):
    done = script("evaluate.py", finished_run, *words)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert message in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.noise.text", "keybord"], "the text noise is 'keybord', expected one of keyboard, insert, delete"),
        (["--data.noise.rate", "2"], "the rate of noise is 2.0"),
        (["--data.noise.level", "img"], "expected one of caption, image"),
        (["--data.noise.rat", "0.2"], "unknown option data.noise.rat, did you mean 'rate'?"),
        (["--data.noise.rate", "x"], "data.noise.rate is 'x', expected a number"),
        (["--data.noise.image", "jpeg", "--data.noise.image_severity", "2"], "the noise jpeg is for images"),
    ],
)
def test_wrong_options_of_train(script, tiny_config, tmp_path, words, message):
    done = script("train.py", "--config", tiny_config, "--output", tmp_path / "runs", "--logger", "none", *words)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert message in done.err
    assert not (tmp_path / "runs").exists()


def test_completion_knows_the_options_of_noise():
    options = dict(class_options("datamodules.tsv.TSVDataModule"))
    assert options["noise.level"] == ["caption", "image"]
    assert {"noise.rate", "noise.text", "test_noise.text_severity"} <= options.keys()
    assert "test_noise.rate" not in options


def test_images_reach_the_loader_with_noise(tmp_path):
    generator = np.random.default_rng(0)
    data = Captions(tmp_path, 2, noise=TrainingNoise(image="gaussian", image_severity=5))
    for path in data.paths:
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8), "RGB").save(path)
    data.setup("fit")
    from datamodules.images import load_image

    first = data.pairs[0].source
    assert is_image(first)
    assert load_image(first).tobytes() == load_image(first).tobytes()
    assert load_image(first).tobytes() != load_image(image_source(data.paths[0])).tobytes()


def test_the_docstring_names_every_kind():
    kinds = set(re.findall(r"\w+", EvaluationNoise.__doc__ or ""))
    assert {*TEXT_NOISES, *IMAGE_NOISES} <= kinds


def test_training_noise_follows_the_seed_of_the_run_unless_it_has_its_own(tsv_folder):
    def sources(seed: int, own: int | None) -> list[str]:
        data = TSVDataModule(root=str(tsv_folder), seed=seed, noise=TrainingNoise(rate=0.5, seed=own))
        data.setup("fit")
        return [pair.source for pair in data.pairs]

    assert sources(0, None) == sources(0, 0) != sources(1, None) == sources(0, 1)
    assert sources(1, 0) == sources(0, 0)
