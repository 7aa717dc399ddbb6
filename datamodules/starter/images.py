"""``--data starter_images``: pictures of emoji with captions in more than 100 languages, from PyPI and npm alone.

A document is the picture of an emoji (Fluent, 256 x 256 pixels), which the teacher sees. Its captions in the student's
language are CLDR's *name* and *keywords* (one caption, with commas, without the name). Training pairs are a picture and
a caption; queries are the captions of pictures that no pair has, and pictures are queries for captions as well. One
caption may belong to several pictures, so judgments are many-to-many.

Half of the pictures are for training, 15 % are ``dev``, and 35 % are ``test``, by a hash of what must not be torn
apart. ``kind`` keeps together what has the same last word in one of Unicode's subgroups (hearts of all colours,
o'clocks, "man, woman and person running"), since near twins on both sides would flatter. ``family`` keeps whole
subgroups (all mammals) together: most of the vocabulary of ``test`` is then nowhere in the pairs, so use it to see how
far a student reaches, not to choose between strategies. ``dev`` and ``test`` are searched apart: each has its own
pictures only.

The teacher (`lightning_modules.teachers.locked_image`) has seen English captions of the training half of one of the
splits, so it must be told the same ``split``.

These are drawings with single words and short phrases: no photographs, no sentences. Sources and licences:
`datamodules.starter.cldr`, `datamodules.packages`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from datamodules.fetch import fetch, fetch_data
from datamodules.flickr30k.splits import ImageSplits, SourceKind, SplitByImage
from datamodules.images import image_source
from datamodules.pairs import Pair
from datamodules.starter.cldr import VARIATION_SELECTOR, Annotation, find_language, read_annotations, read_families
from datamodules.starter.emoji import emoji_id
from datamodules.text import fold, hash_share, text_id
from foundations.checks import check_choice
from foundations.errors import InputError
from retrieval.collection import Collection, Qrels, View

Part = Literal["train", "dev", "test"]
CaptionKind = Literal["name", "keywords", "both"]

Captions = dict[str, str]
"""Kind of the caption, ``name`` or ``keywords``, -> its text."""

SPLITS = ("kind", "family")
_TRAIN_SHARE = 0.5
_DEV_SHARE = 0.15
_CODE_POINTS = re.compile(r"[0-9a-f]{4,5}(-[0-9a-f]{4,5})*")


class StarterImagesDataModule(SplitByImage):
    """Pictures of emoji, and captions in a language X.

    Args:
        language: a CLDR locale (sw, so, fil, mr, ...), an alias of one, or the English name of its language.
        split: what is not torn apart: emoji of a ``kind``, or whole subgroups, ``family``.
        source: what the teacher reads of a pair: the ``image``, the English ``caption`` of the same sort, or ``both``,
            which makes two pairs of each caption.
        captions: ``name``, ``keywords``, or ``both``, which are two captions of each picture.
        **options: those of `SplitByImage` and `PairsDataModule`.
    """

    def __init__(
        self,
        language: str = "sw",
        split: Literal["kind", "family"] = "kind",
        source: SourceKind = "image",
        captions: CaptionKind = "both",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choice("split", split, SPLITS)
        check_choice("source", source, get_args(SourceKind))
        check_choice("captions", captions, get_args(CaptionKind))
        self.language, self.split, self.source, self.captions = language, split, source, captions

    def prepare_data(self) -> None:
        """Fetch the packages."""
        fetch_data("starter_images")

    def load_pairs(self) -> list[Pair]:
        """The pictures of the training half with their captions."""
        return [
            Pair(source, caption, text_id(picture.image))
            for picture in self._pictures
            if picture.part == "train" and picture.id not in self.excluded_images
            for kind, caption in self._captions(picture).items()
            for source in self._sources(picture, kind)
        ]

    def image_splits(self) -> ImageSplits:
        """The emoji of the training half, and the others."""
        train = frozenset(each.id for each in self._pictures if each.part == "train")
        return ImageSplits(train, frozenset(each.id for each in self._pictures) - train)

    def load_collections(self) -> dict[str, Collection]:
        """``dev`` and ``test`` in the chosen language, and ``english``, which asks for the pictures of ``test``."""
        pictures = {part: [each for each in self._pictures if each.part == part] for part in ("dev", "test")}
        foreign = {
            name: collection(name, [(each, self._captions(each)) for each in pictures[name]]) for name in pictures
        }
        twin = [(each, self._chosen(each.captions)) for each in pictures["test"]]
        return foreign | {"english": collection("english", twin)}

    @cached_property
    def _pictures(self) -> list[Picture]:
        return read_pictures(self.split)

    @cached_property
    def _foreign(self) -> dict[str, Annotation]:
        return read_annotations(find_language(self.language))

    def _chosen(self, captions: Captions) -> Captions:
        return {kind: text for kind, text in captions.items() if self.captions in ("both", kind)}

    def _captions(self, picture: Picture) -> Captions:
        """The captions of a picture in the student's language."""
        return self._chosen(captions_of(self._foreign.get(picture.emoji)))

    def _sources(self, picture: Picture, kind: str) -> Iterator[str]:
        """What the teacher reads of the pairs with one caption."""
        if self.source != "caption":
            yield picture.image
        if self.source != "image" and kind in picture.captions:
            yield picture.captions[kind]


