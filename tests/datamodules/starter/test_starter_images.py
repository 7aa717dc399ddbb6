from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from datamodules.base import PairsDataModule
from datamodules.fetch import missing
from datamodules.flickr30k.splits import keep_apart
from datamodules.images import ImageReference, is_image, load_image
from datamodules.mixture import MixtureDataModule
from datamodules.packages import PACKAGES
from datamodules.starter.cldr import Annotation, read_families
from datamodules.starter.images import Picture, StarterImagesDataModule, captions_of, collection, part_of, read_pictures
from foundations.errors import InputError
from lightning_modules.teachers.online import OnlineTeacher

FILES = {"1f981": "lion", "1f408": "cat", "1f415": "dog", "1f525": "fire", "1f4a7": "water drop", "2600-fe0f": "sun"}
PARTS = {"lion": "train", "cat": "train", "dog": "dev", "fire": "test", "drop": "test", "sun": "train"}


@pytest.fixture
def pictures(tiny, monkeypatch) -> Path:
    """The tiny packages with a picture of each emoji, some of which are in each part."""
    package = PACKAGES["@lobehub/fluent-emoji-3d"]
    folder = tiny / "packages/npm" / f"lobehub-fluent-emoji-3d-{package.version}/package/assets"
    folder.mkdir(parents=True)
    for number, name in enumerate([*FILES, "1f415-1f3ff", "23-fe0f-20e3", "e50a_x"]):
        Image.new("RGBA", (8, 8), (number * 20, 0, 0, 255)).save(folder / f"{name}.webp", lossless=True)
    monkeypatch.setattr("datamodules.starter.images.part_of", lambda group: PARTS[group.split()[-1]])
    return folder


def built(**options) -> StarterImagesDataModule:
    data = StarterImagesDataModule(batch_size=2, **options)
    data.setup()
    return data


def texts(data: PairsDataModule) -> set[tuple[str, str]]:
    """Pairs with the name of the picture in the place of its path."""
    return {
        (FILES[Path(ImageReference.parse(source).path).stem] if is_image(source) else source, target)
        for source, target in ((pair.source, pair.target) for pair in data.pairs)
    }


def test_pairs_are_pictures_and_captions_of_the_training_half(pictures) -> None:
    data = built()
    assert texts(data) == {
        ("lion", "Simba"),
        ("lion", "mnyama, paka mkubwa"),
        ("cat", "paka"),
        ("cat", "mnyama, nyumba"),
        ("sun", "jua"),
        ("sun", "joto, anga"),
    }
    ids = {pair.source: pair.id for pair in data.pairs}
    assert len(set(ids.values())) == 3
    assert all(pair.id == ids[pair.source] for pair in data.pairs)
    assert load_image(data.pairs[0].source).getpixel((0, 0))[0] < 5  # lossless red 0: the lion's


def test_sources(pictures) -> None:
    captions = {("lion", "Simba"), ("big cat, Leo, zoo", "mnyama, paka mkubwa"), ("cat", "paka"), ("sun", "jua")}
    captions |= {("pet, house", "mnyama, nyumba"), ("hot, sky", "joto, anga")}
    assert texts(built(source="caption")) == captions
    both = built(source="both")
    assert len(both.pairs) == 12
    assert texts(both) == captions | texts(built())
    of_lion = {pair.id for pair in both.pairs if pair.target in ("Simba", "mnyama, paka mkubwa")}
    assert len(of_lion) == 1  # the picture and its captions are one source


def test_captions_of_one_sort(pictures) -> None:
    assert {target for _, target in texts(built(captions="name"))} == {"Simba", "paka", "jua"}
    data = built(captions="keywords")
    assert {target for _, target in texts(data)} == {"mnyama, paka mkubwa", "mnyama, nyumba", "joto, anga"}
    assert list(data.collections["test"].queries) == ["1F525.keywords", "1F4A7.keywords"]


def test_collections_have_the_pictures_of_their_part_and_both_directions(pictures) -> None:
    collections = built().collections
    dev, test, english = (collections[name] for name in ("dev", "test", "english"))
    assert set(dev.documents) == {"1F415"}
    assert set(test.documents) == set(english.documents) == {"1F525", "1F4A7"}
    assert all(is_image(document) for document in test.documents.values())
    assert test.queries == {
        "1F525.name": "moto",
        "1F525.keywords": "joto",
        "1F4A7.name": "tone la maji",
        "1F4A7.keywords": "maji, baridi",
    }
    assert english.queries["1F525.keywords"] == "hot"
    assert (test.query_side, test.document_side) == ("student", "teacher")
    assert (english.query_side, english.document_side) == ("teacher", "teacher")
    forward, backward = test.views
    assert (forward.name, forward.transposed, forward.qrels) == ("text_to_image", False, test.qrels)
    assert (backward.name, backward.transposed) == ("image_to_text", True)
    assert backward.qrels["1F525"] == {"1F525.name": 1, "1F525.keywords": 1}


def test_equal_captions_are_one_query_of_several_pictures() -> None:
    def picture(emoji: str) -> Picture:
        return Picture(emoji, f"image:///{ord(emoji)}.webp", {}, "test")

    found = collection("test", [(picture("a"), {"name": "Moto"}), (picture("b"), {"name": "moto", "keywords": "x"})])
    assert found.queries == {"61.name": "Moto", "62.keywords": "x"}
    assert found.qrels["61.name"] == {"61": 1, "62": 1}
    assert found.views[1].qrels == {"61": {"61.name": 1}, "62": {"61.name": 1, "62.keywords": 1}}


