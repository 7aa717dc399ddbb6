"""Flickr30k Entities as pairs and collections, its measures, and the two splits that must not be mixed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from datamodules.flickr30k.datamodule import Flickr30kDataModule
from datamodules.flickr30k.splits import keep_apart
from datamodules.flickr30k_entities.datamodule import Flickr30kEntitiesDataModule
from datamodules.images import ImageReference, is_image
from datamodules.mixture import MixtureDataModule
from datamodules.pairs import Pair
from foundations.errors import InputError
from lightning_modules.commands.evaluate import refuse_trained_images
from lightning_modules.evaluation.encoding import EncodedTexts
from lightning_modules.evaluation.ranking import rank
from tests.datamodules.flickr30k_entities.entities_layout import annotation, write_folder

METRICS = ["success@1", "success@5", "success@10", "upper_bound"]
SWAHILI = {
    "A man": "mtu", "a dog": "mbwa", "A red man": "mtu mwekundu", "two green hats": "kofia mbili", "Hats": "kofia",
    "a blue dog": "mbwa wa buluu",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "entities")


def loaded(folder: Path, **options) -> Flickr30kEntitiesDataModule:
    data = Flickr30kEntitiesDataModule(str(folder), batch_size=2, **options)
    data.setup("fit")
    return data


def write_swahili(folder: Path, texts: dict[str, str] = SWAHILI) -> None:
    lines = "".join(f"{english}\t{swahili}\n" for english, swahili in texts.items())
    (folder / "phrases.sw.tsv").write_text(lines)


def test_pairs_of_regions_and_phrases(folder: Path) -> None:
    pairs = loaded(folder).pairs
    of_image = [pair for pair in pairs if "/102.jpg" in pair.source]
    # Six phrases of five texts have a box; the sun and "It" have none.
    assert [pair.target for pair in of_image] == [
        "A man", "a dog", "A red man", "two green hats", "a blue dog", "Hats"
    ]  # fmt: skip
    boxes = [ImageReference.parse(pair.source).box for pair in of_image]
    assert boxes == [
        (1, 10, 20, 40),
        (31, 10, 50, 40),
        (1, 10, 20, 40),
        (1, 0, 60, 40),
        (31, 10, 50, 40),
        (1, 0, 60, 40),
    ]
    ids = [pair.id for pair in of_image]
    assert ids[0] == ids[2] != ids[1] == ids[4] != ids[3] == ids[5]
    assert len({pair.id for pair in pairs}) == 9
    # The fourth caption of the first image is in UNRELATED_CAPTIONS.
    assert [pair.target for pair in pairs if "/101.jpg" in pair.source].count("Hats") == 0
    kept = loaded(folder, keep_unrelated=True).pairs
    assert len(kept) == len(pairs) + 1 == 18


def test_pairs_of_phrases_and_both(folder: Path) -> None:
    write_swahili(folder)
    phrases = loaded(folder, language="sw", source="caption").pairs
    assert sorted((pair.source, pair.target) for pair in phrases) == sorted(SWAHILI.items())
    assert len({pair.id for pair in phrases}) == 6
    both = loaded(folder, language="sw", source="both").pairs
    assert sum(is_image(pair.source) for pair in both) == 17
    assert len(both) == 17 + 6
    of_images = {pair.id for pair in both if is_image(pair.source)}
    assert not of_images & {pair.id for pair in both if not is_image(pair.source)}


def test_pairs_of_captions(folder: Path) -> None:
    pairs = loaded(folder, pairs="captions", source="both", keep_unrelated=True).pairs
    of_image = [pair for pair in pairs if "/103.jpg" in pair.source]
    assert len(of_image) == 5
    assert of_image[0].target == "A man waits with a dog in the sun ."
    assert len({pair.id for pair in of_image}) == 1
    assert len({pair.id for pair in pairs if is_image(pair.source)}) == 3
    (folder / "captions.tsv").write_text("102#3\tKofia .\n102.jpg#4\tHakuna .\nA man\tmtu\n")
    pairs = loaded(folder, language="sw", translations="captions.tsv", pairs="captions").pairs
    assert [(Path(ImageReference.parse(pair.source).path).stem, pair.target) for pair in pairs] == [
        ("102", "Kofia ."),
        ("102", "Hakuna ."),
    ]


def test_collections(folder: Path) -> None:
    write_swahili(folder)
    collections = loaded(folder, language="sw").collections
    assert list(collections) == ["dev", "test", "english"]
    test = collections["test"]
    assert test.queries["301#1#0"] == "mtu mwekundu"
    assert collections["english"].queries["301#1#0"] == "A red man"
    assert collections["english"].query_side == "teacher"
    assert "301#0#2" not in test.queries  # the sun
    assert len(test.queries) == 12
    assert len(test.documents) == 2 * 5  # four boxes, and the one around the two hats
    by_name = {view.name: view for view in test.views}
    assert by_name["any_box"].qrels["301#1#1"] == {"301@0,0,10,10": 1, "301@51,30,60,40": 1}
    assert by_name["merged_box"].qrels["301#1#1"] == {"301@0,0,60,40": 1}
    assert by_name["any_box"].groups["301#1#0"] == ("people", "clothing")
    assert set(by_name["merged_box"].candidates["301#0#0"]) == {"301@0,10,20,40", "301@30,10,50,40", "301@0,0,60,40"}
    assert by_name["regions"].candidates is None


def naive_boxes(folder: Path, image: str) -> dict[str, list[tuple[int, ...]]]:
    found: dict[str, list[tuple[int, ...]]] = {}
    for element in ET.parse(folder / "Annotations" / f"{image}.xml").getroot().findall("object"):
        for box in element.findall("bndbox"):
            left, top, right, bottom = (int(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax"))
            for name in element.findall("name"):
                found.setdefault(name.text, []).append((left - 1, top - 1, right, bottom))
    return found


def naive_iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("proposals", ["gt", "boxes.tsv"])
def test_measures_equal_a_loop_over_phrases(folder: Path, proposals: str) -> None:
    generator = np.random.default_rng(0)
    offered: dict[str, list[tuple[int, ...]]] = {}
    for image in ("201", "301", "302"):
        near = [box for boxes in naive_boxes(folder, image).values() for box in boxes]
        moved = np.array(near * 2) + generator.integers(-9, 10, (len(near) * 2, 4))
        moved = moved.clip(0, (57, 37, 60, 40))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        offered[image] = [tuple(box) for box in moved.tolist()]
    lines = [f"{image}\t" + "\t".join(map(str, box)) for image, boxes in offered.items() for box in boxes]
    (folder / "boxes.tsv").write_text("\n".join(lines) + "\n")
    collection = loaded(folder, proposals=proposals).collections["test"]
    ids = {"queries": sorted(collection.queries), "documents": sorted(collection.documents)}
    vectors = {
        side: torch.randn(len(names), 8, generator=torch.Generator().manual_seed(1)) for side, names in ids.items()
    }
    sides = {side: EncodedTexts(ids[side], torch.nn.functional.normalize(vectors[side]), None) for side in ids}
    result = rank(sides["queries"], sides["documents"], collection, METRICS, "pooled", 100)

    scores = (sides["queries"].pooled @ sides["documents"].pooled.T).tolist()
    hits: dict[str, list[float]] = {}
    for row, query in enumerate(ids["queries"]):
        image, caption, place = query.split("#")
        line = (folder / "Sentences" / f"{image}.txt").read_text().split("\n")[int(caption)]
        mark = line.split("[/EN#")[int(place) + 1].split(" ")[0].split("/")
        boxes = naive_boxes(folder, image)
        around = {
            chain: (min(b[0] for b in own), min(b[1] for b in own), max(b[2] for b in own), max(b[3] for b in own))
            for chain, own in boxes.items()
        }
        every = [box for own in boxes.values() for box in own]
        views = {
            "any_box": (boxes[mark[0]], every if proposals == "gt" else offered[image]),
            "merged_box": ([around[mark[0]]], list(around.values()) if proposals == "gt" else offered[image]),
        }
        right = set()
        for view, (targets, candidates) in views.items():
            names = {f"{image}@" + ",".join(map(str, box)): box for box in candidates}
            good = {name for name, box in names.items() if any(naive_iou(box, target) >= 0.5 for target in targets)}
            right |= good
            order = sorted(names, key=lambda name: -scores[row][ids["documents"].index(name)])
            for prefix in (f"{view}/", *(f"{view}/{kind}/" for kind in mark[1:])):
                hits.setdefault(f"{prefix}upper_bound", []).append(bool(good))
                for k in (1, 5, 10):
                    hits.setdefault(f"{prefix}success@{k}", []).append(bool(good & set(order[:k])))
        order = sorted(ids["documents"], key=lambda name: -scores[row][ids["documents"].index(name)])
        for prefix in ("regions/", *(f"regions/{kind}/" for kind in mark[1:])):
            for k in (1, 5, 10):
                hits.setdefault(f"{prefix}success@{k}", []).append(bool(right & set(order[:k])))
    assert result.means == {name: pytest.approx(np.mean(values)) for name, values in hits.items()}
    assert len(result.per_query["any_box/clothing/success@1"]) == 6  # two types: "A red man" counts in both
    assert result.means["any_box/upper_bound"] == 1 if proposals == "gt" else result.means["any_box/upper_bound"] < 1


def test_half_is_enough(folder: Path) -> None:
    # The dog of 201 is at 33 10 50 40 (its left side moved by 3): 17 x 30 pixels. Half of it, and a row less.
    half, less = "201 33 10 50 25", "201 33 10 50 24"
    others = "301 30 10 50 40\n302 30 10 50 40\n"
    (folder / "boxes.tsv").write_text(f"{half}\n{less}\n{others}")
    view = loaded(folder, proposals="boxes.tsv").collections["dev"].views[0]
    assert view.qrels["201#0#1"] == {"201@33,10,50,25": 1}


def test_phrases_without_translation_are_left_out_with_a_word(folder: Path) -> None:
    write_swahili(folder, {"A man": "mtu", "301#0#1": "mbwa"})
    with pytest.warns(UserWarning, match="9 of 12 phrases of test have no translation"):
        data = loaded(folder, language="sw")
    assert data.collections["test"].queries == {"301#0#0": "mtu", "301#0#1": "mbwa", "302#0#0": "mtu"}
    assert data.collections["english"].queries.keys() == data.collections["test"].queries.keys()
    assert {pair.target for pair in data.pairs} == {"mtu"}
    write_swahili(folder, {"A man": "mtu", "102#0#0": "mwanaume"})
    with pytest.warns(UserWarning, match="phrases of dev"):
        targets = sorted(pair.target for pair in loaded(folder, language="sw").pairs)
    assert targets == ["mtu", "mtu", "mwanaume"]
    write_swahili(folder, {"a cat": "paka", "102#0#0": "mwanaume"})
    with pytest.raises(InputError, match="6 of 6 phrases of dev have no translation; expected lines such as 201#0#0"):
        loaded(folder, language="sw")
    with pytest.raises(InputError, match=r"phrases\.so\.tsv: no such file"):
        loaded(folder, language="so")


def karpathy(folder: Path, train: list[str]) -> str:
    splits = dict.fromkeys(train, "train") | {"101": "test", "302": "val"}
    images = [
        {"filename": f"{name}.jpg", "split": split, "sentences": [{"raw": "A man."}]} for name, split in splits.items()
    ]
    path = folder / "dataset_flickr30k.json"
    path.write_text(json.dumps({"images": images}))
    return str(path)


def test_the_other_split_is_refused_unless_its_overlap_is_removed(folder: Path) -> None:
    file = karpathy(folder, ["102", "103", "301", "201"])
    with pytest.raises(InputError, match=r"2 of the 3 dev and test images .* such as 201: set remove_overlap"):
        loaded(folder, karpathy=file)
    pairs = loaded(folder, karpathy=file, remove_overlap=True).pairs
    assert {Path(ImageReference.parse(pair.source).path).stem for pair in pairs} == {"102", "103"}
    assert len(loaded(folder, karpathy=karpathy(folder, ["102"])).pairs) == 6
    Path(file).write_text("{")
    with pytest.raises(InputError, match=r"dataset_flickr30k\.json:1: invalid JSON"):
        loaded(folder, karpathy=file)


def test_a_mixture_keeps_the_images_of_its_parts_apart(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one")
    other = write_folder(tmp_path / "other", {"train": ["301", "102"], "val": ["103"], "test": ["101"]})

    def mixture(**options) -> MixtureDataModule:
        parts = {
            "one": Flickr30kEntitiesDataModule(str(one), **options),
            "other": Flickr30kEntitiesDataModule(str(other), source="caption", **options),
        }
        return MixtureDataModule(parts, batch_size=2)

    with pytest.raises(InputError, match="2 of the 2 dev and test images of other are training images of one"):
        mixture().setup("fit")
    data = mixture(remove_overlap=True)
    data.setup("fit")
    images = {Path(ImageReference.parse(pair.source).path).stem for pair in data.pairs.parts["one"]}
    assert images == {"102"}
    assert keep_apart(data.parts)["other"].excluded_images == {"301"}
    assert not data.parts["other"].excluded_images
    same = {"sw": Flickr30kEntitiesDataModule(str(one)), "so": Flickr30kEntitiesDataModule(str(one), source="both")}
    MixtureDataModule(same, batch_size=2).setup("fit")  # one split: nothing to remove


def test_captions_of_the_other_split_beside_phrases(folder: Path) -> None:
    karpathy(folder, ["102", "103", "301"])

    def mixture(**options) -> MixtureDataModule:
        parts = {
            "captions": Flickr30kDataModule(str(folder), source="both", remove_leaks=False, **options),
            "phrases": Flickr30kEntitiesDataModule(str(folder), remove_overlap=True),
        }
        return MixtureDataModule(parts, batch_size=2, remove_leaks=False)

    with pytest.raises(InputError, match="1 of the 3 dev and test images of phrases are training images of captions"):
        mixture().setup("fit")
    data = mixture(remove_overlap=True)
    data.setup("fit")
    images = {part: {Path(name).stem for name in sources(own)} for part, own in data.pairs.parts.items()}
    assert images == {"captions": {"102", "103"}, "phrases": {"102", "103"}}  # 101 is tested on by captions
    of_captions = [pair for pair in data.pairs if pair.target == "A man."]
    assert len(of_captions) == 4
    assert len({pair.id for pair in of_captions}) == 2  # image and English caption are one source


def sources(pairs: list[Pair]) -> set[str]:
    return {ImageReference.parse(pair.source).path for pair in pairs if is_image(pair.source)}


def test_wrong_options_and_folders(folder: Path) -> None:
    with pytest.raises(ValueError, match="source is 'images', expected one of image, caption, both"):
        loaded(folder, source="images")
    with pytest.raises(InputError, match="no such folder, expected one with Sentences"):
        loaded(folder / "nowhere")
    with pytest.raises(InputError, match="no folder of images there, expected pictures"):
        loaded(folder, images="pictures")
    (folder / "flickr30k-images" / "301.jpg").unlink()
    with pytest.raises(InputError, match=r"there is no 301\.jpg \(1 of 2 images missing\)"):
        loaded(folder)


@pytest.fixture
def config(tmp_path: Path, tiny_unigram: str) -> Path:
    path = tmp_path / "entities.yaml"
    path.write_text(
        f"""\
