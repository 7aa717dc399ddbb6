"""Captions of Flickr30k's images in other languages: one reader a source, all with the same result.

multi30k          data/task1/raw/{train,val,test_2016_flickr}.<language>.gz and data/task1/image_splits/*.txt: one
translation an image (de fr cs), aligned with one English caption
multi30k_task2    data/task2/raw/{train,val,test_2016}.<1-5>.<language>.gz and data/task2/image_splits/{train,val,
test_2016}_images.txt: five captions an image (de), written without sight of the English ones
flickr30k_cn      folders of a split with TextData/*.caption.txt, or *.txt, of lines <image>#zhm#<number> caption (zhm:
people translated; zhb: a machine did), the translations of English captions with the same numbers, or of lines
<image><TAB>caption, which do not say who translated, in the order of the English ones. The caption may be
cut into words with their parts of speech (她:r 在:p), which are taken off. Trap: its split has 29,783 / 1,000 / 1,000
images, so people translated the captions of its test images, most of which are not test images here
xflickrco         annotations/<language>/test.jsonl; images of COCO are passed over; test only
flickr30k_200     <language>.txt aligned with filenames.txt, machine-translated; test only
<file>.tsv        image<TAB>caption; the image as 36979, 36979.jpg, or 36979.jpg#<number of the English caption>

Flickr30k has 31,783 images, the split of Karpathy 31,014. Captions of the others are passed over, if the token file has
the image; a caption of an image that nothing knows is an error.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import get_args

from datamodules.flickr30k.files import FlickrImage, Split, numbered_lines
from datamodules.text import normalise
from datamodules.text_files import read_rows
from foundations.errors import InputError
from foundations.files import json_line, require_file

Images = Mapping[str, FlickrImage]

_SPLIT_FILE, _TOKEN_FILE = "dataset_flickr30k.json", "results_20130124.token"
_FOLDERS = {"multi30k_task2": "multi30k"}
"""Source -> the folder that its files are in, if it is not called like it."""


@dataclass(frozen=True)
class Caption:
    """A caption, and the English one that it was translated from or appears next to."""

    text: str
    english: str


@dataclass
class CaptionTable:
    """Captions by image and number, while they are read.

    Args:
        images: those of the split; an image may be named as Flickr8k names the same photograph, <image>_<hash>.jpg.
        outside: images whose captions are passed over.
        splits: those whose captions are needed; a source with a file for each split reads no other.
        captions: what was read.
        empty: the places of empty captions, which published files have; they are passed over.
    """

    images: Images
    outside: Set[str] = frozenset()
    splits: Set[Split] = frozenset(get_args(Split))
    captions: dict[str, dict[int, Caption]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def add(
        self, image: str, text: str, path: Path, line: int, number: int | None = None, english: str | None = None
    ) -> None:
        """Add a caption of an image (named with ``.jpg`` or without), from a line of a file.

        By default it comes after the other captions of the image, and its English text is the English caption with the
        same number, counted round where there are fewer.

        Raises:
            InputError: an unknown image, or a number that is taken.
        """
        name = image.removesuffix(".jpg")
        name = name if name in self.images or name in self.outside else name.partition("_")[0]
        if name in self.outside:
            return
        if name not in self.images:
            having = f"{_SPLIT_FILE} and {_TOKEN_FILE} have none" if self.outside else f"{_SPLIT_FILE} has none"
            cure = "" if self.outside else f" (769 images of Flickr30k are in no split: put {_TOKEN_FILE} beside it)"
            raise InputError(f"a caption for an unknown image {image!r}: {having}{cure}", path, line)
        if not (text := normalise(text)):
            self.empty.append(f"{path}:{line}")
            return
        captions = self.captions.setdefault(name, {})
        number = len(captions) if number is None else number
        if number in captions:
            raise InputError(f"the caption {number} of {image} appears twice", path, line)
        known = self.images[name].captions
        captions[number] = Caption(text, english or known[number % len(known)])

    def add_lines(self, images: list[str], path: Path, number: int | None = None, english: Path | None = None) -> None:
        """Add a caption of each image of a list: the lines of a file, and of one with their English twins if given."""
        twins = [None] * len(images) if english is None else _aligned(english, images)
        for line, (image, text, twin) in enumerate(zip(images, _aligned(path, images), twins, strict=True), start=1):
            self.add(Path(image).name, text, path, line, number, twin)

    def result(self) -> dict[str, list[Caption]]:
        """Image -> captions in their order; images in the order of the split. Says how many were empty."""
        if self.empty:
            first = ", ".join(self.empty[:3]) + (", ..." if len(self.empty) > 3 else "")
            warnings.warn(f"{len(self.empty):,} empty captions are passed over: {first}", stacklevel=4)
        return {
            name: [self.captions[name][number] for number in sorted(self.captions[name])]
            for name in self.images
            if name in self.captions
        }


def read_captions(
    source: str,
    root: Path,
    language: str,
    images: Images,
    outside: Set[str] = frozenset(),
    splits: Set[Split] = frozenset(get_args(Split)),
) -> dict[str, list[Caption]]:
    """Image -> its captions in a language, in the order of the split; images without captions are not there.

    The source is ``english``, a name of `READERS`, alone or with its folder (``multi30k:/data/multi30k``), or a TSV
    file; folders and files are looked for in `root`. The language is spelled as in the source's files: ``de``, or
    ``swh_Latn`` for flickr30k_200. Of a source with a file for each split only those of `splits` are read. InputError
    where a file is missing or malformed, or names an unknown image.
    """
    if source == "english":
        return {name: [Caption(text, text) for text in image.captions] for name, image in images.items()}
    name, _, folder = source.partition(":")
    if name not in READERS:
        return _read_tsv(root / source, CaptionTable(images, outside, splits))
    path = root / Path(folder or _FOLDERS.get(name, name)).expanduser()
    if not path.is_dir():
        raise InputError(f"no such folder, expected the files of {name}; or name it: {name}:FOLDER", path)
    table = CaptionTable(images, outside, splits)
    READERS[name](path, language, table)
    if not table.captions:
        raise InputError(f"found no caption in {language} there, expected those of {name}", path)
    return table.result()


def check_source(source: str, language: str) -> None:
    """Raise ValueError where there is no such source, or it is English and the language is not."""
    name = source.partition(":")[0]
    if source == "english" and language != "en":
        raise ValueError(f"captions are english, but the language is {language}: name a source of captions, {_CHOICES}")
    if name != "english" and name not in READERS and not source.endswith((".tsv", ".txt")):
        raise ValueError(f"captions is {source!r}, expected {_CHOICES}")


def _multi30k(folder: Path, language: str, table: CaptionTable) -> None:
    folder = _inner(folder, "data/task1", "task1")
    names = [name for name in ("train", "val", "test_2016_flickr") if _split_of(name) in table.splits]
    paths = {split: _packed(folder / "raw" / f"{split}.{language}") for split in names}
    for split, path in paths.items():
        if path is not None:
            images = _image_names(folder / "image_splits" / f"{split}.txt")
            table.add_lines(images, path, english=_packed(folder / "raw" / f"{split}.en"))
    if not any(paths.values()):
        raise InputError(f"no file {{{','.join(names)}}}.{language}.gz there", folder / "raw")


def _multi30k_task2(folder: Path, language: str, table: CaptionTable) -> None:
    folder = _inner(folder, "data/task2", "task2")
    splits = [name for name in ("train", "val", "test_2016") if _split_of(name) in table.splits]
    paths = {
        (split, number): _packed(folder / "raw" / f"{split}.{number}.{language}")
        for split, number in product(splits, range(1, 6))
    }
    for (split, number), path in paths.items():
        if path is not None:
            images = _image_names(folder / "image_splits" / f"{split}_images.txt")
            table.add_lines(images, path, number - 1)
    if not any(paths.values()):
        raise InputError(f"no file {{{','.join(splits)}}}.{{1-5}}.{language}.gz there", folder / "raw")


def _split_of(file: str) -> str:
    """The split that a file of Multi30k is of: ``test_2016_flickr`` is ``test``."""
    return file.partition("_")[0]


def _flickr30k_cn(folder: Path, language: str, table: CaptionTable) -> None:
    if language != "zh":
        raise InputError(f"the language is {language}, but flickr30k_cn is in Chinese: set language to zh")
    translated: dict[str, dict[str, list[tuple[str, str, Path, int, int | None]]]] = {"zhm": {}, "zhb": {}}
    numbered = True
    for path in _caption_files(folder):
        for line, text in numbered_lines(path):
            match = _CN_LINE.fullmatch(text)
            if match is None:
                raise InputError(
                    f"found {text[:60]!r}, expected <image>#zhm#<number> caption, or <image><TAB>caption", path, line
                )
            image, kind, number, caption = match.groups()
            numbered = numbered and number is not None
            captions = translated["zhm" if kind == "zhm" else "zhb"].setdefault(image.removesuffix(".jpg"), [])
            captions.append((image, joined(caption), path, line, int(number) if number else None))
    by_people = translated["zhm"]
    for captions in (translated["zhb"] | by_people).values():  # those of people, where there are such
        for arguments in captions:
            table.add(*arguments)
    test = [name for name in table.captions if table.images[name].split == "test"]
    count = sum(name in by_people for name in test)
    if count < len(test) and numbered:
        warnings.warn(
            f"flickr30k_cn: people translated the captions of {count:,} of the {len(test):,} test images, a machine "
            "those of the others; its own split is another one",
            stacklevel=3,
        )


def _caption_files(folder: Path) -> list[Path]:
    """The files with captions: ``*.caption.txt`` of the official folders, else all ``*.txt``.

    The official folders have lists of images as well (ImageSets), and may have a file both as it is and cut into words
    (``seg.<name>``); the former is taken.
    """
    paths = sorted(folder.rglob("*.caption.txt")) or sorted(folder.rglob("*.txt"))
    names = {path.name for path in paths}
    return [path for path in paths if path.name.removeprefix("seg.") == path.name or path.name[4:] not in names]


def joined(caption: str) -> str:
    """A Chinese caption that was cut into words, as it is written: no tags, no space between Chinese characters.

    >>> joined("一个:m 女孩:n 在:p 弹 吉他:n ，:wd iPod nano")
    '一个女孩在弹吉他， iPod nano'
    """
    text, *words = (_PART_OF_SPEECH.sub("", word) for word in caption.split())
    for word in words:
        text += f" {word}" if text[-1].isascii() or word[0].isascii() else word
    return text


def _xflickrco(folder: Path, language: str, table: CaptionTable) -> None:
    path = require_file(_inner(folder, "annotations") / language / "test.jsonl")
    expected = '{"sentences": [...], "id": "36979", "img_path": "36979.jpg"}'
    for line, text in numbered_lines(path):
        entry = json_line(text.encode(), expected, path, line)
        image, sentences = (entry.get(key) for key in ("id", "sentences")) if isinstance(entry, dict) else (None, None)
        if isinstance(image, int) and sentences is not None:  # of COCO
            continue
        if not isinstance(image, str) or not isinstance(sentences, list) or not sentences:
            raise InputError(f"found {text[:60]!r}, expected {expected}", path, line)
        if image.removesuffix(".jpg") in table.captions:
            raise InputError(f"the image {image} appears twice", path, line)
        for sentence in sentences:
            table.add(image, str(sentence), path, line)


def _flickr30k_200(folder: Path, language: str, table: CaptionTable) -> None:
    folder = _inner(folder, "flickr30k-200")
    path, images = require_file(folder / f"{language}.txt"), _image_names(folder / "filenames.txt")
    table.add_lines(images, path, english=_packed(folder / "eng_Latn.txt"))


def _read_tsv(path: Path, table: CaptionTable) -> dict[str, list[Caption]]:
    for line, (key, text) in read_rows(path, "image<TAB>caption"):
        image, hash_sign, number = key.partition("#")
        if hash_sign and not number.isdecimal():
            raise InputError(f"found {key!r}, expected an image such as 36979.jpg or 36979.jpg#0", path, line)
        table.add(image, text, path, line, int(number) if hash_sign else None)
    return table.result()


_CN_LINE = re.compile(r"([^#\s]+)(?:#(zh[a-z])#([0-9]+))?\s+(\S.*)")
_PART_OF_SPEECH = re.compile(r"(?<=.):[a-z]+$")
"""Of a word: 女孩:n. The tags are those of BosonNLP."""

READERS: dict[str, Callable[[Path, str, CaptionTable], None]] = {
    "multi30k": _multi30k,
    "multi30k_task2": _multi30k_task2,
    "flickr30k_cn": _flickr30k_cn,
    "xflickrco": _xflickrco,
    "flickr30k_200": _flickr30k_200,
}
"""Name of a source -> what reads its folder."""

_CHOICES = f"one of english, {', '.join(READERS)}, or a file of image<TAB>caption that ends in .tsv"


def _inner(folder: Path, *names: str) -> Path:
    """The folder of a repository that holds the files, or the folder itself."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def _packed(path: Path) -> Path | None:
    """A file that may be compressed; None where there is none."""
    return next((each for each in (path.with_name(f"{path.name}.gz"), path) if each.is_file()), None)


def _image_names(path: Path) -> list[str]:
    """The images of a list, each once."""
    lines: dict[str, int] = {}
    for line, text in numbered_lines(require_file(path)):
        if text in lines:
            raise InputError(f"the image {text} is already on line {lines[text]}", path, line)
        lines[text] = line
    return list(lines)


def _aligned(path: Path, images: list[str]) -> list[str]:
    """The lines of a file, as many as images; a line may be empty."""
    texts = [text for _, text in numbered_lines(path, empty=True)]
    if len(texts) != len(images):
        raise InputError(f"has {len(texts):,} lines, but its list of images has {len(images):,}", path)
    return texts
