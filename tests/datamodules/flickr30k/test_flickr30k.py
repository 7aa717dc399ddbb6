from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.flickr30k import files as flickr30k_files
from datamodules.flickr30k.captions import READERS, read_captions
from datamodules.flickr30k.datamodule import Flickr30kDataModule
from datamodules.flickr30k.files import numbered_lines, read_flickr
from datamodules.images import ImageReference, is_image
from datamodules.mixture import MixtureDataModule
from datamodules.noise.correspondence import mismatch
from datamodules.noise.options import TrainingNoise
from foundations.errors import InputError
from tests.datamodules.flickr30k import flickr30k_layout as layout

TRAIN = layout.of_split("train")[::-1]  # the order of the JSON file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return layout.write_official(tmp_path / "flickr30k")


def loaded(root: Path, **options) -> Flickr30kDataModule:
    data = Flickr30kDataModule(str(root), **options)
    data.setup("test")
    return data


def image_of(source: str) -> str:
    return Path(ImageReference.parse(source).path).stem


def test_english_pairs_are_in_the_order_of_the_split_five_captions_an_image(root):
    data = loaded(root)
    assert [image_of(pair.source) for pair in data.pairs] == [name for name in TRAIN for _ in range(5)]
    assert [pair.target for pair in data.pairs] == [f"{text} ." for name in TRAIN for text in layout.english(name)]
    assert len({pair.id for pair in data.pairs}) == len(TRAIN)
    assert all((a.id == b.id) == (a.source == b.source) for a in data.pairs for b in data.pairs)


def test_the_collections_do_not_hang_on_the_pairs(root):
    alone = Flickr30kDataModule(str(root)).load_collections()
    data = loaded(root)
    assert {name: dict(each.queries) for name, each in alone.items()} == {
        name: dict(each.queries) for name, each in data.collections.items()
    }
    assert data.load_pairs() == data.pairs


def test_without_the_token_file_captions_are_those_of_the_split(root):
    (root / "results_20130124.token").unlink()
    (root / "flickr30k-images").rename(root / "images")
    data = loaded(root)
    assert data.pairs[1].target == layout.english(TRAIN[0])[1]
    assert "/images/" in data.pairs[1].source


def test_a_full_size_split_of_other_sizes_has_a_warning(root, monkeypatch):
    read_flickr(root)  # a small copy has none
    monkeypatch.setattr(flickr30k_files, "_SMALL_COPY", 10)
    with pytest.warns(UserWarning, match=r"\(9, 3, 4\), the split of Karpathy is \(29000, 1014, 1000\)"):
        read_flickr(root)


def test_collections_have_both_directions(root):
    layout.write_tsv(root)
    data = loaded(root, language="sw", captions="captions.sw.tsv")
    test, english = data.collections["test"], data.collections["english"]
    images = layout.of_split("test")
    assert set(test.documents) == set(images)
    assert all(is_image(text) for text in test.documents.values())
    assert test.queries == {f"{image}#{n}": text for image in images for n, text in enumerate(layout.swahili(image))}
    assert english.queries[f"{images[0]}#3"] == layout.english(images[0])[3] + " ."
    assert (test.query_side, test.document_side, english.query_side) == ("student", "teacher", "teacher")
    forward, backward = test.views
    assert (forward.name, forward.transposed, backward.name, backward.transposed) == (
        "text_to_image", False, "image_to_text", True)  # fmt: skip
    assert forward.qrels[f"{images[1]}#4"] == {images[1]: 1}
    assert backward.qrels[images[1]] == {f"{images[1]}#{n}": 1 for n in range(5)}


