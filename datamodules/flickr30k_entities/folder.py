"""The folder of Flickr30k Entities: images with their captions and boxes, checked against each other."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datamodules.flickr30k.files import find_images, require_images
from datamodules.flickr30k_entities.boxes import BoxAnnotation, Coordinates, read_annotation
from datamodules.flickr30k_entities.localisation import AnnotatedImage
from datamodules.flickr30k_entities.sentences import (
    NOT_VISUAL,
    Sentence,
    phrase_keys,
    read_sentences,
    read_split,
    read_unrelated,
)
from datamodules.images import Box, ImageReference
from foundations.errors import InputError
from foundations.progress import delayed_progress


@dataclass(frozen=True)
class EntitiesFolder:
    """What is read of the folder, each time for the requested images only.

    `images` is the folder of the images in `root`; None looks for flickr30k-images or images. For `lenient` see
    `datamodules.flickr30k_entities.datamodule.Flickr30kEntitiesDataModule`.
    """

    root: Path
    images: str | None = None
    coordinates: Coordinates = "official"
    lenient: bool = False

    def split(self, file: str) -> list[str]:
        """The images of ``train.txt``, ``val.txt`` or ``test.txt``."""
        if not self.root.is_dir():
            raise InputError("no such folder, expected one with Sentences, Annotations and train.txt", self.root)
        return read_split(self.root / file)

    def unrelated(self) -> set[tuple[str, int]]:
        """Captions that do not describe their image: (image, number from 0); none where there is no such file."""
        path = self.root / "UNRELATED_CAPTIONS"
        return read_unrelated(path) if path.is_file() else set()

    def sentences(self, names: Sequence[str], what: str = "Sentences") -> Iterator[tuple[str, tuple[Sentence, ...]]]:
        """The captions of some images, with a progress bar where that takes long."""
        with delayed_progress(f"read {what}", len(names)) as advance:
            for name in names:
                yield name, read_sentences(self.root / "Sentences" / f"{name}.txt")
                advance(1)

    def annotated(self, names: Sequence[str]) -> Iterator[AnnotatedImage]:
        """The captions and boxes of images; InputError (unless lenient) for a chain that the annotation lacks."""
        repaired = unknown = 0
        for name, sentences in self.sentences(names, "Sentences and Annotations"):
            path = self.root / "Annotations" / f"{name}.xml"
            annotation = read_annotation(path, self.coordinates, self.lenient)
            repaired += annotation.repaired
            unknown += self._unknown_chains(name, sentences, annotation)
            yield AnnotatedImage(name, sentences, annotation)
        if repaired or unknown:
            warnings.warn(
                f"{repaired:,} boxes were cut to their image or left out, and {unknown:,} phrases name a chain that is "
                "in no annotation",
                stacklevel=2,
            )

    def _unknown_chains(self, name: str, sentences: tuple[Sentence, ...], annotation: BoxAnnotation) -> int:
        """Number of phrases whose chain the annotation lacks."""
        unknown = [
            (key, phrase)
            for key, phrase in phrase_keys(name, sentences)
            if phrase.chain not in annotation.boxes and phrase.chain not in annotation.unboxed
            if phrase.chain != NOT_VISUAL and "notvisual" not in phrase.types
        ]
        if unknown and not self.lenient:
            key, phrase = unknown[0]
            raise InputError(
                f"the phrase {phrase.text!r} is of chain {phrase.chain}, which is not in Annotations/{name}.xml; with "
                "data.lenient it counts as one without a box",
                self.root / "Sentences" / f"{name}.txt",
                sentences[int(key.split("#")[1])].line,
            )
        return len(unknown)

    def reference(self, name: str, box: Box | None = None) -> str:
        """The string of an image, or of a region of it."""
        return str(ImageReference(f"{self.pictures}/{name}.jpg", box))

    @cached_property
    def pictures(self) -> str:
        """Absolute path of the folder of the images."""
        return os.path.abspath(find_images(self.root, self.images))  # noqa: PTH100  (a link stays what it is)

    def require_images(self, names: Iterable[str]) -> None:
        """Raise InputError where an image is missing: better now than in the middle of training."""
        require_images(Path(self.pictures), names)
