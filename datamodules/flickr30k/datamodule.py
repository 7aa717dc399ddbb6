"""``--data flickr30k``: photographs with five captions each, and captions in other languages.

The folder holds the official files, which come from their owners:

    flickr30k-images/           the photographs, <image>.jpg (or images/)
    dataset_flickr30k.json      the split of Karpathy: 29,000 / 1,014 / 1,000 images
    results_20130124.token      the English captions; without it, those of the JSON file

and the sources of captions in other languages (`datamodules.flickr30k.captions`) in folders of their own. The
student reads captions; the teacher reads the images and, for ``english``, the English captions of the same images.

``dev`` (val) and ``test`` are scored in both directions: ``text_to_image/success@k`` is the field's R@k of image
retrieval, ``image_to_text/success@k`` that of text retrieval (any of an image's captions), ``rsum`` their sum.

Traps: (1) the split of Flickr30k Entities is another one; see `datamodules.flickr30k.splits`. (2) With one caption an
image (multi30k, flickr30k_200) text retrieval is harder than with five, so figures cannot be compared with published
rSum. (3) flickr30k_200 is machine-translated, its test captions too. (4) All captions of an image have the same id,
whether the teacher reads the image or the caption, so no image is a negative of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from datamodules.flickr30k.captions import Caption, check_source, read_captions
from datamodules.flickr30k.files import (
    FlickrImage,
    Split,
    find_images,
    outside_the_split,
    read_flickr,
    require_images,
)
from datamodules.flickr30k.splits import ImageSplits, SourceKind, SplitByImage
from datamodules.images import image_source
from datamodules.pairs import Pair
from datamodules.text import text_id
from foundations.checks import check_choice
from foundations.errors import InputError
from retrieval.collection import Collection, Qrels, Side, View

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text_to_image", "image_to_text"


class Flickr30kDataModule(SplitByImage):
    """Images and captions of Flickr30k.

    Args:
        root: the folder of the official files.
        language: of the captions that the student reads, as the source spells it.
        captions: where training and dev captions come from: ``english``, ``multi30k``, ``multi30k_task2``,
            ``flickr30k_cn`` (each in the folder of its name in `root`, or as ``multi30k:FOLDER``), or a TSV file, such
            as ``captions.{language}.tsv`` where there are several languages.
        dev_captions: where dev captions come from, if from elsewhere.
        test_captions: where test captions come from, if from elsewhere; also ``xflickrco`` and ``flickr30k_200``.
        test_language: of the test captions, where their source spells it in another way.
        source: what the teacher reads of a pair: the ``image``, the English ``caption``, or ``both``, which makes two
            pairs of each caption.
        images: folder of the images in `root`; by default flickr30k-images or images.
        split_lists: a folder in `root` with train.txt, val.txt and test.txt in place of the split of Karpathy, such as
            that of Flickr30k Entities, whose split is another one.
        **options: those of `SplitByImage` (remove_overlap) and `PairsDataModule`.

    Raises:
        ValueError: no such source.
    """

    def __init__(
        self,
        root: str,
        language: str = "en",
        captions: str = "english",
        dev_captions: str | None = None,
        test_captions: str | None = None,
        test_language: str | None = None,
        source: SourceKind = "image",
        images: str | None = None,
        split_lists: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.split_lists = split_lists
        check_choice("source", source, get_args(SourceKind))
        self.root, self.images, self.source = Path(root).expanduser(), images, source
        test = (test_captions or captions, test_language or language)
        sources = {"train": (captions, language), "val": (dev_captions or captions, language), "test": test}
        self.sources = {split: (name.replace("{language}", own), own) for split, (name, own) in sources.items()}
        for name, spelled in self.sources.values():
            check_source(name, spelled)

    def image_splits(self) -> ImageSplits:
        """The images of the split."""
        images = self._images.values()
        train = frozenset(image.name for image in images if image.split == "train")
        return ImageSplits(train, frozenset(image.name for image in images if image.split != "train"))

    def load_pairs(self) -> list[Pair]:
        """The pairs in the order of the split, the captions of an image one after the other."""
        captions = self._captions("train")
        if self.source != "caption":
            require_images(self._folder, captions)
        pairs = []
        for name, own in captions.items():
            image = self._image(name)
            for caption in own if name not in self.excluded_images else ():
                sources = {"image": [image], "caption": [caption.english], "both": [image, caption.english]}
                pairs += [Pair(source, caption.text, text_id(image)) for source in sources[self.source]]
        return pairs

    def load_collections(self) -> dict[str, Collection]:
        """``dev``, ``test`` and ``english``, the English captions of the test images."""
        dev, test = self._captions("val"), self._captions("test")
        require_images(self._folder, [*dev, *test])
        english = {name: _english(own, self._images[name]) for name, own in test.items()}
        texts = {"dev": _texts(dev), "test": _texts(test), "english": english}
        return {name: self._collection(name, own) for name, own in texts.items()}

    @cached_property
    def _images(self) -> dict[str, FlickrImage]:
        return read_flickr(self.root, self.split_lists)

    @cached_property
    def _folder(self) -> Path:
        return find_images(self.root, self.images)

    @cached_property
    def _read(self) -> dict[tuple[str, str], dict[str, list[Caption]]]:
        """The captions of each (source, language) by image."""
        used = set(self.sources.values())
        needed = {each: frozenset(split for split in get_args(Split) if self.sources[split] == each) for each in used}
        others = frozenset[str]()
        if any(source != "english" for source, _ in used):
            others = outside_the_split(self.root, self._images)
            if self.split_lists is not None:  # of the images in no list the token file may not be there to tell
                others |= read_flickr(self.root).keys() - self._images.keys()
        return {
            (source, language): read_captions(
                source, self.root, language, self._images, others, needed[source, language]
            )
            for source, language in used
        }

    def _captions(self, split: Split) -> dict[str, list[Caption]]:
        """The captions of the images of a split."""
        source, language = self.sources[split]
        found = self._read[source, language]
        own = {name: captions for name, captions in found.items() if self._images[name].split == split}
        if not own:
            option = {"train": "captions", "val": "dev_captions", "test": "test_captions"}[split]
            raise InputError(
                f"{source} has no caption in {language} for an image of the split {split!r}: "
                f"set data.{option} to a source that has"
            )
        return own

    def _image(self, name: str) -> str:
        return image_source(self._folder / f"{name}.jpg")

    def _collection(self, name: str, captions: Mapping[str, Sequence[str]]) -> Collection:
        documents = {image: self._image(image) for image in captions}
        queries = {f"{image}#{number}": text for image, own in captions.items() for number, text in enumerate(own)}
        reader: Side = "teacher" if name == "english" else "student"
        return image_text_collection(name, queries, documents, reader)


def image_text_collection(
    name: str, captions: Mapping[str, str], images: Mapping[str, str], reader: Side = "student"
) -> Collection:
    """A collection of captions, by ``<image>#<number>``, and images, to be searched in both directions."""
    forward: Qrels = {caption: {caption.rpartition("#")[0]: 1} for caption in captions}
    backward: Qrels = {image: {} for image in images}
    for caption, grades in forward.items():
        for image in grades:
            backward[image][caption] = 1
    views = (View(TEXT_TO_IMAGE, forward), View(IMAGE_TO_TEXT, backward, transposed=True))
    return Collection(name, captions, images, forward, reader, "teacher", views)


def _texts(captions: Mapping[str, Sequence[Caption]]) -> dict[str, list[str]]:
    return {name: [caption.text for caption in own] for name, own in captions.items()}


def _english(own: Sequence[Caption], image: FlickrImage) -> list[str]:
    """The English captions of an image, as many as it has in the student's language if that has fewer."""
    aligned = list(dict.fromkeys(caption.english for caption in own))
    return aligned if len(own) < len(image.captions) else list(image.captions)