def test_empty_captions_of_published_files_are_passed_over(root):
    """xFlickrCO has one in its Indonesian test file; without it the image has no query."""
    folder = layout.write_xflickrco(root / "xflickrco")
    first, *others = layout.of_split("test")
    layout.change("xflickrco/annotations/tr/test.jsonl", f'["tr {first}"]', '[" "]')(root)
    layout.write_tsv(root, "captions.tr.tsv")
    options = {"language": "tr", "captions": "captions.tr.tsv", "test_captions": "xflickrco"}
    with pytest.warns(UserWarning, match=r"1 empty captions are passed over: .*tr/test\.jsonl:1"):
        data = loaded(root, **options)
    assert set(data.collections["test"].queries) == {f"{image}#0" for image in others}
    layout.write_flickr30k_200(root / "flickr30k_200")
    path = folder.parent / "flickr30k_200" / "flickr30k-200" / "swh_Latn.txt"
    path.write_text("\n".join(["", *path.read_text().split("\n")[1:]]))
    with pytest.warns(UserWarning, match=r"1 empty captions are passed over: .*swh_Latn\.txt:1"):
        loaded(root, **options | {"test_captions": "flickr30k_200", "test_language": "swh_Latn"})


def test_a_bad_file_of_a_split_does_not_block_the_others(root):
    """Quechua's published test file has 999 lines for 1,000 images: its training captions are good."""
    layout.write_multi30k(root / "multi30k", "qu")
    layout.write_tsv(root, "captions.qu.tsv")
    images = layout.of_split("test")
    raw = root / "multi30k" / "data" / "task1" / "raw"
    layout.packed(raw / "test_2016_flickr.qu.gz", [f"qu {image}" for image in images[1:]])
    with pytest.raises(InputError, match=r"test_2016_flickr\.qu\.gz: has 3 lines, but its list of images has 4"):
        loaded(root, language="qu", captions="multi30k")
    data = loaded(root, language="qu", captions="multi30k", test_captions="captions.qu.tsv")
    assert len(data.pairs) == len(TRAIN)
    assert len(data.collections["test"].queries) == 5 * len(images)


def test_photographs_may_be_named_as_in_flickr8k(root):
    path = layout.write_tsv(root)
    path.write_text(path.read_text(encoding="utf-8").replace(".jpg#", "_693b08cb0e.jpg#"), encoding="utf-8")
    data = loaded(root, language="sw", captions="captions.sw.tsv")
    assert [image_of(pair.source) for pair in data.pairs[::5]] == TRAIN


