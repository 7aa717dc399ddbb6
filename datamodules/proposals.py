"""Proposed regions of images, from a file.

A line is ``image left top right bottom``, with tabs or spaces between: the image without ``.jpg``, then whole numbers
of pixels from 0; right and bottom are not part of the region. The order of the lines means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datamodules.grounding import is_inside
from datamodules.images import Box
from retrieval.errors import InputError
from retrieval.files import read_columns

_EXPECTED = "image left top right bottom"


def read_proposals(path: str | Path, sizes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[Box, ...]]:
    """The proposed regions of some images, each once.

    Args:
        path: the file; lines of other images are passed over.
        sizes: image -> width and height; every one of them must have a region in the file.

    Raises:
        InputError: no file, a line that is not as it should be, a region that is not inside its image, or an image
            without any.
    """
    found: dict[str, dict[Box, None]] = {image: {} for image in sizes}
    for line, columns in read_columns(path, _EXPECTED):
        image = columns[0].removesuffix(".jpg")
        if len(columns) != 5:
            raise InputError(f"found {len(columns)} columns, expected {_EXPECTED}", path, line)
        if image not in sizes:
            continue
        try:
            left, top, right, bottom = map(int, columns[1:])
        except ValueError:
            raise InputError(
                f"found {' '.join(columns[1:])!r}, expected four whole numbers: left top right bottom", path, line
            ) from None
        width, height = sizes[image]
        if not is_inside((left, top, right, bottom), width, height):
            raise InputError(
                f"the region {left} {top} {right} {bottom} is empty or not inside the image {image} of "
                f"{width} x {height} pixels",
                path,
                line,
            )
        found[image][left, top, right, bottom] = None
    if lacking := [image for image, boxes in found.items() if not boxes]:
        raise InputError(f"no region of the image {lacking[0]} ({len(lacking)} of {len(sizes)} images have none)", path)
    return {image: tuple(boxes) for image, boxes in found.items()}
