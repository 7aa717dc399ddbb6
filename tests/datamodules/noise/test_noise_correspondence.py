"""Wrong correspondence: both protocols against loops, published index files, and the realised rate."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from datamodules.images import ImageReference, image_source
from datamodules.noise.correspondence import caption_numbers, mismatch, realised_counts, shuffled
from datamodules.noise.options import TrainingNoise
from datamodules.noise.transform import noisy_pairs
from datamodules.pairs import Candidate, Pair
from foundations.errors import InputError


def captions(images: int, each: int = 5) -> list[Pair]:
    """Ids are far from 0, 1, 2, ...: only their order counts."""
    return [Pair(f"image {i}", f"caption {i}.{c}", 1000 - 7 * i) for i in range(images) for c in range(each)]


def realised_rate(pairs: list[Pair]) -> float:
    wrong, count = realised_counts(pairs)
    return wrong / count


@pytest.fixture(scope="module")
def flickr() -> list[Pair]:
    return captions(29_000)


@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_caption_level_has_the_published_rate(flickr, rate):
    noisy = mismatch(flickr, TrainingNoise(rate=rate))
    changed = sum(new.source != old.source for new, old in zip(noisy, flickr, strict=True))
    assert changed / 145_000 == realised_rate(noisy)
    # Of n chosen captions each draws one of n, itself or one of 4 * rate others of its image among them.
    expected = rate - (1 + 4 * rate) / 145_000
    assert realised_rate(noisy) == pytest.approx(expected, abs=5e-5)
    assert f"{realised_rate(noisy):.4f}" == f"{rate:.4f}"


def test_image_level_moves_the_captions_of_an_image_together(flickr):
    noisy = mismatch(flickr, TrainingNoise(rate=0.4, level="image"))
    sources = [noisy[row].source for row in range(0, 145_000, 5)]
    assert all(noisy[row].source == sources[row // 5] for row in range(145_000))
    assert sorted(sources) == sorted(flickr[row].source for row in range(0, 145_000, 5))
    moved = sum(f"image {i}" != source for i, source in enumerate(sources))
    assert 11_600 - 8 < moved <= int(0.4 * 29_000) == 11_600
    assert realised_rate(noisy) == moved / 29_000


@pytest.mark.parametrize("level", ["caption", "image"])
def test_a_pair_takes_source_id_and_candidates_and_keeps_its_target(level):
    pairs = [
        Pair(f"s{i}", f"t{i}.{c}", 50 + i, (Candidate(f"passage {i}", id=i),))
        for i in range(30)
        for c in range(1 + i % 3)
    ]
    by_source = {pair.source: pair for pair in pairs}
    noisy = mismatch(pairs, TrainingNoise(rate=0.5, level=level))
    assert [pair.target for pair in noisy] == [pair.target for pair in pairs]
    for old, new in zip(pairs, noisy, strict=True):
        donor = by_source[new.source]
        assert (new.id, new.candidates) == (donor.id, donor.candidates)
        assert new.noisy is (new.id != old.id)
    assert 0 < realised_rate(noisy) <= 0.5 + 1e-9 or level == "image"


def test_rate_zero_is_the_identity():
    pairs = captions(10)
    assert mismatch(pairs, TrainingNoise(rate=0)) is pairs
    found, report = noisy_pairs(pairs, TrainingNoise())
    assert found is pairs
    assert report.rates == {}


def test_no_more_moves_than_drawn_and_a_higher_rate_draws_the_same_and_more():
    for size, rate in ((10, 0.35), (1, 1.0), (7, 0.1), (1000, 0.6)):
        moved = np.flatnonzero(shuffled(size, rate, 0) != np.arange(size))
        assert len(moved) <= int(rate * size)
        assert sorted(shuffled(size, rate, 0)) == list(range(size))
    few, many = (set(np.flatnonzero(shuffled(10_000, rate, 3) != np.arange(10_000))) for rate in (0.2, 0.8))
    assert len(few - many) < 10  # but for fixed points


def test_the_seed_gives_the_noise():
    pairs = captions(200)
    first, again, other = (mismatch(pairs, TrainingNoise(rate=0.4, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("level", ["caption", "image"])
def test_published_index_files(tmp_path, level):
    pairs, generator = captions(400), np.random.default_rng(0)
    if level == "caption":  # as NCR writes them
        indices = np.arange(2000) // 5
        chosen = generator.permutation(2000)[:400]
        indices[chosen] = generator.permutation(indices[chosen])
        wrong = indices != np.arange(2000) // 5
        expected = [f"image {i}" for i in indices]
    else:
        indices = np.arange(400)
        chosen = generator.permutation(400)[:80]
        indices[chosen] = generator.permutation(indices[chosen])
        wrong = np.repeat(indices != np.arange(400), 5)
        expected = [f"image {indices[row // 5]}" for row in range(2000)]
    np.save(tmp_path / "0.2.npy", indices)
    noisy = mismatch(pairs, TrainingNoise(index_file=str(tmp_path / "0.2.npy"), level=level))
    assert [pair.source for pair in noisy] == expected
    assert [pair.noisy for pair in noisy] == wrong.tolist()
    _, report = noisy_pairs(pairs, TrainingNoise(index_file=str(tmp_path / "0.2.npy"), level=level))
    assert report.rates == {"mismatched": wrong.mean()}
    assert f"{wrong.mean():.4f} of them with another's source ({level} level, file" in str(report)


def test_an_index_of_captions_that_moves_images_is_of_the_level_image(tmp_path) -> None:
    """Published files have an entry a caption also where all captions of an image move together."""
    pairs = captions(40)
    np.save(tmp_path / "moved.npy", np.repeat(np.random.default_rng(0).permutation(40), 5))
    noise = TrainingNoise(index_file=str(tmp_path / "moved.npy"))
    assert "(image level, file" in str(noisy_pairs(pairs, noise)[1])
    np.save(tmp_path / "moved.npy", np.random.default_rng(0).permutation(np.repeat(np.arange(40), 5)))
    assert "(caption level, file" in str(noisy_pairs(pairs, noise)[1])


def both(images: int, each: int = 5) -> list[Pair]:
    """What ``source: both`` writes: for each caption a pair with the image and one with the English caption."""
    return [
        Pair(source, f"caption {i}.{c}", 1000 - 7 * i)
        for i in range(images)
        for c in range(each)
        for source in (image_source(f"/photos/{i}.jpg"), f"english {i}.{c}")
    ]


def numbers_of(pairs: list[Pair]) -> list[tuple[int, int]]:
    """Of each image and caption in turn: the image's number, and the number in the English caption."""
    images = [int(Path(ImageReference.parse(pair.source).path).stem) for pair in pairs[::2]]
    english = [pair.source.removeprefix("english ").split(".") for pair in pairs[1::2]]
    assert [str(image) for image in images] == [image for image, _ in english]
    return [(image, int(place)) for image, (_, place) in zip(images, english, strict=True)]


