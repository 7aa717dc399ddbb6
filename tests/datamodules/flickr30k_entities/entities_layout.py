"""A small Flickr30k Entities in the official layout, with pictures."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 60, 40
# Chain -> colour and corners as they stand in the files, counted from 1.
SCENES = {
    "1": ("people", "red", [(1, 11, 20, 40)]),
    "2": ("animals", "blue", [(31, 11, 50, 40)]),
    "3": ("clothing", "green", [(1, 1, 10, 10), (52, 31, 60, 40)]),
}
SENTENCES = [
    "[/EN#1/people A man] waits with [/EN#2/animals a dog] in [/EN#4/scene the sun] .",
    "[/EN#1/people/clothing A red man] and [/EN#3/clothing two green hats] .",
    "[/EN#0/notvisual It] is [/EN#2/animals a blue dog] .",
    "[/EN#3/clothing Hats] .",
    "Nothing is marked here .",
]
SPLITS = {"train": ["101", "102", "103"], "val": ["201"], "test": ["301", "302"]}


def annotation(boxes: dict[str, list[tuple[int, ...]]], unboxed: list[str], width=WIDTH, height=HEIGHT) -> str:
    """The XML of an image."""
    parts = [f"<annotation>\n<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"]
    for chains, corners in boxes.items():
        names = "".join(f"<name>{chain}</name>" for chain in chains.split("+"))
        for corner in corners:
            sides = zip(("xmin", "ymin", "xmax", "ymax"), corner, strict=True)
            numbers = "".join(f"<{side}>{number}</{side}>" for side, number in sides)
            parts.append(f"<object>\n{names}\n<bndbox>{numbers}</bndbox>\n</object>\n")
    parts += [f"<object><name>{name}</name><scene>1</scene><nobndbox>0</nobndbox></object>\n" for name in unboxed]
    return "".join([*parts, "</annotation>\n"])


def write_folder(folder: Path, splits: dict[str, list[str]] | None = None) -> Path:
    """Write the folder; every image has the same captions and boxes, shifted by a few pixels."""
    for name in ("Sentences", "Annotations", "flickr30k-images"):
        (folder / name).mkdir(parents=True)
    names = [name for split in (splits or SPLITS).values() for name in split]
    for split, listed in (splits or SPLITS).items():
        (folder / f"{split}.txt").write_text("\n".join(listed) + "\n")
    for place, name in enumerate(dict.fromkeys(names)):
        (folder / "Sentences" / f"{name}.txt").write_text("\n".join(SENTENCES) + "\n")
        boxes = {chain: [shifted(box, place) for box in found] for chain, (_, _, found) in SCENES.items()}
        (folder / "Annotations" / f"{name}.xml").write_text(annotation(boxes, ["4"]))
        picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
        for chain, (_, colour, _) in SCENES.items():
            for left, top, right, bottom in boxes[chain]:
                ImageDraw.Draw(picture).rectangle((left - 1, top - 1, right - 1, bottom - 1), fill=colour)
        picture.save(folder / "flickr30k-images" / f"{name}.jpg", quality=100, subsampling=0)
    (folder / "UNRELATED_CAPTIONS").write_text(f"# format: <imageID> <sentence number>\n{names[0]} 4\n")
    return folder


def shifted(box: tuple[int, ...], place: int) -> tuple[int, ...]:
    """Another box for each image: narrower by up to 3 pixels from the left."""
    return (box[0] + place % 4, *box[1:])
