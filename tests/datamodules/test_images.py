"""Images as sources: their strings, what is read, and what the rest of the pipeline makes of them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.images import ImageReference, cache_text, image_source, is_image, load_image
from datamodules.leaks import find_leaks
from datamodules.pairs import Pair, pair_length
from datamodules.sources import ListSource
from foundations.errors import InputError
from retrieval.collection import Collection


@pytest.fixture
def picture(tmp_path) -> Path:
    """20 x 10 pixels: red on the left, blue on the right."""
    path = tmp_path / "a b#1?.png"
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[:, :10, 0] = 255
    pixels[:, 10:, 2] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    "reference",
    [
        ImageReference("/data/a.jpg"),
        ImageReference("/data/a b?c#d&e=%20é.jpg", box=(1, 2, 30, 40)),
        ImageReference("/data/a.jpg", noise="jpeg", severity=3, seed=7),
        ImageReference("/data/a.jpg", box=(0, 0, 1, 1), noise="motion", severity=5, seed=0),
    ],
)
def test_a_string_gives_back_its_image(reference: ImageReference) -> None:
    assert ImageReference.parse(str(reference)) == reference
    assert is_image(str(reference))
    assert " " not in str(reference)


@pytest.mark.parametrize("text", ["/data/a.jpg", "image:///a?box=1,2,3", "image:///a?box=a,b,c,d", "image:///a?x", ""])
def test_wrong_strings(text: str) -> None:
    with pytest.raises(ValueError, match=r"names no image|cannot read what stands behind the question mark"):
        ImageReference.parse(text)


def test_the_whole_image_and_a_box(picture: Path) -> None:
    image = load_image(image_source(picture))
    assert (image.size, image.mode) == ((20, 10), "RGB")
    right = load_image(str(ImageReference(str(picture), box=(10, 2, 20, 9))))
    assert right.size == (10, 7)
    assert np.array(right).reshape(-1, 3).tolist() == [[0, 0, 255]] * 70


@pytest.mark.parametrize("box", [(0, 0, 21, 10), (-1, 0, 5, 5), (5, 5, 5, 8), (8, 2, 6, 5), (0, 0, 10, 11)])
def test_a_box_outside_the_image(picture: Path, box) -> None:
    with pytest.raises(InputError, match="is not inside the image, which is 20 x 10"):
        load_image(str(ImageReference(str(picture), box=box)))


def test_relative_paths_become_absolute(picture: Path, monkeypatch) -> None:
    monkeypatch.chdir(picture.parent)
    assert image_source(picture.name) == image_source(picture)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode: str) -> None:
    path = tmp_path / "a.png"
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    if mode == "P":
        image = image.convert("RGB").quantize(2)
        image.save(path, transparency=image.getpixel((3, 3)))
        assert load_image(image_source(path)).getpixel((3, 3)) == (255, 255, 255)
        return
    image.convert(mode).save(path)
    found = load_image(image_source(path))
    assert found.getpixel((0, 0)) == (0, 0, 0)
    assert found.getpixel((3, 3)) == (255, 255, 255)


def test_a_photograph_is_turned_as_its_camera_says(tmp_path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right
    Image.new("RGB", (20, 10)).save(path, exif=exif)
    assert load_image(image_source(path)).size == (10, 20)


@pytest.mark.parametrize("mode", ["L", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    Image.new(mode, (4, 3)).save(path)
    assert load_image(image_source(path)).mode == "RGB"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
def test_damaged_files(tmp_path, suffix: str) -> None:
    """A file that is cut off anywhere is one clear error, never half an image."""
    path = tmp_path / f"a.{suffix}"
    random = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(random).save(path)
    whole = path.read_bytes()
    for size in (0, 3, 20, len(whole) // 2, len(whole) * 3 // 4):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"a\.{suffix}: is no image, or is damaged"):
            load_image(image_source(path))


def test_what_is_no_file(tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.jpg: no such image"):
        load_image(image_source(tmp_path / "none.jpg"))
    with pytest.raises(InputError, match="is no image, or is damaged"):
        load_image(image_source(tmp_path))


def test_a_changed_file_has_another_key_in_the_cache(picture: Path, tmp_path) -> None:
    text = image_source(picture)
    assert cache_text("water") == "water"
    before = cache_text(text)
    assert cache_text(text) == before
    os.utime(picture, (1, 1))
    assert cache_text(text) != before
    assert cache_text(str(ImageReference(str(picture), box=(0, 0, 5, 5)))) != cache_text(text)
    with pytest.raises(InputError, match="no such image"):
        cache_text(image_source(tmp_path / "none.jpg"))


def test_images_have_no_length() -> None:
    pair = Pair(image_source("/a/very/long/path/of/an/image.jpg"), "maji", 0)
    assert pair_length(pair) == 4
    assert pair_length(Pair("water is life", "maji", 0)) == 13
    assert ListSource([pair]).row_length(pair) == 4


def test_images_are_no_leaks() -> None:
    """Neither an image that asks, nor one that is a source; a caption still is."""
    image = image_source("/a.jpg")
    asked = Collection("test", {"q": image}, {"d": "maji"}, {"q": {"d": 1}}, "teacher", "student")
    written = Collection("dev", {"q": "Maji"}, {"d": image}, {"q": {"d": 1}})
    pairs = [Pair(image, "moto", 0), Pair(image, "maji", 0)]
    leaks, rows = find_leaks(pairs, {"test": asked, "dev": written})
    assert rows == [1]
    assert leaks.examples == ["maji"]


def test_an_image_of_more_pixels_than_anyone_has_memory_for_is_refused(tmp_path) -> None:
    """A bomb: 70 bytes that ask for 1.2 GB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"bomb\.png: is no image, or is damaged: .*exceeds limit"):
        load_image(image_source(path))
