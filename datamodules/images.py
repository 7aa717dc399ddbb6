"""Images as the source of a pair: a string that names a file, and what is to be cut out of it or done to it.

Everything that holds, hashes, caches or writes the texts of pairs and collections holds images as strings too:
``image://`` and the percent-encoded path, then options: ``image:///data/36979.jpg?box=10,20,110,220``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

from foundations.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

PREFIX = "image://"
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels from 0; right and bottom are not part of the box."""


@dataclass(frozen=True)
class ImageReference:
    """An image, a part of one, or a corrupted one.

    Args:
        path: absolute path of the file.
        box: the part to cut out; None is the whole image.
        noise: name of a corruption of `datamodules.noise.image`; empty for none.
        severity: of the corruption, 1 to 5; 0 is none.
        seed: of the corruption's random numbers.

    >>> str(ImageReference("/data/a b.jpg", box=(0, 0, 20, 10)))
    'image:///data/a%20b.jpg?box=0,0,20,10'
    >>> ImageReference.parse("image:///data/a%20b.jpg?noise=jpeg&severity=3&seed=7").noise
    'jpeg'
    """

    path: str
    box: Box | None = None
    noise: str = ""
    severity: int = 0
    seed: int = 0

    def __str__(self) -> str:
        box = [] if self.box is None else [f"box={','.join(map(str, self.box))}"]
        noise = [f"noise={self.noise}&severity={self.severity}&seed={self.seed}"] if self.noise else []
        options = "&".join(box + noise)
        return f"{PREFIX}{quote(self.path)}" + (f"?{options}" if options else "")

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """The image that a string names.

        Raises:
            ValueError: it names none.
        """
        if not is_image(text):
            raise ValueError(f"{text!r} names no image, expected {PREFIX}/path/of/file.jpg")
        path, _, query = text.removeprefix(PREFIX).partition("?")
        try:
            options = dict(parse_qsl(query, strict_parsing=bool(query)))
            sides = [int(side) for side in options["box"].split(",")] if "box" in options else None
            box = None if sides is None else (sides[0], sides[1], sides[2], sides[3])
            severity, seed = int(options.get("severity", 0)), int(options.get("seed", 0))
        except (ValueError, IndexError) as error:
            raise ValueError(f"{text!r}: cannot read what stands behind the question mark") from error
        return cls(unquote(path), box, options.get("noise", ""), severity, seed)


def image_source(path: str | Path) -> str:
    """The string for a whole image."""
    return str(ImageReference(os.path.abspath(path)))  # noqa: PTH100  (a link stays what it is)


def is_image(text: str) -> bool:
    """Whether the source of a pair, or a text of a collection, is an image."""
    return text.startswith(PREFIX)


def cache_text(text: str) -> str:
    """What a cache knows a text by; of an image, the file's size and time of change as well."""
    if not is_image(text):
        return text
    path = ImageReference.parse(text).path
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise InputError(f"no such image ({error.strerror})", path) from error
    return f"{text}\0{stat.st_size}\0{stat.st_mtime_ns}"


def load_image(text: str) -> Image:
    """Read an image in RGB, turned as its camera says, cut to its box, and corrupted if it is to be.

    Args:
        text: an image's string, see `ImageReference`.

    Raises:
        InputError: there is no such file, it is no image or is damaged, or the box is not inside it.
    """
    reference = ImageReference.parse(text)
    image = _read(reference.path) if reference.box is None else _read_cached(reference.path)
    if reference.box is not None:
        left, top, right, bottom = reference.box
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            raise InputError(
                f"the box {reference.box} is not inside the image, which is {image.width} x {image.height}",
                reference.path,
            )
        image = image.crop(reference.box)
    if reference.noise and reference.severity:
        from datamodules.noise.image import corrupt

        image = corrupt(image, reference.noise, reference.severity, reference.seed)
    return image


def _read(path: str) -> Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                # What is transparent is white, as on a page.
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise InputError("no such image", path) from error
    except UnidentifiedImageError as error:
        raise InputError("is no image, or is damaged: no known format", path) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"is no image, or is damaged: {str(error).splitlines()[0]}", path) from error


_read_cached = lru_cache(maxsize=8)(_read)
