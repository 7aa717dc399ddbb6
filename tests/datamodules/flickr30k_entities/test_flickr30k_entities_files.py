"""The files of Flickr30k Entities: captions, boxes, proposals, translations, and what may be wrong with them."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from datamodules.flickr30k_entities.boxes import read_annotation
from datamodules.flickr30k_entities.folder import EntitiesFolder
from datamodules.flickr30k_entities.localisation import read_proposals
from datamodules.flickr30k_entities.regions import box_iou, enclosing_box
from datamodules.flickr30k_entities.sentences import parse_sentence, read_sentences, read_split, read_unrelated
from datamodules.flickr30k_entities.translations import read_translations
from datamodules.images import load_image
from foundations.errors import InputError
from tests.datamodules.flickr30k_entities.entities_layout import SENTENCES, annotation, write_folder


def test_phrases_stand_where_they_say() -> None:
    sentence = parse_sentence(SENTENCES[0])
    assert sentence.text == "A man waits with a dog in the sun ."
    assert [(phrase.text, phrase.chain, phrase.types) for phrase in sentence.phrases] == [
        ("A man", "1", ("people",)),
        ("a dog", "2", ("animals",)),
        ("the sun", "4", ("scene",)),
    ]
    assert all(sentence.text[phrase.start : phrase.end] == phrase.text for phrase in sentence.phrases)
    assert parse_sentence(SENTENCES[1]).phrases[0].types == ("people", "clothing")
    assert parse_sentence(SENTENCES[2]).phrases[0].chain == "0"


def test_a_phrase_inside_a_phrase_and_odd_spacing() -> None:
    sentence = parse_sentence("[/EN#5/people a man in [/EN#6/clothing a hat ]] , ] and [ so")
    assert sentence.text == "a man in a hat , ] and [ so"
    assert [(phrase.text, phrase.chain) for phrase in sentence.phrases] == [("a man in a hat", "5"), ("a hat", "6")]
    assert all(sentence.text[phrase.start : phrase.end] == phrase.text for phrase in sentence.phrases)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[/EN#1/people A man waits", "no closing bracket"),
        ("A man] waits", "closes nothing"),
        ("[/EN#1/people A man]] waits", "closes nothing"),
        ("[/EN#x/people A man] waits", "cannot read"),
        ("[/EN#1 A man] waits", "cannot read"),
        ("[/DE#1/people Ein Mann] wartet", "cannot read"),
        ("[/EN#1/people ] waits", "no words"),
        ("[/EN#1/people] waits", "cannot read"),
    ],
)
def test_wrong_marks_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "1.txt"
    file.write_text(f"fine .\n\n{line}\n")
    with pytest.raises(InputError, match=message) as error:
        read_sentences(file)
    assert str(error.value).startswith(f"{file}:3: ")


def test_other_caption_files(tmp_path: Path) -> None:
    file = tmp_path / "1.txt"
    file.write_bytes("\ufeffein Bär .\r\n\r\n[/EN#1/people A man] .\r\n".encode())
    sentences = read_sentences(file)
    assert [sentence.text for sentence in sentences] == ["ein Bär .", "A man ."]
    assert [sentence.line for sentence in sentences] == [1, 3]
    file.write_bytes(b"fine .\n\xff\xfe .\n")
    with pytest.raises(InputError, match=r"1\.txt:2: invalid UTF-8"):
        read_sentences(file)
    file.write_text("\n")
    with pytest.raises(InputError, match="the file is empty, expected lines of captions"):
        read_sentences(file)
    with pytest.raises(InputError, match="no such file"):
        read_sentences(tmp_path / "2.txt")


def test_boxes_by_both_conventions(tmp_path: Path) -> None:
    file = tmp_path / "1.xml"
    file.write_text(annotation({"7+8": [(10, 20, 30, 40)], "7": [(1, 1, 60, 40), (10, 20, 30, 40)]}, ["9", "7"]))
    official = read_annotation(file)
    assert (official.width, official.height) == (60, 40)
    assert official.boxes == {"7": ((9, 19, 30, 40), (0, 0, 60, 40)), "8": ((9, 19, 30, 40),)}
    assert official.unboxed == {"7", "9"}
    assert read_annotation(file, "continuous").boxes["8"] == ((10, 20, 30, 40),)


def test_the_official_box_is_what_was_painted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "entities")
    entities = EntitiesFolder(folder)
    image = next(iter(entities.annotated(["301"])))
    for chain, colour in (("1", (255, 0, 0)), ("2", (0, 0, 255)), ("3", (0, 128, 0))):
        for left, top, right, bottom in image.annotation.boxes[chain]:
            inside = np.array(load_image(entities.reference("301", (left, top, right, bottom))), dtype=int)
            assert inside.shape == (bottom - top, right - left, 3)
            assert np.abs(inside - colour).max() < 80
            beside = (right, top, right + 1, bottom) if right < 60 else (left - 1, top, left, bottom)
            assert np.array(load_image(entities.reference("301", beside))).min() > 170  # white


def test_iou_by_hand() -> None:
    # 10 x 10 pixels, against: the same; the right half; a quarter; a neighbour; a box around it.
    others = [(0, 0, 10, 10), (5, 0, 10, 10), (5, 5, 15, 15), (10, 0, 20, 10), (0, 0, 20, 10)]
    assert box_iou([(0, 0, 10, 10)], others)[0].tolist() == [1.0, 0.5, 25 / 175, 0.0, 0.5]
    # The corners 1 1 10 10 and 6 1 15 10: 5 of 15 columns shared as pixels, 4 of 14 as borders.
    assert box_iou([(0, 0, 10, 10)], [(5, 0, 15, 10)])[0, 0] == 5 / 15
    assert box_iou([(1, 1, 10, 10)], [(6, 1, 15, 10)])[0, 0] == 4 / 14
    assert box_iou([], others).shape == (0, 5)
    assert enclosing_box([(1, 2, 3, 4), (0, 3, 2, 9)]) == (0, 2, 3, 9)


def test_iou_equals_counting_pixels() -> None:
    generator = random.Random(0)

    def any_box() -> tuple[int, int, int, int]:
        left, right = sorted(generator.sample(range(12), 2))
        top, bottom = sorted(generator.sample(range(12), 2))
        return left, top, right, bottom

    def pixels(box: tuple[int, int, int, int]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    boxes, others = [any_box() for _ in range(20)], [any_box() for _ in range(20)]
    slow = [[len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) for b in others] for a in boxes]
    assert box_iou(boxes, others).tolist() == slow


OBJECT = "<object><name>1</name>{}</object>"
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        (
            OBJECT.format(BOX.format(1, 1, 61, 40)),
            3,
            "the box 1 1 61 40 of chain 1 .* 60 x 40 pixels; with data.lenient",
        ),
        (OBJECT.format(BOX.format(0, 1, 9, 9)), 3, "not inside the image"),
        (OBJECT.format(BOX.format(9, 1, 8, 9)), 3, "not inside the image"),
        (OBJECT.format(BOX.format("a", 1, 8, 9)), 3, "xmin is 'a', expected a whole number"),
        (OBJECT.format("<bndbox><xmin>1</xmin></bndbox>"), 3, "no ymin in a bndbox"),
        (OBJECT.format(""), 3, "neither bndbox nor scene"),
        ("<object>" + BOX.format(1, 1, 8, 9) + "</object>", 3, "expected the number of at least one chain"),
        ("<object><name>EN#1</name><scene>1</scene></object>", 3, "expected the number of at least one chain"),
        ("<object><name>1</name>", 4, "no XML, or is cut off"),
    ],
)
def test_wrong_objects_name_file_and_line(tmp_path: Path, body: str, line: int, message: str) -> None:
    file = tmp_path / "1.xml"
    size = "<size><width>60</width><height>40</height></size>"
    file.write_text(f"<annotation>{size}\n{OBJECT.format('<nobndbox>1</nobndbox>')}\n{body}\n</annotation>\n")
    with pytest.raises(InputError, match=message) as error:
        read_annotation(file)
    assert str(error.value).startswith(f"{file}:{line}: ")


def test_cut_off_anywhere_is_one_error(tmp_path: Path) -> None:
    file, text = tmp_path / "1.xml", annotation({"1": [(1, 1, 9, 9)]}, ["2"]).strip()
    for end in range(0, len(text) - 1, 7):
        file.write_text(text[:end])
        with pytest.raises(InputError, match=r"1\.xml:\d+: is no XML, or is cut off"):
            read_annotation(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', ":2: found <!DOCTYPE"),
        ("<annotation/>".encode("utf-16-le").decode("latin-1"), ":1: found a zero byte"),
        ('<?xml version="1.0" encoding="wrong"?><annotation/>', ":1: is no XML"),
        ("<annotation><size><width>4</width></size></annotation>", "there is no height in a size"),
        ("<annotation><object/></annotation>", "there is no size"),
        ("<annotation><size><width>0</width><height>2</height></size></annotation>", "the size is 0 x 2"),
    ],
)
def test_other_wrong_xml(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "1.xml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_annotation(file)


def test_lenient_cuts_boxes_and_accepts_unknown_chains(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "entities")
    file = folder / "Annotations" / "301.xml"
    file.write_text(annotation({"1": [(0, 1, 70, 40)], "2": [(61, 1, 70, 40)]}, ["4"]))
    entities = EntitiesFolder(folder, lenient=True)
    with pytest.warns(UserWarning, match="2 boxes were cut .* and 2 phrases name a chain"):
        image = next(iter(list(entities.annotated(["301"]))))
    assert image.annotation.boxes == {"1": ((0, 0, 60, 40),)}
    assert image.annotation.unboxed == {"2", "4"}
    strict = EntitiesFolder(folder)
    file.write_text(annotation({"1": [(1, 1, 9, 9)], "2": [(1, 1, 9, 9)]}, ["4"]))
    with pytest.raises(InputError, match=r"301\.txt:2: the phrase 'two green hats' is of chain 3"):
        list(strict.annotated(["301"]))
    file.write_text(annotation({"1+2+3": [(1, 1, 9, 9)]}, ["4"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(strict.annotated(["301"]))) == 1


def test_lists_of_images(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    file.write_text("12\n\n13.jpg\n")
    assert read_split(file) == ["12", "13"]
    for text, message in (
        ("12\n13\n12\n", ":3: .* already in line 1"),
        ("12 13\n", ":1: found '12 13'"),
        ("", "empty"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_split(file)
    file.write_text("# format\n12 1\n13 5\n")
    assert read_unrelated(file) == {("12", 0), ("13", 4)}
    file.write_text("# format\n12 0\n")
    with pytest.raises(InputError, match=":2: found '12 0', expected an image and a number from 1"):
        read_unrelated(file)


def test_proposals(tmp_path: Path) -> None:
    file, sizes = tmp_path / "boxes.tsv", {"1": (60, 40), "2": (10, 10)}
    file.write_text("1\t0\t0\t60\t40\n9\t0\t0\t999\t999\n1.jpg 5 5 6 6\n2\t0\t0\t1\t1\n1 5 5 6 6\n")
    assert read_proposals(file, sizes) == {"1": ((0, 0, 60, 40), (5, 5, 6, 6)), "2": ((0, 0, 1, 1),)}
    for text, message in (
        ("1 0 0 60 41\n", ":1: the region 0 0 60 41 is empty or not inside the image 1 of 60 x 40 pixels"),
        ("2 0 0 1 1\n1 0 0 0 4\n", ":2: the region"),
        ("1 0 0 60\n", ":1: found 4 columns, expected 5: image left top right bottom"),
        ("1 0 0 60 4.5\n", ":1: found '0 0 60 4.5', expected four whole numbers"),
        ("1 0 0 60 40\n", r"no region of the image 2 \(1 of 2 images have none\)"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_proposals(file, sizes)


def test_translations(tmp_path: Path) -> None:
    file = tmp_path / "phrases.sw.tsv"
    file.write_text("A man\tmtu\n301#0#0\tmtu  mmoja\n301.jpg#2\tmbwa wa buluu\n", encoding="utf-8")
    found = read_translations(file)
    assert found.get("301#0#0", "A man") == "mtu mmoja"
    assert found.get("302#0#0", "a  MAN") == "mtu"
    assert found.get("301#2", "It is a blue dog .") == "mbwa wa buluu"
    assert found.get("301#0#1", "a dog") is None
    file.write_text("a man\tmtu\nA man\tmwanaume\n")
    with pytest.raises(InputError, match=":2: line 1 has another text for 'A man'"):
        read_translations(file)
    file.write_text("a man\n")
    with pytest.raises(InputError, match=":1: "):
        read_translations(file)
