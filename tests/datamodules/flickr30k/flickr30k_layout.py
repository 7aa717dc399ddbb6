"""Small files in the official layouts of Flickr30k and of its captions in other languages, and a teacher that sees."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from datamodules.images import is_image, load_image
from lightning_modules.teachers.base import Teacher
from strategies.base import Embeddings

COLOURS = {"red": (220, 20, 30), "green": (20, 200, 40), "blue": (30, 40, 220), "white": (250, 250, 250)}
SWAHILI = {"red": "jekundu", "green": "kijani", "blue": "samawati", "white": "nyeupe"}
IMAGES = {str(1000 + n * 7): couple for n, couple in enumerate(itertools.product(COLOURS, COLOURS))}
"""Image -> the colours of its upper and lower half."""
SPLITS = dict(zip(IMAGES, ["train"] * 9 + ["val"] * 3 + ["test"] * 4, strict=True))
ENGLISH = ("{} on {}", "{} above {}", "there is {} over {}", "{} up {} down", "first {} then {}")
FOREIGN = ("{} juu ya {}", "{} na {} chini", "kuna {} halafu {}", "{} kisha {}", "kwanza {} pili {}")


def english(image: str) -> list[str]:
    return [form.format(*IMAGES[image]) for form in ENGLISH]


def swahili(image: str) -> list[str]:
    return [form.format(*(SWAHILI[colour] for colour in IMAGES[image])) for form in FOREIGN]


def of_split(split: str) -> list[str]:
    return [image for image in IMAGES if SPLITS[image] == split]


def write_official(root: Path) -> Path:
    """Images, the split of Karpathy (in an order of its own) and the token file."""
    (root / "flickr30k-images").mkdir(parents=True)
    for name, (upper, lower) in IMAGES.items():
        image = Image.new("RGB", (24, 16), COLOURS[upper])
        image.paste(COLOURS[lower], (0, 8, 24, 16))
        image.save(root / "flickr30k-images" / f"{name}.jpg", quality=95)
    entries = [
        {"sentids": [0], "imgid": number, "filename": f"{name}.jpg", "split": SPLITS[name],
         "sentences": [{"raw": text, "tokens": text.split()} for text in english(name)]}
        for number, name in enumerate(reversed(IMAGES))
    ]  # fmt: skip
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": entries, "dataset": "flickr30k"}))
    lines = [f"{name}.jpg#{number}\t{text} ." for name in sorted(IMAGES) for number, text in enumerate(english(name))]
    (root / "results_20130124.token").write_text("\n".join(lines) + "\n")
    return root


def write_tsv(root: Path, name: str = "captions.sw.tsv") -> Path:
    lines = [f"{image}.jpg#{number}\t{text}" for image in IMAGES for number, text in enumerate(swahili(image))]
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / name


def packed(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def listed(path: Path, images: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image}.jpg\n" for image in images))


def write_multi30k(folder: Path, language: str = "de") -> Path:
    """Task 1 (translations of the caption 2) and task 2 (five captions)."""
    for split, first, second in (("train", "train", "train"), ("val", "val", "val"),
                                 ("test", "test_2016_flickr", "test_2016")):  # fmt: skip
        images = of_split(split)
        one, two = folder / "data" / "task1", folder / "data" / "task2"
        listed(one / "image_splits" / f"{first}.txt", images)
        packed(one / "raw" / f"{first}.{language}.gz", [f"{language} {english(image)[2]}" for image in images])
        packed(one / "raw" / f"{first}.en.gz", [english(image)[2] for image in images])
        listed(two / "image_splits" / f"{second}_images.txt", images)
        for number in range(1, 6):
            lines = [f"{language}{number} {image}" for image in images]
            packed(two / "raw" / f"{second}.{number}.{language}.gz", lines)
    return folder


def write_flickr30k_cn(folder: Path) -> Path:
    folder.mkdir()
    for split, kinds in (("train", ["zhb"]), ("val", ["zhb"]), ("test", ["zhb", "zhm"])):
        for kind in kinds:
            lines = [f"{image}#{kind}#{n} {kind} 图 {image} {n}" for image in of_split(split) for n in range(5)]
            (folder / f"flickr30k{kind}-{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_flickr30k_cn_official(folder: Path) -> Path:
    """A folder for each split, with a list of images and captions cut into words; tags on those by people only."""
    for name, split, kind in (("flickr30kzhbbosontrain", "train", "zhb"), ("flickr30kzhbbosonval", "val", "zhb"),
                              ("flickr30kzhmbosontest", "test", "zhm")):  # fmt: skip
        words = "一个 女孩 在 {} {}" if kind == "zhb" else "一个:m 女孩:n ，:wd {} {}:ns"
        images, texts = folder / name / "ImageSets", folder / name / "TextData"
        images.mkdir(parents=True)
        texts.mkdir()
        (images / f"{name}.txt").write_text("".join(f"{image}\n" for image in of_split(split)))
        lines = [f"{image}#{kind}#{n} {words.format(image, n)}" for image in of_split(split) for n in range(5)]
        (texts / f"seg.{name}.caption.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_xflickrco(folder: Path, language: str = "tr") -> Path:
    path = folder / "annotations" / language / "test.jsonl"
    path.parent.mkdir(parents=True)
    entries = [{"sentences": [f"{language} {i}"], "id": i, "img_path": f"{i}.jpg"} for i in of_split("test")]
    entries.insert(1, {"sentences": ["bir kedi"], "id": 391895, "img_path": "COCO_val2014_000000391895.jpg"})
    path.write_text("\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n", encoding="utf-8")
    return folder


def write_flickr30k_200(folder: Path, language: str = "swh_Latn") -> Path:
    images = of_split("test")[::-1]
    listed(folder / "flickr30k-200" / "filenames.txt", images)
    for code in (language, "eng_Latn"):
        lines = [f"{code} {english(image)[0]}" for image in images]
        (folder / "flickr30k-200" / f"{code}.txt").write_text("\n".join(lines))  # no newline at the end
    return folder


def change(path: str, old: str, new: str) -> Callable[[Path], None]:
    """What replaces the first place of a text in a file."""

    def spoil(root: Path) -> None:
        text = (root / path).read_text(encoding="utf-8")
        assert old in text
        (root / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return spoil


class ColourTeacher(Teacher):
    """Knows colours: of the halves of an image, and the words for them in an English text."""

    @property
    def dim(self) -> int:
        return 6

    def encode(self, texts, tokens=False, device=None, side="queries") -> Embeddings:
        halves = torch.stack([_halves(text) for text in texts])
        states = torch.nn.functional.normalize(torch.cat([halves, halves.flip(2)], dim=2), dim=2)
        pooled = torch.nn.functional.normalize(halves.flatten(1), dim=1)
        mask = torch.ones(len(texts), 2, dtype=torch.bool)
        return Embeddings(pooled, states, mask) if tokens else Embeddings(pooled)

    def fit_idf(self, texts, side="queries") -> None:
        """Nothing to fit."""

    def prepare(self, texts, tokens, side="queries") -> None:
        """Nothing to prepare."""


def _halves(text: str) -> torch.Tensor:
    if is_image(text):
        image = load_image(text)
        pixels = [image.getpixel((12, 4)), image.getpixel((12, 12))]
    else:
        found = [COLOURS[word] for word in text.split() if word in COLOURS]
        pixels = (found + [(100, 130, 120)] * 2)[:2]
    return torch.tensor(pixels) / 127.5 - 0.97
