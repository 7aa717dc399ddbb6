"""Phrase localisation as a collection: queries are phrases, documents the regions of their images.

The views, each with a mean over all phrases and one for every type (a phrase of two types counts in both, as in the
public evaluation code):

- ``any_box``: a region is right if its IoU with any box of the phrase's chain is at least 0.5;
- ``merged_box``: if it is with the smallest box around them;
- ``regions``: the regions of all images are ranked, and those of the own image that one of the two calls right are.

``success@k`` of the first two is the R@k of phrase localisation, and ``upper_bound`` the share of phrases for which any
proposal is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datamodules.flickr30k_entities.boxes import BoxAnnotation
from datamodules.flickr30k_entities.regions import HIT, box_iou, enclosing_box, is_inside
from datamodules.flickr30k_entities.sentences import Phrase, Sentence, phrase_keys
from datamodules.images import Box
from foundations.errors import InputError
from foundations.files import read_columns
from retrieval.collection import Collection, Qrels, Side, View

Proposals = Mapping[str, Sequence[Box]]


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of Flickr30k Entities by its name without ``.jpg``, its captions and its boxes."""

    name: str
    sentences: tuple[Sentence, ...] = field(repr=False)
    annotation: BoxAnnotation = field(repr=False)

    def phrases(self) -> Iterable[tuple[str, Phrase]]:
        """The phrases with a box, under their keys ``image#caption#phrase``."""
        boxes = self.annotation.boxes
        return ((key, phrase) for key, phrase in phrase_keys(self.name, self.sentences) if phrase.chain in boxes)

    def merged(self, chain: str) -> Box:
        """The smallest box around the boxes of a chain."""
        return enclosing_box(self.annotation.boxes[chain])


def localisation(
    name: str,
    images: Sequence[AnnotatedImage],
    texts: Mapping[str, str],
    proposals: Proposals | None,
    reference: Callable[[str, Box], str],
    query_side: Side = "student",
) -> Collection:
    """The phrases of some images, as queries to the regions of their image.

    `texts` gives the text of a query by the key of its phrase; phrases without one are left out. `proposals` are the
    regions of each image; None proposes the ground truth: for ``any_box`` the boxes of all chains of the image, for
    ``merged_box`` the smallest box of each of its chains. `reference` gives the string of a region, from the image's
    name and the box.
    """
    documents: dict[str, str] = {}
    judged: dict[str, Qrels] = {"any_box": {}, "merged_box": {}, "regions": {}}
    candidates: dict[str, dict[str, list[str]]] = {"any_box": {}, "merged_box": {}}
    groups: dict[str, tuple[str, ...]] = {}
    for image in images:
        offered = _offered(image, None if proposals is None else proposals[image.name])
        ids = {view: [region_id(image.name, box) for box in boxes] for view, boxes in offered.items()}
        right = {view: _right(image, view, boxes) for view, boxes in offered.items()}
        for boxes in offered.values():
            documents |= {region_id(image.name, box): reference(image.name, box) for box in boxes}
        for key, phrase in image.phrases():
            if key not in texts:
                continue
            groups[key] = phrase.types
            for view, rows in right.items():
                judged[view][key] = {ids[view][row]: 1 for row in rows[phrase.chain]}
                candidates[view][key] = ids[view]
            judged["regions"][key] = judged["any_box"][key] | judged["merged_box"][key]
    views = tuple(View(view, qrels, candidates=candidates.get(view), groups=groups) for view, qrels in judged.items())
    queries = {key: texts[key] for key in groups}
    return Collection(name, queries, documents, judged["any_box"], query_side, "teacher", views)


def region_id(image: str, box: Box) -> str:
    """The id of a region.

    >>> region_id("36979", (10, 20, 110, 220))
    '36979@10,20,110,220'
    """
    return f"{image}@{','.join(map(str, box))}"


def _offered(image: AnnotatedImage, proposals: Sequence[Box] | None) -> dict[str, list[Box]]:
    """The regions to choose from, for each of the two views."""
    if proposals is not None:
        return {"any_box": list(proposals), "merged_box": list(proposals)}
    chains = image.annotation.boxes
    every = dict.fromkeys(box for boxes in chains.values() for box in boxes)
    return {"any_box": list(every), "merged_box": list(dict.fromkeys(image.merged(chain) for chain in chains))}


def _right(image: AnnotatedImage, view: str, regions: Sequence[Box]) -> dict[str, list[int]]:
    """The indices of the regions that are right for each chain of an image."""
    chains = image.annotation.boxes
    targets = {chain: boxes if view == "any_box" else (image.merged(chain),) for chain, boxes in chains.items()}
    hits = box_iou(regions, [box for boxes in targets.values() for box in boxes]) >= HIT
    right, start = {}, 0
    for chain, boxes in targets.items():
        right[chain] = np.flatnonzero(hits[:, start : start + len(boxes)].any(axis=1)).tolist()
        start += len(boxes)
    return right


_EXPECTED = "image left top right bottom"


def read_proposals(path: str | Path, sizes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[Box, ...]]:
    """The proposed regions of some images (name -> width and height), each once; other images are passed over.

    InputError for no file, a malformed line, a region that is not inside its image, or an image without any region.
    """
    proposals: dict[str, dict[Box, None]] = {image: {} for image in sizes}
    for line, (name, *corners) in read_columns(path, _EXPECTED, 5):
        image = name.removesuffix(".jpg")
        if image not in sizes:
            continue
        try:
            left, top, right, bottom = map(int, corners)
        except ValueError:
            raise InputError(f"found {' '.join(corners)!r}, expected four whole numbers", path, line) from None
        width, height = sizes[image]
        if not is_inside((left, top, right, bottom), width, height):
            box = f"{left} {top} {right} {bottom}"
            problem = f"is empty or not inside the image {image} of {width} x {height} pixels"
            raise InputError(f"the region {box} {problem}", path, line)
        proposals[image][left, top, right, bottom] = None
    if lacking := [image for image, boxes in proposals.items() if not boxes]:
        raise InputError(f"no region of the image {lacking[0]} ({len(lacking)} of {len(sizes)} images have none)", path)
    return {image: tuple(boxes) for image, boxes in proposals.items()}
