"""Translation memories: units, languages, codes within segments, and files that are no TMX."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import pytest

from datamodules.bitext.tmx import read_tmx
from foundations.errors import InputError

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4"><header/><body>\n'
END = "</body></tmx>\n"


def unit(source: str, target: str, name: str = "xml:lang", languages: tuple[str, str] = ("en", "sw")) -> str:
    """A translation unit, as programs write it."""
    first, second = languages
    return (
        f'<tu><prop type="note">from a page</prop><tuv {name}="{first}">\n<seg>{source}</seg></tuv>'
        f'<tuv {name}="{second}"><seg>{target}</seg></tuv></tu>\n'
    )


def written(path: Path, *units: str, encoding: str = "utf-8") -> Path:
    path.write_bytes((HEAD.replace("UTF-8", encoding) + "".join(units) + END).encode(encoding))
    return path


def test_plain_zipped_and_in_utf_16_are_read_alike(tmp_path: Path) -> None:
    units = unit("clean  water", "maji &amp; safi"), unit("fire", "moto")
    expected = [("clean water", "maji & safi"), ("fire", "moto")]
    plain = written(tmp_path / "all.tmx", *units)
    assert list(read_tmx(plain)) == expected
    assert list(read_tmx(written(tmp_path / "wide.tmx", *units, encoding="utf-16"))) == expected
    with zipfile.ZipFile(tmp_path / "all.tmx.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(plain, "folder/all.TMX")
        archive.writestr("readme.txt", "not to be read")
    assert list(read_tmx(tmp_path / "all.tmx.zip")) == expected


def test_languages_are_found_by_tag_or_region_and_units_without_both_are_passed_over(tmp_path: Path) -> None:
    path = written(
        tmp_path / "all.tmx",
        unit("water", "maji", "lang", ("EN_us", "sw-KE")),
        unit("water", "ruwa", languages=("en", "ha")),
        unit("fire", "", languages=("sw", "en")),
    )
    assert list(read_tmx(path)) == [("water", "maji"), ("", "fire")]
    assert list(read_tmx(path, "en", "ha")) == [("water", "ruwa")]
    with pytest.raises(InputError, match=r"all.tmx: no unit has 'en' and 's', .*: EN-us, sw-KE, en, ha, sw$"):
        list(read_tmx(path, "en", "s"))


def test_codes_in_a_segment_are_no_text(tmp_path: Path) -> None:
    source = '<bpt i="1">&lt;b&gt;</bpt>Press <hi>Enter</hi><ept i="1">&lt;/b&gt;</ept> <ph>%s<sub>x</sub></ph>now'
    assert next(read_tmx(written(tmp_path / "a.tmx", unit(source, "Bonyeza"))))[0] == "Press Enter now"


def test_units_are_read_one_by_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tmx", *[unit(f"text number {row} " * 20, "maji " * 40) for row in range(4000)])
    tracemalloc.start()
    assert sum(1 for _ in read_tmx(path)) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD.encode() + unit("water", "maji").encode(), r"a.tmx:6: invalid XML \(no element found"),
        (b"water\tmaji\n", r"a.tmx:1: invalid XML"),
        (b"PK\x05\x06" + b"\0" * 18, r"a.tmx: the zip file holds no .tmx"),
    ],
)
def test_what_is_no_tmx_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.tmx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_tmx(path))


def test_a_damaged_zip_file_is_told(tmp_path: Path) -> None:
    plain = written(tmp_path / "a.tmx", *[unit(f"text {row}", f"maandishi {row}") for row in range(500)])
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(plain, "a.tmx")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[200:260] = b"\xff" * 60
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a.zip(:\d+)?: (cannot be unpacked|invalid XML)"):
        list(read_tmx(tmp_path / "a.zip"))


def test_entities_neither_grow_nor_read_files(tmp_path: Path) -> None:
    bomb = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 10))
    path = tmp_path / "bomb.tmx"
    path.write_text(HEAD.replace(' SYSTEM "tmx14.dtd"', f' [<!ENTITY e0 "lol">{bomb}]') + unit("&e9;", "x") + END)
    with pytest.raises(InputError, match=r"bomb.tmx:\d+: invalid XML \(limit on input amplification"):
        list(read_tmx(path))
    (tmp_path / "secret").write_text("secret")
    external = f' [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]'
    path.write_text(HEAD.replace(' SYSTEM "tmx14.dtd"', external) + unit("a &e; b", "x") + END)
    try:
        assert "secret" not in str(list(read_tmx(path)))
    except InputError as error:
        assert "undefined entity" in str(error)  # noqa: PT017
