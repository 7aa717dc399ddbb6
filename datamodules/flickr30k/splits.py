"""Splits of the same images: no image that one dataset is tested on may be trained on by another.

The two splits of Flickr30k overlap: 944 of the 1,000 test images of Karpathy's are training images of Flickr30k
Entities, and 903 of its 1,000 test images are training images of Karpathy's. Whoever mixes them is refused, unless
``remove_overlap`` says to leave those images out of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from datamodules.base import PairsDataModule
from foundations.errors import InputError

SourceKind = Literal["image", "caption", "both"]
"""What the teacher reads of a pair: the image, the English caption, or both, which makes two pairs."""

_Part = TypeVar("_Part", bound=PairsDataModule)


@dataclass(frozen=True)
class ImageSplits:
    """Which images a dataset uses for what.

    Args:
        train: names of the images that it is trained on, without folder and suffix.
        evaluated: names of those of ``dev`` and ``test``.
    """

    train: frozenset[str]
    evaluated: frozenset[str]


class SplitByImage(PairsDataModule):
    """A datamodule whose pairs and collections come from images that other datasets use as well.

    A subclass leaves the images of `excluded_images` out of its pairs. Its ids hold for other datasets as well: the
    `datamodules.text.text_id` of the image or text that pairs share.

    Args:
        remove_overlap: leave images out of training that are ``dev`` or ``test`` images of another split in the same
            run; without it such a run is refused.
        **options: those of `PairsDataModule`.
    """

    excluded_images: frozenset[str] = frozenset()
    """Names of images that must not be trained on, without folder and suffix; set before `setup`."""

    def __init__(self, remove_overlap: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.remove_overlap = remove_overlap

    def check_teacher(self, teacher: Any) -> None:
        """Look whether a teacher can teach these data; see `PairsDataModule.check_teacher`.

        Raises:
            InputError: it reads texts only, or has learned from images that these data test on.
        """
        super().check_teacher(teacher)
        learned: frozenset[str] = getattr(getattr(teacher, "teacher", teacher), "learned_images", frozenset())
        if shared := learned & (self.image_splits().evaluated if learned else frozenset()):
            raise InputError(
                f"the teacher has learned from {len(shared):,} of the dev and test images of these data, such as "
                f"{min(shared)}: give it the same split (data.split and model.teacher.teacher.split, or split_lists)"
            )

    def image_splits(self) -> ImageSplits:
        """Hook: the images that it will use, read from the files of the split alone."""
        raise NotImplementedError


def keep_apart(parts: Mapping[str, _Part]) -> dict[str, _Part]:
    """The parts of a run, none of which is trained on images that another part is evaluated on.

    Args:
        parts: name -> datamodule; those that are not `SplitByImage` have images of their own.

    Returns:
        The same, with copies of those that must leave images out; see `SplitByImage.excluded_images`.

    Raises:
        InputError: there are such images, and the part with the training images has no ``remove_overlap``.
    """
    by_image = {name: part for name, part in parts.items() if isinstance(part, SplitByImage)}
    if len(by_image) < 2:
        return dict(parts)
    splits = {name: part.image_splits() for name, part in by_image.items()}
    kept = dict(parts)
    for name, part in by_image.items():
        removed = part.excluded_images
        for second, images in splits.items():
            if second != name:
                removed |= overlap(splits[name].train, images.evaluated, part.remove_overlap, name, second)
        kept[name] = part.with_attributes(excluded_images=removed)
    return kept


def overlap(
    train: Iterable[str], evaluated: Iterable[str], remove_overlap: bool, name: str, second: str
) -> frozenset[str]:
    """Images that are trained on in one split and evaluated on in another.

    Args:
        train: training images of the split `name`.
        evaluated: dev and test images of the split `second`.
        remove_overlap: whether they will be left out of training.
        name: of the first split, for the message.
        second: of the second split, for the message.

    Raises:
        InputError: there are some, and they will not be left out.
    """
    evaluated = frozenset(evaluated)
    shared = frozenset(train) & evaluated
    if shared and not remove_overlap:
        raise InputError(
            f"{len(shared):,} of the {len(evaluated):,} dev and test images of {second} are training images of {name}, "
            f"such as {min(shared)}: set remove_overlap to true for {name} to leave them out of training"
        )
    return shared