model:
  teacher: {{class_path: tests.datamodules.colour_teacher.ColourTeacher}}
  student:
    class_path: lightning_modules.students.static.StaticEncoder
    init_args: {{model: {tiny_unigram}, max_length: 16}}
  lr: 0.03
  embedding_lr: 0.03
  warmup_steps: 1
trainer: {{max_epochs: 8, accelerator: cpu}}
evaluation: {{metrics: [success@1, success@5, success@10, upper_bound]}}
""",
        encoding="utf-8",
    )
    return path


@pytest.mark.slow
def test_train_and_evaluate(folder: Path, config: Path, script, tmp_path: Path) -> None:
    write_swahili(folder)
    common = ["--config", config, "--data", "flickr30k_entities", "--data.root", folder, "--data.language", "sw"]
    done = script(
        "train.py", *common, "--strategy", "mse", "--data.batch_size", "6", "--output", tmp_path, "--name", "run",
        "--logger", "csv",
    )  # fmt: skip
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["teacher"]["any_box/success@1"] == 1  # colours tell these phrases apart
    assert metrics["test"]["any_box/success@1"] > metrics["undistilled"]["any_box/success@1"]
    assert metrics["test"]["any_box/animals/success@1"] == 1
    assert metrics["test"]["merged_box/upper_bound"] == 1
    per_query = json.loads((tmp_path / "run" / "per_query.json").read_text())["test"]
    assert len(per_query["any_box/success@1"]) == 12
    done = script("evaluate.py", tmp_path / "run", "--trust", "--json", tmp_path / "again.json")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "again.json").read_text())["test"]["means"] == metrics["test"]


def test_wrong_files_end_with_one_line(folder: Path, config: Path, script, tmp_path: Path) -> None:
    common = ["--config", config, "--data", "flickr30k_entities", "--data.root", folder, "--strategy", "mse"]
    common += ["--output", tmp_path / "runs", "--logger", "none", "--data.batch_size", "6"]
    file = folder / "Annotations" / "302.xml"
    good = file.read_text()
    picture = folder / "flickr30k-images" / "102.jpg"
    whole = picture.read_bytes()
    for content, message in (
        (good[:200], f"{file}:"),
        (annotation({"1": [(1, 1, 61, 40)]}, ["2", "3", "4"]), f"{file}:3: the box 1 1 61 40"),
        (annotation({"1": [(1, 1, 6, 4)]}, ["2", "4"]), "302.txt:2: the phrase 'two green hats' is of chain 3"),
    ):
        file.write_text(content)
        done = script("train.py", *common)
        assert done.status == 2
        assert message in done.err
        assert "Traceback" not in done.err
        assert not (tmp_path / "runs").exists()
    file.write_text(good)
    picture.write_bytes(whole[:300])
    done = script("train.py", *common)
    assert (done.status, "102.jpg: is no image, or is damaged" in done.err) == (2, True)


@pytest.mark.slow
def test_a_student_of_captions_is_evaluated_on_phrases(folder: Path, config: Path, script, tmp_path: Path) -> None:
    karpathy(folder, ["101", "102", "103"])
    file = folder / "dataset_flickr30k.json"
    file.write_text(file.read_text().replace('"101.jpg", "split": "test"', '"101.jpg", "split": "train"'))
    file.write_text(file.read_text().replace('"103.jpg", "split": "train"', '"103.jpg", "split": "test"'))
    common = ["--config", config, "--data", "flickr30k", "--data.root", folder, "--strategy", "mse", "--logger", "none"]
    common += ["--data.remove_leaks", "false"]
    done = script(
        "train.py", *common, "--data.batch_size", "2", "--output", tmp_path, "--name", "run",
        "--trainer.max_epochs", "1", "--evaluation.metrics", "[success@1, rsum]",
    )  # fmt: skip
    assert done.status == 0, done.err
    words = ["evaluate.py", tmp_path / "run", "--trust", "--data", "flickr30k_entities", "--data.root", folder]
    words += ["--metrics", "success@1", "upper_bound", "--json", tmp_path / "scores.json"]
    done = script(*words)
    assert (done.status, done.err) == (0, "")
    means = json.loads((tmp_path / "scores.json").read_text())["test"]["means"]
    assert means["any_box/upper_bound"] == 1
    (folder / "test.txt").write_text("102\n301\n")
    (folder / "train.txt").write_text("103\n")
    done = script(*words)
    assert done.status == 2
    assert "1 of the 3 dev and test images of these data are training images of this run, such as 102" in done.err


def test_options_of_other_data_need_a_name(script) -> None:
    done = script("evaluate.py", "runs/x", "--data.root", "y")
    assert (done.status, "--data NAME" in done.err) == (2, True)
    done = script("evaluate.py", "runs/x", "--data", "flickr")
    assert (done.status, "did you mean 'flickr30k'" in done.err) == (2, True)


def test_what_a_run_was_trained_on_is_read_from_its_configuration(folder: Path, tmp_path: Path) -> None:
    file = karpathy(folder, ["102", "103", "301"])
    path = "datamodules.flickr30k_entities.datamodule.Flickr30kEntitiesDataModule"
    own = {"root": str(folder), "karpathy": file, "remove_overlap": True, "language": "sw,so", "batch_size": 2}
    captions = {
        "class_path": "datamodules.flickr30k.datamodule.Flickr30kDataModule",
        "init_args": {"root": str(folder)},
    }
    tested = Flickr30kEntitiesDataModule(str(folder))
    config = tmp_path / "config.yaml"

    def refuse(data: dict) -> None:
        config.write_text(yaml.safe_dump({"data": data}))
        refuse_trained_images(config.parent, tested)

    refuse({"class_path": path, "init_args": own})  # 301 was left out
    refuse({"class_path": "datamodules.tsv.TSVDataModule", "init_args": {"root": "nowhere"}})
    with pytest.raises(InputError, match=r"1 of the 3 dev and test images .* such as 301"):
        refuse(captions)
    captions["init_args"]["remove_overlap"] = True
    with pytest.raises(InputError, match="such as 301"):
        refuse(captions)  # nothing was mixed in that could have been removed
    parts = {"a": captions, "b": {"class_path": path, "init_args": own}}
    refuse({"class_path": "datamodules.mixture.MixtureDataModule", "init_args": {"parts": parts}})
