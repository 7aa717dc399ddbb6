"""Captions of Flickr30k Entities with their phrases marked: ``Sentences/<image>.txt``.

A line is a caption: ``[/EN#7/people/animals A man] waits near [/EN#9/scene the bar] .`` The number is the *chain*:
phrases of one image with the same chain mean the same thing, and the image's boxes are by chain. Chain 0 is not visual
and never had a box. A phrase has one type or several. Phrases inside phrases are read as well.

``UNRELATED_CAPTIONS`` lists captions that do not describe their image: ``<image> <number of the caption from 1>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foundations.errors import InputError
from foundations.files import read_columns, require_file

NOT_VISUAL = "0"

_OPENING = re.compile(r"\[/EN#(\d+)((?:/[A-Za-z]+)+) ")

_MARK = re.compile(r"\[/|\]")

_EXPECTED = "[/EN#<chain>/<type> words]"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase of a caption.

    Args:
        text: its words.
        chain: what it refers to; ``0`` is not visual.
        types: at least one of people, clothing, bodyparts, animals, vehicles, instruments, scene, other, notvisual.
        start: place of its first character in the caption.
        end: place behind its last one: ``caption.text[start:end] == text``.
    """

    text: str
    chain: str
    types: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A caption without its marks, and its phrases in the order in which they begin.

    Args:
        text: the caption.
        phrases: all of them, those without a box included.
        line: its line in the file, from 1.
    """

    text: str
    phrases: tuple[Phrase, ...]
    line: int


def read_sentences(path: str | Path) -> tuple[Sentence, ...]:
    """The captions of an image in the order of the file, which is that of ``results_20130124.token``.

    Raises:
        InputError: no file, no caption in it, invalid UTF-8, or marks that do not fit, with the line.
    """
    path = require_file(path)
    sentences = []
    for number, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = " ".join(raw.decode("utf-8").split())
            if line:
                sentences.append(parse_sentence(line, number))
        except UnicodeDecodeError as error:
            raise InputError(f"invalid UTF-8 ({error.reason}), expected a caption", path, number) from None
        except ValueError as error:
            raise InputError(str(error), path, number) from None
    if not sentences:
        raise InputError(f"there is no caption in the file, expected lines with {_EXPECTED}", path)
    return tuple(sentences)


def parse_sentence(line: str, number: int = 1) -> Sentence:
    """A caption from its marked form.

    Args:
        line: the caption, with single spaces.
        number: its line in the file.

    Raises:
        ValueError: a mark is wrong, or is not closed.

    >>> parse_sentence("[/EN#7/people A man] waits near [/EN#9/scene the bar] .").phrases[1]
    Phrase(text='the bar', chain='9', types=('scene',), start=17, end=24)
    """
    text, done = "", 0
    open_: list[tuple[str, tuple[str, ...], int, int]] = []
    found: list[tuple[int, Phrase]] = []
    count = 0
    for mark in _MARK.finditer(line):
        text += line[done : mark.start()]
        if mark.group() == "]":
            done = mark.end()
            if not open_:
                text += _stray(line, mark.start())
                continue
            chain, types, start, place = open_.pop()
            text = text.rstrip(" ")
            if len(text) <= start:
                raise ValueError(f"the phrase of chain {chain} has no words, expected {_EXPECTED}")
            found.append((place, Phrase(text[start:], chain, types, start, len(text))))
        else:
            opening = _OPENING.match(line, mark.start())
            if opening is None:
                raise ValueError(f"cannot read {line[mark.start() :][:40]!r}, expected {_EXPECTED}")
            done = opening.end()
            open_.append((opening[1], tuple(opening[2][1:].split("/")), len(text), count))
            count += 1
    if open_:
        raise ValueError(f"the phrase of chain {open_[-1][0]} has no closing bracket, expected {_EXPECTED}")
    phrases = tuple(phrase for _, phrase in sorted(found, key=lambda item: item[0]))
    return Sentence((text + line[done:]).rstrip(" "), phrases, number)


def read_unrelated(path: str | Path) -> set[tuple[str, int]]:
    """The captions that do not describe their image: (image, number of the caption from 0).

    Raises:
        InputError: no file, or a line that is not an image and a number from 1.
    """
    found = set()
    for line, columns in read_columns(path, "image and number of the caption"):
        if columns[0].startswith("#"):
            continue
        if len(columns) != 2 or not columns[1].isdecimal() or int(columns[1]) < 1:
            raise InputError(f"found {' '.join(columns)!r}, expected an image and a number from 1", path, line)
        found.add((columns[0], int(columns[1]) - 1))
    return found


def read_split(path: str | Path) -> list[str]:
    """The images of ``train.txt``, ``val.txt`` or ``test.txt``: one name a line, without ``.jpg``.

    Raises:
        InputError: no file or an empty one, more than a name in a line, or a name twice.
    """
    lines: dict[str, int] = {}
    for line, columns in read_columns(path, "the name of an image"):
        name = columns[0].removesuffix(".jpg")
        if len(columns) != 1 or "/" in name:
            raise InputError(f"found {' '.join(columns)!r}, expected the name of one image", path, line)
        if name in lines:
            raise InputError(f"the image {name} is already in line {lines[name]}", path, line)
        lines[name] = line
    return list(lines)


def phrase_keys(image: str, sentences: tuple[Sentence, ...]) -> Iterator[tuple[str, Phrase]]:
    """Every phrase of an image under its key ``image#caption#phrase``, both numbers from 0."""
    for number, sentence in enumerate(sentences):
        for place, phrase in enumerate(sentence.phrases):
            yield f"{image}#{number}#{place}", phrase


def _stray(line: str, place: int) -> str:
    """A closing bracket where no phrase is open: text if it stands alone."""
    if line[max(place - 1, 0) : place + 2].strip() != "]":
        raise ValueError(f"a bracket closes nothing behind {line[max(place - 30, 0) : place]!r}, expected {_EXPECTED}")
    return "]"