@dataclass(frozen=True)
class Picture:
    """The picture of an emoji (without variation selectors), a file as a source of pairs, and its English captions."""

    emoji: str
    image: str
    captions: Captions
    part: Part

    @property
    def id(self) -> str:
        """The id of a document."""
        return emoji_id(self.emoji)


def read_pictures(split: str) -> list[Picture]:
    """The base emoji that have a picture and an English name, in Unicode's order; the split is as in the options."""
    english, files = read_annotations("en"), _picture_files()
    return [
        Picture(
            emoji,
            image=files[emoji],
            captions=captions_of(english[emoji]),
            part=part_of(family if split == "family" else f"{family}: {english[emoji].name.split()[-1]}"),
        )
        for emoji, family in read_families().items()
        if emoji in files and emoji in english and english[emoji].name
    ]


def part_of(group: str) -> Part:
    """Whether a group of emoji is ``train``, ``dev`` or ``test``, by a hash of its name."""
    share = hash_share(fold(group), "starter images")
    return "train" if share < _TRAIN_SHARE else "dev" if share < _TRAIN_SHARE + _DEV_SHARE else "test"


def captions_of(annotation: Annotation | None) -> Captions:
    """The captions that an annotation makes: its name, and its keywords without the name, where there are any."""
    if annotation is None:
        return {}
    keywords = [word for word in annotation.keywords if fold(word) != fold(annotation.name)]
    captions = {"name": annotation.name, "keywords": ", ".join(keywords)}
    return {kind: text for kind, text in captions.items() if text}


def collection(name: str, captioned: Iterable[tuple[Picture, Captions]]) -> Collection:
    """A collection in both directions: captions as queries for pictures, and pictures as queries for captions.

    Of ``english`` the teacher reads both sides. A picture without a caption is a document all the same, but no query.
    Equal captions are one query, whose id has the first of their pictures (``1F600.keywords``).
    """
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    ids: dict[str, str] = {}
    qrels: Qrels = {}
    transposed: Qrels = {}
    for picture, captions in captioned:
        documents[picture.id] = picture.image
        for kind, caption in captions.items():
            query = ids.setdefault(fold(caption), f"{picture.id}.{kind}")
            queries.setdefault(query, caption)
            qrels.setdefault(query, {})[picture.id] = 1
            transposed.setdefault(picture.id, {})[query] = 1
    views = (View("text_to_image", qrels), View("image_to_text", transposed, transposed=True))
    side: Literal["student", "teacher"] = "teacher" if name == "english" else "student"
    return Collection(name, queries, documents, qrels, query_side=side, views=views)


def _picture_files() -> dict[str, str]:
    """The file of each emoji, without variation selectors, as a source of pairs."""
    folder = fetch("@lobehub/fluent-emoji-3d") / "package/assets"
    files = {}
    for path in sorted(folder.glob("*.webp")):
        if _CODE_POINTS.fullmatch(path.stem):  # a few files have other names
            emoji = "".join(chr(int(point, 16)) for point in path.stem.split("-"))
            files[emoji.replace(VARIATION_SELECTOR, "")] = image_source(path)
    if not files:
        raise InputError("no pictures (*.webp) in the package", folder)
    return files
