"""Boxes of Flickr30k Entities: ``Annotations/<image>.xml``.

    <annotation>
      <size><width>500</width><height>375</height><depth>3</depth></size>
      <object>                        one box, of one chain or of several
        <name>7</name><name>8</name>
        <bndbox><xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>220</ymax></bndbox>
      </object>
      <object>                        a chain without a box: the whole scene, or not to be seen
        <name>9</name><scene>1</scene><nobndbox>0</nobndbox>
      </object>
    </annotation>

A chain may have several boxes, in objects of their own. Corners can be read in two ways (`Coordinates`):

- ``official``: pixels counted from 1, both corners inside the box; the parser that comes with the data subtracts 1
  from all of them. xmin 10 and xmax 110 are the 101 columns 9 to 109, counted from 0.
- ``continuous``: the numbers are borders as they stand. xmin 10 and xmax 110 are the 100 columns 10 to 109. The
  evaluation of MDETR, and of many after it, computes IoU like this.

Both give a box without its right and bottom border, so IoU is the share of pixels in both cases; the two differ by a
row and a column, which moves a few phrases over the threshold of 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from datamodules.flickr30k_entities.regions import cut_to, is_inside
from datamodules.images import Box
from foundations.errors import InputError
from foundations.files import require_file

Coordinates = Literal["official", "continuous"]
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LENIENT = "; with data.lenient a box is cut to its image, or left out"


@dataclass(frozen=True, slots=True)
class BoxAnnotation:
    """What is marked in an image, whose width and height are in pixels.

    `boxes` has each box of a chain once, in the order of the file; `unboxed` are chains that are known to have no box
    (some have one all the same, in another object); `repaired` counts the boxes that were cut or left out.
    """

    width: int
    height: int
    boxes: dict[str, tuple[Box, ...]]
    unboxed: frozenset[str]
    repaired: int = 0


def read_annotation(path: str | Path, coordinates: Coordinates = "official", lenient: bool = False) -> BoxAnnotation:
    """The boxes of an image; `lenient` cuts those that reach out of it, and leaves out what is empty then.

    A file that declares a document type or entities is refused: the official ones do not, and entities can be made to
    fill the memory. InputError, with the line where there is one, for no file, no XML or a truncated one, something
    missing in it, a number that is none, or (unless lenient) a box that is not inside its image.
    """
    path = require_file(path)
    content = path.read_bytes()
    root = _parse(path, content)
    width, height = _size(root, path)
    boxes: dict[str, dict[Box, None]] = {}
    unboxed: set[str] = set()
    repaired = 0
    for index, element in enumerate(root.findall("object")):
        try:
            chains, as_marked = _object(element, coordinates)
            whole = [box if is_inside(box, width, height) else cut_to(box, width, height) for box in as_marked]
            changed = [box for box, part in zip(as_marked, whole, strict=True) if box != part]
            if changed and not lenient:
                raise ValueError(_outside(element, width, height) + _LENIENT)
        except ValueError as error:
            raise InputError(str(error), path, _line_of_object(content, index)) from None
        repaired += len(changed)
        for chain in chains:
            if not as_marked:
                unboxed.add(chain)
            boxes.setdefault(chain, {}).update({box: None for box in whole if box is not None})
    kept = {chain: tuple(listed) for chain, listed in boxes.items() if listed}
    return BoxAnnotation(width, height, kept, frozenset(unboxed | (boxes.keys() - kept.keys())), repaired)


def _parse(path: Path, content: bytes) -> ElementTree.Element:
    for mark in (b"<!DOCTYPE", b"<!ENTITY", b"\0"):
        if (offset := content.find(mark)) >= 0:
            what = "a zero byte" if mark == b"\0" else mark.decode()
            raise InputError(f"found {what}, expected a plain annotation in UTF-8", path, _line(content, offset))
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        reason = str(error).partition(":")[0]
        raise InputError(f"is no XML, or is cut off: {reason}", path, error.position[0]) from None
    except (ValueError, LookupError) as error:  # an encoding that nobody knows
        raise InputError(f"is no XML: {error}", path, 1) from None


def _size(root: ElementTree.Element, path: Path) -> tuple[int, int]:
    try:
        width, height = _numbers(root.find("size"), ("width", "height"), "size")
    except ValueError as error:
        raise InputError(str(error), path) from None
    if width < 1 or height < 1:
        raise InputError(f"the size is {width} x {height}, expected at least one pixel", path)
    return width, height


def _object(element: ElementTree.Element, coordinates: Coordinates) -> tuple[list[str], list[Box]]:
    """The chains of an object, and its boxes."""
    chains = [(name.text or "").strip() for name in element.findall("name")]
    if not chains or not all(chain.isdecimal() for chain in chains):
        raise ValueError(f"an object with the names {chains}, expected the number of at least one chain")
    elements = element.findall("bndbox")
    if not elements:
        if element.find("scene") is None and element.find("nobndbox") is None:
            raise ValueError(f"the object of chain {chains[0]} has neither bndbox nor scene nor nobndbox")
        return chains, []
    first = 1 if coordinates == "official" else 0
    corners = [_numbers(box, _CORNERS, "bndbox") for box in elements]
    return chains, [(left - first, top - first, right, bottom) for left, top, right, bottom in corners]


def _numbers(element: ElementTree.Element | None, names: Sequence[str], what: str) -> list[int]:
    """The numbers in an element's children of these names."""
    texts = {} if element is None else {child.tag: child.text or "" for child in element}
    numbers = []
    for name in names:
        if name not in texts:
            raise ValueError(f"there is no {name} in a {what}" if element is not None else f"there is no {what}")
        try:
            numbers.append(int(texts[name]))
        except ValueError:
            raise ValueError(f"{name} is {texts[name].strip()!r}, expected a whole number") from None
    return numbers


def _outside(element: ElementTree.Element, width: int, height: int) -> str:
    chain = (element.findtext("name") or "").strip()
    corners = [" ".join((box.findtext(corner) or "").strip() for corner in _CORNERS) for box in element.iter("bndbox")]
    return (
        f"the box {', '.join(corners)} of chain {chain} is empty or not inside the image of {width} x {height} pixels"
    )


def _line_of_object(content: bytes, index: int) -> int:
    """The line on which an object begins, by its index from 0."""
    start = -1
    for _ in range(index + 1):
        start = content.find(b"<object", start + 1)
    return _line(content, max(start, 0))


def _line(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1
