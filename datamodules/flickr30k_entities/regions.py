"""Boxes in images: how much two of them overlap, and the smallest box around some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.images import Box

HIT = 0.5
"""A region is right for a phrase from this intersection over union on (Plummer et al. 2015, section 4)."""


def box_iou(boxes: Sequence[Box], others: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of each of N boxes with each of M others, from 0 to 1; (N, M).

    The area of a box is (right - left) * (bottom - top): the number of its pixels, since right and bottom are not part
    of it.

    >>> box_iou([(0, 0, 10, 10)], [(0, 0, 10, 10), (5, 0, 15, 10), (10, 0, 20, 10)]).round(4).tolist()
    [[1.0, 0.3333, 0.0]]
    """
    first, second = _array(boxes)[:, None], _array(others)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = sides.clip(min=0).prod(-1)
    union = _area(first) + _area(second) - shared
    result = np.zeros(shared.shape, dtype=np.float64)
    np.divide(shared, union, out=result, where=union > 0)
    return result


def enclosing_box(boxes: Sequence[Box]) -> Box:
    """The smallest box around some boxes, at least one.

    >>> enclosing_box([(0, 5, 10, 20), (8, 0, 30, 10)])
    (0, 0, 30, 20)
    """
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def is_inside(box: Box, width: int, height: int) -> bool:
    """Whether a box holds at least one pixel and no pixel outside an image of this size."""
    left, top, right, bottom = box
    return 0 <= left < right <= width and 0 <= top < bottom <= height


def cut_to(box: Box, width: int, height: int) -> Box | None:
    """The part of a box that is inside an image of this size; None where nothing is.

    >>> cut_to((-3, 5, 20, 30), 10, 20), cut_to((12, 0, 20, 10), 10, 20)
    ((0, 5, 10, 20), None)
    """
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _array(boxes: Sequence[Box]) -> NDArray[np.int64]:
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def _area(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    area: NDArray[np.int64] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return area