def test_chinese_captions_without_numbers(root):
    folder = root / "flickr30k_cn"
    folder.mkdir()
    lines = [f"{image}\t图 {image} {n}" for image in layout.IMAGES for n in range(5)]
    (folder / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = loaded(root, language="zh", captions="flickr30k_cn", source="both")
    assert [pair.target for pair in data.pairs[:10:2]] == [f"图 {TRAIN[0]} {n}" for n in range(5)]
    assert data.pairs[3].source == f"{layout.english(TRAIN[0])[1]} ."


def test_the_split_may_be_that_of_lists(root):
    """As Flickr30k Entities publishes its own; what is in no list is left out."""
    layout.write_tsv(root)
    (root / "results_20130124.token").unlink()  # so nothing but the JSON file knows the images in no list
    first, second, *others = layout.IMAGES
    lists = {"train": [*others[4:], "99999999"], "val": others[:2], "test": [first, f"{second}.jpg"]}
    for name, images in lists.items():
        (root / f"{name}.txt").write_text("\n".join(images) + "\n")
    data = loaded(root, language="sw", captions="captions.sw.tsv", split_lists=".")
    assert set(data.collections["test"].documents) == {first, second}
    assert set(data.collections["dev"].documents) == set(others[:2])
    assert {image_of(pair.source) for pair in data.pairs} == set(others[4:])
    assert data.image_splits().train == set(others[4:])
    assert data.image_splits().evaluated == {first, second, *others[:2]}
    (root / "val.txt").write_text(f"{others[0]}\n{first}\n")
    with pytest.raises(InputError, match=rf"test\.txt:1: the image {first} is in val\.txt as well"):
        loaded(root, language="sw", captions="captions.sw.tsv", split_lists=".")
    (root / "val.txt").write_text("88888888\n")
    with pytest.raises(InputError, match=r"val\.txt: none of these images is in dataset_flickr30k\.json"):
        loaded(root, split_lists=".")
    with pytest.raises(InputError, match=r"elsewhere/train\.txt: no such file"):
        loaded(root, split_lists="elsewhere")


@pytest.mark.parametrize(("source", "expected"), [("image", 1), ("caption", 1), ("both", 2)])
def test_what_the_teacher_reads(root, source, expected):
    layout.write_tsv(root)
    data = loaded(root, language="sw", captions="captions.{language}.tsv", source=source)
    assert len(data.pairs) == 5 * expected * len(TRAIN)
    texts = [pair for pair in data.pairs if not is_image(pair.source)]
    assert (len(texts) == 0) == (source == "image")
    for pair, (name, n) in zip(texts, [(name, n) for name in TRAIN for n in range(5)], strict=False):
        assert (pair.source, pair.target) == (layout.english(name)[n] + " .", layout.swahili(name)[n])
    # Equal images are never negatives, whatever the teacher reads of them.
    assert len({pair.id for pair in data.pairs}) == len(TRAIN)


def test_image_level_noise_moves_the_five_captions_of_an_image_together(root, tmp_path):
    order = np.roll(np.arange(len(TRAIN)), 1)
    np.save(tmp_path / "noise.npy", order)
    pairs = loaded(root).pairs
    noisy = mismatch(pairs, TrainingNoise(level="image", index_file=str(tmp_path / "noise.npy")))
    found = [image_of(pair.source) for pair in noisy]
    assert found == [TRAIN[order[n]] for n in range(len(TRAIN)) for _ in range(5)]


@pytest.mark.parametrize("source", ["image", "caption", "both"])
def test_a_published_file_of_noise_fits_whatever_the_teacher_reads(root, tmp_path, source):
    layout.write_tsv(root)
    indices = np.arange(5 * len(TRAIN)) // 5
    indices[[0, 7, 20]] = indices[[7, 20, 0]]  # one caption of each of three images
    np.save(tmp_path / "f30k_precomp_0.2.npy", indices)
    noise = TrainingNoise(index_file=str(tmp_path / "f30k_precomp_0.2.npy"))
    data = loaded(root, language="sw", captions="captions.sw.tsv", source=source, noise=noise)
    assert data.noise_report.rates == {"mismatched": 3 / 45}
    assert (data.noise_report.captions, data.noise_report.pairs) == (45, 90 if source == "both" else 45)
    english = {f"{text} .": (name, n) for name in TRAIN for n, text in enumerate(layout.english(name))}
    for row, caption in enumerate(np.repeat(np.arange(45), 2) if source == "both" else range(45)):
        pair, image = data.pairs[row], TRAIN[indices[caption]]
        assert pair.target == layout.swahili(TRAIN[caption // 5])[caption % 5]
        assert pair.noisy is (caption in (0, 7, 20))
        if is_image(pair.source):
            assert image_of(pair.source) == image
        else:
            assert english[pair.source] == (image, caption % 5)


def test_multi30k(root):
    layout.write_multi30k(root / "multi30k")
    data = loaded(root, language="de", captions="multi30k", source="caption")
    assert [(pair.source, pair.target) for pair in data.pairs] == [
        (layout.english(name)[2], f"de {layout.english(name)[2]}") for name in TRAIN
    ]
    # One caption an image, so one English caption an image to compare with.
    test = layout.of_split("test")
    assert data.collections["english"].queries == {f"{name}#0": layout.english(name)[2] for name in test[::-1]}
    five = loaded(root, language="de", captions="multi30k_task2")
    assert [pair.target for pair in five.pairs[:6]] == [*(f"de{n} {TRAIN[0]}" for n in range(1, 6)), f"de1 {TRAIN[1]}"]


def test_flickr30k_cn_prefers_the_captions_of_people(root):
    layout.write_flickr30k_cn(root / "flickr30k_cn")
    data = loaded(root, language="zh", captions="flickr30k_cn", source="both")
    assert data.pairs[3].target == f"zhb 图 {TRAIN[0]} 1"
    assert data.pairs[3].source == layout.english(TRAIN[0])[1] + " ."
    assert all(text.startswith("zhm") for text in data.collections["test"].queries.values())
    assert len(data.collections["test"].queries) == 5 * 4


def test_flickr30k_cn_in_its_official_folders(root):
    layout.write_flickr30k_cn_official(root / "flickr30k_cn")
    data = loaded(root, language="zh", captions="flickr30k_cn")
    assert data.pairs[1].target == f"一个女孩在 {TRAIN[0]} 1"
    test = layout.of_split("test")
    assert data.collections["test"].queries[f"{test[1]}#2"] == f"一个女孩， {test[1]} 2"
    # The same file before it was cut into words comes first.
    name = "flickr30kzhmbosontest"
    whole = root / "flickr30k_cn" / name / "TextData" / f"{name}.caption.txt"
    whole.write_text("\n".join(f"{image}#zhm#0\t一个女孩" for image in test) + "\n", encoding="utf-8")
    data = loaded(root, language="zh", captions="flickr30k_cn")
    assert data.collections["test"].queries == {f"{image}#0": "一个女孩" for image in test[::-1]}


def test_flickr30k_cn_says_which_test_captions_are_by_people(root):
    path = layout.write_flickr30k_cn(root / "flickr30k_cn") / "flickr30kzhm-test.txt"
    image = layout.of_split("test")[0]
    path.write_text(path.read_text(encoding="utf-8").replace(f"{image}#zhm", f"{TRAIN[0]}#zhm"), encoding="utf-8")
    with pytest.warns(UserWarning, match="people translated the captions of 3 of the 4 test images, a machine"):
        data = loaded(root, language="zh", captions="flickr30k_cn")
    assert data.collections["test"].queries[f"{image}#0"].startswith("zhb")
    assert data.pairs[0].target.startswith("zhm")


@pytest.mark.parametrize("source", ["captions.sw.tsv", "flickr30k_cn"])
def test_captions_of_images_outside_the_split_are_passed_over(root, source):
    """Flickr30k has 769 images more than the split of Karpathy, and files of captions have them too."""
    layout.write_tsv(root)
    layout.write_flickr30k_cn(root / "flickr30k_cn")
    language = "zh" if source == "flickr30k_cn" else "sw"
    before = loaded(root, language=language, captions=source).pairs
    files = {"captions.sw.tsv": root / source, "flickr30k_cn": root / source / "flickr30kzhb-train.txt"}
    with files[source].open("a", encoding="utf-8") as file:
        file.write({"sw": "42.jpg#0\tpicha\n", "zh": "42#zhb#0 图\n"}[language])
    line = len(files[source].read_text(encoding="utf-8").splitlines())
    with pytest.raises(
        InputError, match=rf":{line}: a caption for an unknown image '42.*dataset_flickr30k.json has none"
    ):
        loaded(root, language=language, captions=source)
    with (root / TOKENS).open("a") as file:
        file.write("42.jpg#0\ta picture\n")
    assert loaded(root, language=language, captions=source).pairs == before
    with files[source].open("a", encoding="utf-8") as file:
        file.write({"sw": "43.jpg#0\tpicha\n", "zh": "43#zhb#0 图\n"}[language])
    with pytest.raises(InputError, match=r"json and results_20130124\.token have none"):
        loaded(root, language=language, captions=source)


def test_translated_training_captions_and_test_captions_by_people(root):
    layout.write_tsv(root, "mt.tr.tsv")
    layout.write_xflickrco(root / "xflickrco")
    data = loaded(root, language="tr", captions="mt.{language}.tsv", test_captions="xflickrco")
    assert len(data.pairs) == 5 * len(TRAIN)
    test = layout.of_split("test")
    assert data.collections["test"].queries == {f"{name}#0": f"tr {name}" for name in test[::-1]}
    assert len(data.collections["dev"].queries) == 15


def test_flickr30k_200_is_aligned_with_its_file_names(root):
    layout.write_tsv(root)
    layout.write_flickr30k_200(root / "flickr30k_200")
    data = loaded(
        root, language="sw", captions="captions.sw.tsv", test_captions="flickr30k_200", test_language="swh_Latn"
    )
    for code, name in (("swh_Latn", "test"), ("eng_Latn", "english")):
        expected = {f"{image}#0": f"{code} {layout.english(image)[0]}" for image in layout.of_split("test")}
        assert dict(data.collections[name].queries) == expected


def lines_fewer(path: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        lines = [text for _, text in numbered_lines(root / path)]
        layout.packed(root / path, lines[:-1])

    return spoil


JSON, TOKENS, TSV, DE = "dataset_flickr30k.json", "results_20130124.token", "captions.sw.tsv", "multi30k/data/task1"
EN = {"language": "en", "captions": "english"}
SPOILED = {
    "no split": (lambda root: (root / JSON).unlink(), EN, JSON, "no such file"),
    "JSON cut off": (
        lambda root: (root / JSON).write_text((root / JSON).read_text()[:300]),
        EN,
        f"{JSON}:1",
        "invalid JSON",
    ),
    "JSON list": (lambda root: (root / JSON).write_text("[]"), EN, JSON, "no list of images"),
    "unknown split": (
        layout.change(JSON, '"split": "val"', '"split": "dev"'),
        EN,
        JSON,
        "'dev', expected one of train",
    ),
    "no split test": (
        lambda root: (root / JSON).write_text((root / JSON).read_text().replace('"test"', '"val"')),
        EN,
        JSON,
        "no image of the split 'test'",
    ),
    "image twice": (layout.change(JSON, "1000.jpg", "1007.jpg"), EN, JSON, "1007.jpg appears twice"),
    "no sentences": (layout.change(JSON, '"sentences"', '"sentence"'), EN, JSON, "image 0 lacks"),
    "no images": (
        lambda root: (root / "flickr30k-images").rename(root / "photos"),
        EN,
        "flickr30k",
        "no folder of images",
    ),
    "image missing": (
        lambda root: (root / "flickr30k-images" / "1000.jpg").unlink(),
        EN,
        "flickr30k-images",
        "there is no 1000.jpg (1 of 9",
    ),
    "token": (layout.change(TOKENS, "1000.jpg#1\t", "1000.jpg 1\t"), EN, f"{TOKENS}:2", "1000.jpg 1"),
    "token without tab": (layout.change(TOKENS, "1000.jpg#1\t", "1000.jpg#1 "), EN, f"{TOKENS}:2", "expected"),
    "token twice": (layout.change(TOKENS, "1000.jpg#1", "1000.jpg#0"), EN, f"{TOKENS}:2", "twice"),
    "token empty": (layout.change(TOKENS, "red above red .", " "), EN, f"{TOKENS}:2", "expected"),
    "token lacks": (lambda root: (root / TOKENS).write_text("1000.jpg#0\ta\n"), EN, TOKENS, "no caption for"),
    "TSV unknown": (layout.change(TSV, "1007.jpg#0", "99.jpg#0"), {}, f"{TSV}:6", "unknown image '99.jpg'"),
    "TSV number": (layout.change(TSV, "1007.jpg#0", "1007.jpg#a"), {}, f"{TSV}:6", "1007.jpg#a"),
    "TSV twice": (layout.change(TSV, "1007.jpg#1", "1007.jpg#0"), {}, f"{TSV}:7", "appears twice"),
    "TSV columns": (layout.change(TSV, "1007.jpg#1\t", "1007.jpg#1\ta\t"), {}, f"{TSV}:7", "expected"),
    "no TSV": (lambda root: (root / TSV).unlink(), {}, TSV, "no such file"),
    "no val": (lambda root: (root / TSV).write_text("1000\tnyekundu\n"), {}, "", "set data.dev_captions to a source"),
    "lines": (
        lines_fewer(f"{DE}/raw/val.de.gz"),
        {"language": "de", "captions": "multi30k"},
        "val.de.gz",
        "has 2 lines, but its list of images has 3",
    ),
    "list twice": (
        layout.change(f"{DE}/image_splits/val.txt", "1070", "1063"),
        {"language": "de", "captions": "multi30k"},
        "val.txt:2",
        "already on line 1",
    ),
    "list unknown": (
        layout.change(f"{DE}/image_splits/val.txt", "1070", "55"),
        {"language": "de", "captions": "multi30k"},
        "val.de.gz:2",
        "unknown image '55.jpg'",
    ),
    "other language": (
        lambda root: None,
        {"language": "fr", "captions": "multi30k"},
        "raw",
        "no file {train,val,test_2016_flickr}.fr.gz",
    ),
    "not packed": (
        lambda root: (root / DE / "raw/val.de.gz").write_bytes(b"plain"),
        {"language": "de", "captions": "multi30k"},
        "val.de.gz",
        "damaged",
    ),
    "no folder": (lambda root: None, {"language": "zh", "captions": "flickr30k_cn"}, "flickr30k_cn", "no such folder"),
    "xflickrco": (
        layout.change("xflickrco/annotations/tr/test.jsonl", '"id"', '"image"'),
        {"language": "tr", "captions": "captions.sw.tsv", "test_captions": "xflickrco"},
        "test.jsonl:1",
        "sentences",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_errors_name_file_and_line(root, name, monkeypatch, tmp_path):
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    layout.write_tsv(root)
    layout.write_multi30k(root / "multi30k")
    layout.write_xflickrco(root / "xflickrco")
    spoil, options, place, message = SPOILED[name]
    spoil(root)
    with pytest.raises(InputError) as caught:
        loaded(root, **({"language": "sw", "captions": TSV} | options))
    assert message in str(caught.value)
    assert f"{place}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "sw"}, "captions are english, but the language is sw"),
        ({"captions": "multi31k"}, "expected one of english, multi30k"),
        ({"source": "text"}, "source is 'text'"),
    ],
)
def test_wrong_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        Flickr30kDataModule(str(root), **options)


def test_every_reader_is_documented():
    from datamodules.flickr30k import captions as flickr30k_captions

    assert {line.split()[0] for line in flickr30k_captions.__doc__.splitlines() if line.strip()} > set(READERS)


def test_an_untranslated_line_pairs_with_the_english_caption_in_its_place(root):
    image = TRAIN[0]
    (root / "own.tsv").write_text(f"{image}\tmoja\n{image}\tmbili\n")
    found = read_captions("own.tsv", root, "sw", read_flickr(root))
    assert [(each.text, each.english) for each in found[image]] == [
        ("moja", layout.english(image)[0] + " ."), ("mbili", layout.english(image)[1] + " .")]  # fmt: skip


def test_in_several_languages_an_image_has_one_id(root):
    layout.write_tsv(root)
    layout.write_tsv(root, "captions.so.tsv")
    path = root / "captions.so.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("jekundu", "guduudan"), encoding="utf-8")
    parts = {
        language: Flickr30kDataModule(str(root), language=language, captions="captions.{language}.tsv", source=source)
        for language, source in (("sw", "both"), ("so", "caption"))
    }
    data = MixtureDataModule(parts)
    data.setup("test")
    assert set(data.collections) == {f"{split}/{name}" for split in ("dev", "test", "english") for name in parts}
    ids = [pair.id for pair in data.pairs]
    assert len(ids) == 3 * 5 * len(TRAIN)
    assert len(set(ids)) == len(TRAIN)


def words(tiny_unigram: str, root: Path, output: Path, *options: str) -> list[str]:
    """A command line for a short run in Swahili, taught by colours."""
    output.mkdir()
    config = {
        "model": {
            "teacher": {"class_path": "tests.datamodules.flickr30k.flickr30k_layout.ColourTeacher"},
            "student": {
                "class_path": "lightning_modules.students.transformer.TransformerEncoder",
                "init_args": {"model": tiny_unigram, "max_length": 32, "vocabulary": "trim"},
            },
            "lr": 0.003,
            "warmup_steps": 2,
        },
        "trainer": {"accelerator": "cpu"},
        "evaluation": {"metrics": ["rsum", "success@1", "success@5", "success@10", "median_rank"]},
    }
    (output / "tiny.yaml").write_text(json.dumps(config))
    layout.write_tsv(root)
    data = ["--data", "flickr30k", "--data.root", root, "--data.language", "sw", "--data.captions", "captions.sw.tsv"]
    return [
        *map(str, ["--config", output / "tiny.yaml", *data, "--output", output, "--name", "run"]),
        *("--logger", "csv", "--strategy", "mse", *options),
    ]


@pytest.mark.slow
def test_two_processes_score_what_one_does(process, script, tiny_unigram, root, tmp_path):
    options = ["--trainer.devices", "2", "--trainer.max_epochs", "1", "--data.batch_size", "8"]
    done = process("train.py", *words(tiny_unigram, root, tmp_path / "runs", *options))
    assert done.status == 0, done.err
    again = script("evaluate.py", tmp_path / "runs" / "run", "--trust", "--json", tmp_path / "again.json")
    assert again.status == 0, again.err
    means = json.loads((tmp_path / "runs" / "run" / "metrics.json").read_text())
    assert {row: each["means"] for row, each in json.loads((tmp_path / "again.json").read_text()).items()} == means


@pytest.mark.slow
def test_a_run_ends_with_both_directions_in_every_result(script, tiny_unigram, root, tmp_path):
    output = tmp_path / "runs"
    options = ["--trainer.max_epochs", "12", "--data.batch_size", "16"]
    done = script("train.py", *words(tiny_unigram, root, output, *options))
    assert done.status == 0, done.err
    means = json.loads((output / "run" / "metrics.json").read_text())
    test = means["test"]
    parts = [test[f"{view}/success@{k}"] for view in ("text_to_image", "image_to_text") for k in (1, 5, 10)]
    assert test["rsum"] == pytest.approx(100 * sum(parts))
    assert test["rsum"] > means["undistilled"]["rsum"]
    assert means["teacher"]["rsum"] == pytest.approx(600)
    assert means["teacher"]["text_to_image/median_rank"] == 1
    for line in ("text_to_image", "image_to_text", "median_rank"):
        assert line in done.out
    folder = output / "run"
    names = {path.name for path in folder.iterdir()}
    history = next((folder / "csv").glob("*/metrics.csv")).read_text()
    assert "dev/image_to_text/median_rank" in history
    assert "dev/rsum" in history
    assert {"test.text_to_image.pooled.run", "test.image_to_text.qrels", "results.png", "curves.png"} <= names
    again = script("evaluate.py", folder, "--trust", "--json", tmp_path / "again.json")
    assert again.status == 0, again.err
    assert json.loads((tmp_path / "again.json").read_text())["test"]["means"] == test
    run, qrels = folder / "test.image_to_text.pooled.run", folder / "test.image_to_text.qrels"
    trec = script(
        "evaluate.py", "--run", run, "--qrels", qrels, "--metrics", "success@1", "--json", tmp_path / "trec.json"
    )
    assert trec.status == 0, trec.err
    same = json.loads((tmp_path / "trec.json").read_text())["test"]["means"]["success@1"]
    assert same == test["image_to_text/success@1"]
