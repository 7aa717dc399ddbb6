"""``--data flickr30k_entities``: phrases of captions, and the regions of images that they name.

The folder is the official one, unpacked: ``Sentences/``, ``Annotations/``, ``train.txt``, ``val.txt``, ``test.txt``,
``UNRELATED_CAPTIONS``; the images lie in ``flickr30k-images/`` or another folder. The teacher reads regions, the
student phrases, in English or in a language that a file of translations brings
(`datamodules.flickr30k_entities.translations`).

``dev`` is val.txt, ``test`` test.txt; both are scored by phrase localisation, any-box and merged-box, and by retrieval
of regions (`datamodules.flickr30k_entities.localisation`). Queries are the phrases with a box; as in the published
protocol a phrase in three captions is three queries.

A pair is a phrase and the smallest region around the boxes of its chain (``source: image``), the English phrase and
its translation (``caption``), or both; with ``pairs: captions`` whole images and captions, to train as on Flickr30k and
test on phrases.

Traps: (1) this is not the split of Karpathy; see `datamodules.flickr30k.splits`. With ``karpathy`` the training images
are that split's, and those that are ``dev`` or ``test`` here have to be removed. (2) "a man" is right for a region of
hundreds of images, so retrieval over all regions looks worse than the student is. For the same reason a contrastive
loss meets false negatives: pairs have equal ids where the region (or, of English sources, the phrase) is the same, no
more. (3) With the ground truth as proposals, the right region is one of about nine: such figures cannot be compared
with those of detectors or of a proposals file. (4) Corners are read as the official parser does; published figures of
MDETR and others were computed with ``coordinates: continuous``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.base import Collections
from datamodules.flickr30k.files import read_karpathy
from datamodules.flickr30k.splits import ImageSplits, SourceKind, SplitByImage, overlap
from datamodules.flickr30k_entities.boxes import Coordinates
from datamodules.flickr30k_entities.folder import EntitiesFolder
from datamodules.flickr30k_entities.localisation import localisation, read_proposals
from datamodules.flickr30k_entities.translations import Translations, read_translations
from datamodules.pairs import Pair
from datamodules.sources import Pairs
from datamodules.text import normalise, text_id
from foundations.checks import check_choice
from foundations.errors import InputError
from retrieval.collection import Collection

PairKind = Literal["phrases", "captions"]


_ENGLISH = "en"
_COLLECTIONS = {"dev": "val.txt", "test": "test.txt"}
_Texts = Iterator[tuple[str, str, str]]
"""(source, target, what the source is known by)"""


class Flickr30kEntitiesDataModule(SplitByImage):
    """Phrases and regions of Flickr30k Entities.

    Args:
        root: the folder of Flickr30k Entities.
        images: folder of the images, ``<image>.jpg``, in `root` unless it is absolute; by default flickr30k-images or
            images.
        language: of the phrases that the student reads.
        translations: file of their translations, in `root` unless it is absolute; by default none for ``en``, else
            ``phrases.<language>.tsv``. Phrases without a translation are left out.
        pairs: train on ``phrases`` and regions, or on whole ``captions`` and images.
        source: what the teacher reads of a pair: the ``image`` (region), the English ``caption`` (phrase), or
            ``both``, which makes two pairs.
        proposals: ``gt`` proposes the ground-truth boxes of the image; else a file, see
            `datamodules.flickr30k_entities.localisation`.
        coordinates: how the corners of boxes are read; see `datamodules.flickr30k_entities.boxes`.
        lenient: go on where a box reaches out of its image (it is cut, or left out) and where a phrase's chain is in no
            annotation (it counts as one without a box).
        karpathy: ``dataset_flickr30k.json``: train on its training images instead of those of train.txt.
        keep_unrelated: train on the captions of UNRELATED_CAPTIONS as well; they are always tested on.
        **options: those of `SplitByImage` (remove_overlap) and `PairsDataModule`.
    """

    def __init__(
        self,
        root: str,
        images: str | None = None,
        language: str = _ENGLISH,
        translations: str | None = None,
        pairs: PairKind = "phrases",
        source: SourceKind = "image",
        proposals: str = "gt",
        coordinates: Coordinates = "official",
        lenient: bool = False,
        karpathy: str | None = None,
        keep_unrelated: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choice("pairs", pairs, get_args(PairKind))
        check_choice("source", source, get_args(SourceKind))
        check_choice("coordinates", coordinates, get_args(Coordinates))
        folder = Path(root).expanduser()
        self.folder = EntitiesFolder(folder, images, coordinates, lenient)
        if translations is None and language != _ENGLISH:
            translations = f"phrases.{language}.tsv"
        self.translations_file = None if translations is None else folder / Path(translations).expanduser()
        self.language, self.pair_kind, self.source = language, pairs, source
        self.proposals_file = None if proposals == "gt" else folder / Path(proposals).expanduser()
        self.karpathy_file = None if karpathy is None else Path(karpathy).expanduser()
        self.keep_unrelated = keep_unrelated

    def image_splits(self) -> ImageSplits:
        """The images of train.txt (or the training images of `karpathy`), and those of val.txt and test.txt."""
        evaluated = frozenset(name for file in _COLLECTIONS.values() for name in self.folder.split(file))
        karpathy = self.karpathy_file
        if karpathy is None:
            return ImageSplits(frozenset(self.folder.split("train.txt")), evaluated)
        train = frozenset(name for name, image in read_karpathy(karpathy).items() if image.split == "train")
        return ImageSplits(train, evaluated)

    def load_pairs(self) -> list[Pair]:
        """The training pairs; each combination of source and target once."""
        splits = self.image_splits()
        of = "train.txt" if self.karpathy_file is None else self.karpathy_file.name
        removed = overlap(splits.train, splits.evaluated, self.remove_overlap, of, "val.txt and test.txt")
        names = sorted(splits.train - removed - self.excluded_images)
        if self.source != "caption":
            self.folder.require_images(names)
        texts = self._phrase_texts(names) if self.pair_kind == "phrases" else self._caption_texts(names)
        pairs: dict[tuple[str, str], Pair] = {}
        for source, target, known_by in texts:
            pairs.setdefault((source, target), Pair(source, target, text_id(known_by)))
        return list(pairs.values())

    def load_collections(self) -> dict[str, Collection]:
        """``dev``, ``test`` and, where the student reads another language, ``english``."""
        collections = {}
        for name, file in _COLLECTIONS.items():
            images = list(self.folder.annotated(self.folder.split(file)))
            self.folder.require_images([image.name for image in images])
            sizes = {image.name: (image.annotation.width, image.annotation.height) for image in images}
            proposals = None if self.proposals_file is None else read_proposals(self.proposals_file, sizes)
            english = {key: normalise(phrase.text) for image in images for key, phrase in image.phrases()}
            texts = self._translated(english, name)
            collections[name] = localisation(name, images, texts, proposals, self.folder.reference)
            if name == "test" and self._translations is not None:
                twins = {key: english[key] for key in texts}
                collections["english"] = localisation(
                    "english", images, twins, proposals, self.folder.reference, "teacher"
                )
        return collections

    def check_leaks(self, pairs: Pairs, collections: Collections) -> tuple[Pairs, Collections, None]:
        """The pairs as they are: the same phrase for another image is no leak, and the images are kept apart."""
        return pairs, collections, None

    def _phrase_texts(self, names: Sequence[str]) -> _Texts:
        skipped = self._skipped()
        for image in self.folder.annotated(names):
            for key, phrase in image.phrases():
                english = normalise(phrase.text)
                target = self._target(key, english)
                number = int(key.split("#")[1])
                if target is None or (image.name, number) in skipped:
                    continue
                if self.source != "caption":
                    region = self.folder.reference(image.name, image.merged(phrase.chain))
                    yield region, target, region
                if self.source != "image":
                    yield english, target, english

    def _caption_texts(self, names: Sequence[str]) -> _Texts:
        skipped = self._skipped()
        for name, sentences in self.folder.sentences(names):
            for number, sentence in enumerate(sentences):
                english = normalise(sentence.text)
                target = self._target(f"{name}#{number}", english)
                if target is None or (name, number) in skipped:
                    continue
                image = self.folder.reference(name)
                if self.source != "caption":
                    yield image, target, image
                if self.source != "image":
                    yield english, target, image

    @cached_property
    def _translations(self) -> Translations | None:
        return None if self.translations_file is None else read_translations(self.translations_file)

    def _target(self, key: str, english: str) -> str | None:
        """What the student reads."""
        return english if self._translations is None else self._translations.get(key, english)

    def _translated(self, english: dict[str, str], collection: str) -> dict[str, str]:
        """What is asked, by the phrases' keys."""
        translated = {key: self._target(key, text) for key, text in english.items()}
        texts = {key: text for key, text in translated.items() if text is not None}
        if lacking := len(english) - len(texts):
            key = next(key for key in english if key not in texts)
            message = f"{lacking:,} of {len(english):,} phrases of {collection} have no translation"
            if not texts:
                raise InputError(f"{message}; expected lines such as {key}<TAB>text", self.translations_file)
            warnings.warn(f"{message} and are not asked, such as {key} ({english[key]!r})", stacklevel=2)
        return texts

    def _skipped(self) -> set[tuple[str, int]]:
        """Captions that are not trained on: (image, number from 0)."""
        return set() if self.keep_unrelated else self.folder.unrelated()