@pytest.mark.parametrize("level", ["caption", "image"])
def test_published_index_files_fit_when_the_teacher_reads_both(tmp_path, level):
    size = {"caption": 2000, "image": 400}[level]
    generator = np.random.default_rng(1)
    indices = np.arange(size) // (5 if level == "caption" else 1)
    chosen = generator.permutation(size)[: size // 5]
    indices[chosen] = generator.permutation(indices[chosen])
    np.save(tmp_path / "0.2.npy", indices)
    noise = TrainingNoise(index_file=str(tmp_path / "0.2.npy"), level=level)
    pairs, report = noisy_pairs(both(400), noise)
    # Both pairs of a caption name the image of the file, and the English caption is that in the caption's own place.
    expected = [(int(indices[row if level == "caption" else row // 5]), row % 5) for row in range(2000)]
    assert numbers_of(pairs) == expected
    assert [pair.target for pair in pairs] == [pair.target for pair in both(400)]
    wrong = [image != row // 5 for row, (image, _) in enumerate(expected)]
    assert [pair.noisy for pair in pairs] == [each for each in wrong for _ in range(2)]
    assert (report.pairs, report.captions, report.mismatched) == (4000, 2000, sum(wrong))
    assert report.rates == {"mismatched": sum(wrong) / 2000}
    assert str(report).startswith(f"4,000 pairs of 2,000 captions, {sum(wrong) / 2000:.4f} of them with another's")
    images, _ = noisy_pairs(both(400)[::2], noise)
    assert images == pairs[::2]  # as with the images alone


@pytest.mark.parametrize("level", ["caption", "image"])
def test_both_pairs_of_a_caption_move_together_at_a_rate(level):
    noise = TrainingNoise(rate=0.4, level=level, seed=5)
    pairs, report = noisy_pairs(both(300), noise)
    images, alone = noisy_pairs(both(300)[::2], noise)
    assert pairs[::2] == images
    assert report.rates == alone.rates
    assert 0.35 < report.rates["mismatched"] <= 0.4
    assert [pair.noisy for pair in pairs[1::2]] == [pair.noisy for pair in images]
    assert len(numbers_of(pairs)) == 1500


def test_a_caption_without_its_english_twin_takes_what_the_other_has():
    pairs = both(6, each=2)
    del pairs[5]  # the English half of a caption, as where there is none, or remove_leaks left it out
    assert caption_numbers(pairs).tolist() == [0, 0, 1, 1, 2, *(n for n in range(3, 12) for _ in range(2))]
    noisy = mismatch(pairs, TrainingNoise(rate=1.0))
    assert len(noisy) == len(pairs)
    assert noisy[4].source.startswith("image://")
    taken = [second for first, second in pairwise(noisy) if first.target == second.target]
    assert all(first.id == second.id for first, second in pairwise(noisy) if first.target == second.target)
    assert sum(pair.source.startswith("image://") for pair in taken) <= 1


def test_equal_captions_of_an_image_stay_two_captions():
    pairs = [pair for n in range(2) for pair in (Pair("image:///1.jpg", "picha", 1), Pair(f"photo {n}", "picha", 1))]
    assert caption_numbers(pairs).tolist() == [0, 0, 1, 1]
    assert caption_numbers(pairs[::2]).tolist() == caption_numbers(pairs[1::2]).tolist() == [0, 1]


@pytest.mark.parametrize("level", ["caption", "image"])
def test_the_english_caption_of_a_file_stands_in_the_same_place(tmp_path, level):
    pairs = both(20)[1::2]
    np.save(tmp_path / "all.npy", np.roll(np.arange(20), 3).repeat(5 if level == "caption" else 1))
    noisy = mismatch(pairs, TrainingNoise(index_file=str(tmp_path / "all.npy"), level=level))
    assert [pair.source for pair in noisy] == [f"english {(i - 3) % 20}.{c}" for i in range(20) for c in range(5)]


@pytest.mark.parametrize(
    ("content", "level", "message"),
    [
        (np.arange(49), "caption", "found 49 indices, expected 50 for the captions (level caption)"),
        (np.arange(10), "caption", "expected 50 for the captions (level caption); it fits level image"),
        (np.zeros(50, int), "image", "expected 10 for the distinct sources (level image); it fits level caption"),
        (np.full(50, 10), "caption", "index 10 at 0 is none of the 10 sources"),
        (np.arange(50) // 5 - 1, "caption", "index -1 at 0 is none of the 10 sources"),
        (np.zeros(10, int), "image", "holds an index twice, expected a permutation"),
        (np.zeros((50, 1), int), "caption", "int64 (50, 1), expected one row of whole numbers"),
        (np.zeros(50), "caption", "float64 (50,), expected one row of whole numbers"),
        (np.array([{}] * 50), "caption", "is no .npy file of numbers"),
        (b"", "caption", "is no .npy file of numbers"),
        (b"1\n2\n3\n", "caption", "is no .npy file of numbers"),
        (b"\x93NUMPY\x01\x00", "caption", "is no .npy file of numbers"),
    ],
)
def test_wrong_index_files(tmp_path, content, level, message):
    path = tmp_path / "noise.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(InputError) as error:
        mismatch(captions(10), TrainingNoise(index_file=str(path), level=level))
    assert message in str(error.value)
    assert str(path) in str(error.value)