def test_captions_of_an_annotation() -> None:
    assert captions_of(None) == {}
    assert captions_of(Annotation("Fire", ("fire",))) == {"name": "Fire"}
    assert captions_of(Annotation("", ("a", "b"))) == {"keywords": "a, b"}


def test_skin_tones_keycaps_and_oddly_named_files_are_left_out(pictures) -> None:
    assert [picture.id for picture in read_pictures("kind")] == ["1F981", "1F408", "1F415", "1F525", "1F4A7", "2600"]


def test_splits(pictures, monkeypatch) -> None:
    groups: dict[str, list[str]] = {}
    for split in ("kind", "family"):
        found = groups.setdefault(split, [])
        monkeypatch.setattr("datamodules.starter.images.part_of", lambda group, found=found: found.append(group))
        read_pictures(split)
    assert groups["family"][:4] == ["animal-mammal"] * 3 + ["elements"]
    assert groups["kind"][4] == "elements: drop"


def test_the_hash_gives_half_for_training() -> None:
    parts = [part_of(f"group {number}") for number in range(4000)]
    shares = [parts.count(part) / 4000 for part in ("train", "dev", "test")]
    assert shares == pytest.approx([0.5, 0.15, 0.35], abs=0.03)
    assert part_of("Elements: Drop") == part_of("elements: drop")


def test_a_teacher_of_another_split_is_refused(pictures) -> None:
    """It may have learned from pictures that are tested here."""

    class Object:
        def __init__(self, **values) -> None:
            vars(self).update(values)

    data = StarterImagesDataModule(batch_size=2)
    data.setup()
    several = MixtureDataModule({name: StarterImagesDataModule(language=name) for name in ("sw", "fil")})
    for each in (data, several):
        each.setup()
        parts = [each] if each is data else each.parts.values()
        splits = [part.image_splits() for part in parts]
        tested, trained = min(splits[0].evaluated), splits[0].train
        with pytest.raises(
            InputError, match=rf"learned from 1 of the dev and test images of these data, such as {tested}"
        ):
            each.check_teacher(Object(teacher=Object(learned_images=trained | {tested})))
        each.check_teacher(Object(teacher=Object(learned_images=trained)))
        each.check_teacher(Object())  # of another kind of images
        with pytest.raises(InputError, match=r"\.webp: the teacher reads texts only, but is to read this image"):
            each.check_teacher(OnlineTeacher())


def test_the_splits_are_kept_apart(pictures, monkeypatch) -> None:
    """What is trained on in one split and tested on in the other is refused, or left out."""
    monkeypatch.setattr(
        "datamodules.starter.images.part_of",
        lambda group: PARTS[group.split()[-1]] if ":" in group else {"elements": "train"}.get(group, "test"),
    )
    parts = {split: StarterImagesDataModule(split=split, remove_overlap=True) for split in ("kind", "family")}
    for data in keep_apart(parts).values():
        with pytest.raises(InputError, match="found no training pair"):
            data.setup()
    with pytest.raises(InputError, match="remove_overlap"):
        keep_apart({split: StarterImagesDataModule(split=split) for split in ("kind", "family")})


def test_wrong_options_and_a_package_without_pictures(pictures) -> None:
    for name, value in (("split", "random"), ("source", "text"), ("captions", "all")):
        with pytest.raises(ValueError, match=f"{name} is '{value}', expected one of"):
            StarterImagesDataModule(**{name: value})
    with pytest.raises(InputError, match="unknown language"):
        built(language="swa")
    for path in pictures.glob("*.webp"):
        path.unlink()
    with pytest.raises(InputError, match=r"no pictures \(\*\.webp\) in the package"):
        built()


@pytest.fixture
def starter_images() -> None:
    """Skip where the packages were not fetched."""
    if names := missing("starter_images"):
        pytest.skip(f"not fetched (python -m datamodules.fetch starter_images): {', '.join(names)}")


@pytest.mark.starter
@pytest.mark.parametrize("split", ["kind", "family"])
def test_real_pictures(starter_images, split: str) -> None:
    found = read_pictures(split)
    assert len(found) == 1563
    shares = [sum(each.part == part for each in found) / len(found) for part in ("train", "dev", "test")]
    assert shares == pytest.approx([0.5, 0.15, 0.35], abs=0.05)
    families = read_families()
    of_part = {part: {families[each.emoji] for each in found if each.part == part} for part in ("train", "test")}
    assert of_part["train"].isdisjoint(of_part["test"]) == (split == "family")
    assert len({each.part for each in found if each.captions["name"].endswith(" o’clock")}) == 1
    assert load_image(found[0].image).size == (256, 256)


@pytest.mark.starter
def test_real_captions(starter_images) -> None:
    data = built(language="ha")
    assert len(data.pairs) == pytest.approx(1574, abs=20)
    sizes = {name: (len(each.queries), len(each.documents)) for name, each in data.collections.items()}
    assert sizes["test"] == pytest.approx((1119, 572), rel=0.03)
    assert data.leaks is not None
    assert data.leaks.pairs < 5
