"""The official files of Flickr30k: the split of Karpathy, the English captions, and the folder of the images."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.text import normalise
from datamodules.text_files import read_rows
from foundations.errors import InputError
from foundations.files import decode, read_json, require_file, scan_lines

Split = Literal["train", "val", "test"]
_SIZES = (29_000, 1_014, 1_000)
_SMALL_COPY = 10_000
"""Images up to which nobody takes a copy for the whole split."""

_KARPATHY = '{"images": [{"filename": "36979.jpg", "split": "train", "sentences": [{"raw": "..."}]}]}'
_TOKEN_LINE = "<image>.jpg#<number><TAB>caption"
_TOKEN = re.compile(r"(?P<image>.+)\.jpg#(?P<number>[0-9]+)")


@dataclass(frozen=True)
class FlickrImage:
    """An image of the split: its file name without ``.jpg``, and its captions in English."""

    name: str
    split: Split
    captions: tuple[str, ...]


def read_karpathy(path: str | Path) -> dict[str, FlickrImage]:
    """The images of ``dataset_flickr30k.json`` by name, in its order.

    Raises:
        InputError: no file, no JSON, an image without a file name, a split or captions, an image that appears
            twice, an unknown split, or a split without images.
    """
    path = Path(path)
    content = read_json(path, _KARPATHY)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"has no list of images, expected {_KARPATHY}", path)
    images: dict[str, FlickrImage] = {}
    for number, entry in enumerate(entries):
        image = _karpathy_image(entry, number, path)
        if image.name in images:
            raise InputError(f"image {number}: {image.name}.jpg appears twice", path)
        images[image.name] = image
    for split in get_args(Split):
        if not any(image.split == split for image in images.values()):
            raise InputError(f"has no image of the split {split!r}, expected {_KARPATHY}", path)
    sizes = tuple(sum(image.split == split for image in images.values()) for split in get_args(Split))
    if sum(sizes) > _SMALL_COPY and sizes != _SIZES:
        warnings.warn(f"{path} splits the images {sizes}, the split of Karpathy is {_SIZES}", stacklevel=2)
    return images


def _karpathy_image(entry: Any, number: int, path: Path) -> FlickrImage:
    try:
        filename, split = entry["filename"], entry["split"]
        captions = tuple(normalise(sentence["raw"]) for sentence in entry["sentences"])
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"image {number} lacks a file name, split or sentences, expected {_KARPATHY}", path) from None
    if split not in get_args(Split):
        raise InputError(f"image {number}: the split is {split!r}, expected one of {', '.join(get_args(Split))}", path)
    if not isinstance(filename, str) or not filename.endswith(".jpg"):
        raise InputError(f"image {number}: the file name is {filename!r}, expected one such as 36979.jpg", path)
    if not captions or not all(captions):
        raise InputError(f"image {number}: {filename} has no caption, or an empty one", path)
    return FlickrImage(filename.removesuffix(".jpg"), split, captions)


def read_token_file(path: str | Path) -> dict[str, tuple[str, ...]]:
    """The captions of ``results_20130124.token`` by image, in the order of their numbers.

    A line that is malformed or has no caption, or a caption that appears twice, is an InputError.
    """
    path, captions = Path(path), dict[str, dict[int, str]]()
    for line, (key, text) in read_rows(path, _TOKEN_LINE):
        match = _TOKEN.fullmatch(key)
        if match is None:
            raise InputError(f"found {key!r} in the first column, expected {_TOKEN_LINE}", path, line)
        own = captions.setdefault(match["image"], {})
        if int(match["number"]) in own:
            raise InputError(f"the caption {key} appears twice", path, line)
        own[int(match["number"])] = normalise(text)
    return {image: tuple(own[number] for number in sorted(own)) for image, own in captions.items()}


def read_flickr(root: Path, split_lists: str | None = None) -> dict[str, FlickrImage]:
    """The images of a folder with the official files, by name, in the order of the split.

    The split is that of ``dataset_flickr30k.json``, or of the lists of a folder (see `split_by_lists`); the English
    captions are those of ``results_20130124.token`` where it is there (every image must then have one), else those of
    the JSON file.
    """
    if not root.is_dir():
        raise InputError("no such folder, expected one with dataset_flickr30k.json and flickr30k-images", root)
    images = read_karpathy(root / "dataset_flickr30k.json")
    if split_lists is not None:
        images = split_by_lists(images, root / Path(split_lists).expanduser())
    tokens = root / "results_20130124.token"
    if not tokens.is_file():
        return images
    captions = read_token_file(tokens)
    if lacking := [name for name in images if name not in captions]:
        raise InputError(f"no caption for {lacking[0]}.jpg ({len(lacking):,} of {len(images):,} images)", tokens)
    return {name: FlickrImage(name, image.split, captions[name]) for name, image in images.items()}


def split_by_lists(images: Mapping[str, FlickrImage], folder: Path) -> dict[str, FlickrImage]:
    """The images in train.txt, val.txt or test.txt of a folder, one name a line, as Flickr30k Entities has them.

    Args:
        images: by name; those in no list are left out, and names of other images passed over.
        folder: of the three lists.

    Raises:
        InputError: a list is missing, an image is in two of them, or a split has none of the images.
    """
    splits: dict[str, Split] = {}
    for split in get_args(Split):
        path = require_file(folder / f"{split}.txt")
        for line, name in numbered_lines(path):
            if splits.setdefault(name.removesuffix(".jpg"), split) != split:
                raise InputError(f"the image {name} is in {splits[name.removesuffix('.jpg')]}.txt as well", path, line)
        if split not in (splits.get(name) for name in images):
            raise InputError("none of these images is in dataset_flickr30k.json", path)
    return {name: replace(image, split=splits[name]) for name, image in images.items() if name in splits}


def outside_the_split(root: Path, images: Iterable[str]) -> frozenset[str]:
    """Names of Flickr30k's images that are not among those of the split, by the token file; none without one."""
    tokens = root / "results_20130124.token"
    return frozenset(read_token_file(tokens)).difference(images) if tokens.is_file() else frozenset()


def find_images(root: Path, folder: str | None) -> Path:
    """The folder of the images: the one that was named, or ``flickr30k-images`` or ``images``.

    Raises:
        InputError: it is not there.
    """
    names = ("flickr30k-images", "flickr30k_images", "images") if folder is None else (folder,)
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise InputError(f"no folder of images there, expected {' or '.join(names)}", root)


def require_images(folder: Path, names: Iterable[str]) -> None:
    """Raise InputError where an image is missing; the folder is listed once."""
    present, names = {path.name for path in folder.iterdir()}, list(names)
    if missing := [name for name in names if f"{name}.jpg" not in present]:
        raise InputError(f"there is no {missing[0]}.jpg ({len(missing):,} of {len(names):,} images missing)", folder)


def numbered_lines(path: Path, empty: bool = False) -> Iterator[tuple[int, str]]:
    """Number from 1 and normalised text of each line, of a file where line numbers count; it may be compressed.

    InputError where there is no file, or it is damaged, not in UTF-8, or has an empty line, unless those may be there.
    The last line may end without a newline.
    """
    for number, _, raw in scan_lines(path, "a text on every line", blank=True):
        text = normalise(decode(raw, "a text on every line", path, number))
        if not text and not empty:
            raise InputError("the line is empty, expected a text on every line", path, number)
        yield number, text
