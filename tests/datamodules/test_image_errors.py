"""Wrong files of pictures and captions, through train.py: one line with the file, exit status 2, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.datamodules.flickr30k import flickr30k_layout
from tests.datamodules.flickr30k.flickr30k_layout import change
from tests.datamodules.flickr30k_entities import entities_layout
from tests.lightning_modules.teachers.test_open_clip_teacher import save

FLICKR = ["--data", "flickr30k", "--data.language", "sw", "--data.captions", "captions.sw.tsv"]
ENTITIES = ["--data", "flickr30k_entities"]
TRAIN, TEST = (flickr30k_layout.of_split(split)[1] for split in ("train", "test"))


def cut(path: str, size: int) -> Callable[[Path], None]:
    """Keep the first bytes of a file."""
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:size]) and None


def drop(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def shrink(path: str) -> Callable[[Path], None]:
    """Put a smaller picture there, in which the boxes are not."""
    return lambda root: Image.new("RGB", (30, 20)).save(root / path)


PICTURE, XML = "flickr30k-images/102.jpg", "Annotations/102.xml"
DAMAGED = ": is no image, or is damaged"
SPOILED = {
    "corrupt training image": (FLICKR, cut(f"flickr30k-images/{TRAIN}.jpg", 200), f"{TRAIN}.jpg{DAMAGED}"),
    "corrupt test image": (FLICKR, cut(f"flickr30k-images/{TEST}.jpg", 200), f"{TEST}.jpg{DAMAGED}"),
    "empty image": (FLICKR, cut(f"flickr30k-images/{TEST}.jpg", 0), f"{TEST}.jpg{DAMAGED}"),
    "missing image": (FLICKR, drop(f"flickr30k-images/{TRAIN}.jpg"), f"there is no {TRAIN}.jpg (1 of 9 images"),
    "missing split": (FLICKR, drop("dataset_flickr30k.json"), "dataset_flickr30k.json: no such file"),
    "missing captions": (FLICKR, drop("captions.sw.tsv"), "captions.sw.tsv: no such file"),
    "unknown image": (FLICKR, change("captions.sw.tsv", "1007.jpg#0", "99.jpg#0"), "sw.tsv:6: a caption for an un"),
    "teacher of texts": ([*FLICKR, "--teacher", "starter/minilm"], lambda _: None, "the teacher reads texts only"),
    "corrupt image of a region": (ENTITIES, cut(PICTURE, 200), f"102.jpg{DAMAGED}"),
    "missing image of a region": (ENTITIES, drop(PICTURE), "there is no 102.jpg"),
    "box outside its image": (ENTITIES, change(XML, "<xmax>50", "<xmax>61"), "102.xml:7: the box 32 11 61 40 of chain"),
    "box outside the picture": (ENTITIES, shrink(PICTURE), "102.jpg: the box (31, 10, 50, 40) is not inside"),
    "truncated XML": (ENTITIES, cut(XML, 300), "102.xml:10: is no XML, or is cut off"),
    "missing XML": (ENTITIES, drop(XML), "102.xml: no such file"),
    "open phrase": (ENTITIES, change("Sentences/102.txt", "a dog]", "a dog"), "102.txt:1: the phrase of chain 2"),
}  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.mark.parametrize("name", SPOILED)
def test_one_line_and_nothing_is_written(script, clip, tiny_unigram, tmp_path, monkeypatch, name) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    words, spoil, message = SPOILED[name]
    if words is ENTITIES:
        root = entities_layout.write_folder(tmp_path / "data")
    else:
        root = flickr30k_layout.write_official(tmp_path / "data")
        flickr30k_layout.write_tsv(root)
    spoil(root)
    done = script(
        "train.py", "--strategy", "mse", *words, "--data.root", root, "--output", tmp_path / "runs", "--logger", "csv",
        *([] if "--teacher" in words else ["--teacher", f"open_clip:{clip}"]), "--trainer.accelerator", "cpu",
        "--student", "transformer", "--model.student.model", tiny_unigram, "--model.student.max_length", 32,
        "--data.batch_size", 8,
    )  # fmt: skip
    lines = done.err.strip().splitlines()
    assert done.status == 2, done.err
    assert message in lines[-1]
    assert lines[-1].startswith("train.py: error: ")
    assert "Traceback" not in done.err
    assert str(root) in lines[-1]
    assert not (tmp_path / "runs").exists()
