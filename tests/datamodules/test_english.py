"""English texts as pairs with themselves: which, after which steps, of lists, streams and mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from datamodules.base import PairsDataModule
from datamodules.english import EnglishReport, default_english, with_english
from datamodules.mixture import MixtureDataModule
from datamodules.noise.options import TrainingNoise
from datamodules.pairs import Candidate, Pair, make_pairs
from datamodules.sources import ListSource, PairSource
from datamodules.text import fold, text_id
from retrieval.collection import Collection, Side

TEXTS = [("Water", "maji"), ("fire", "moto"), ("water", "maji baridi"), ("sun", "jua"), ("radio", "redio")]
DOCUMENTS = {"a": "water and fire", "b": "Sun", "c": "the radio", "d": "radio"}


def collections(language: str = "", side: Side = "teacher", **queries: Sequence[str]) -> dict[str, Collection]:
    """``test`` and ``dev`` that ask some queries of the student."""
    end = f"/{language}" if language else ""
    return {
        f"{split}{end}": Collection(
            f"{split}{end}",
            dict(enumerate(texts)),
            DOCUMENTS,
            {0: {"a": 1}},
            document_side=side,  # type: ignore[arg-type]
        )
        for split, texts in queries.items()
    }


class Lines(PairSource):
    """Streamed pairs whose rows are tuples, and that count how many were parsed."""

    def __init__(self, texts: Sequence[tuple[str, str]], size: int = 2) -> None:
        self.texts, self.size, self.parsed = list(texts), size, 0

    def chunk_sizes(self) -> Any:
        return np.array([len(self.texts[start : start + self.size]) for start in range(0, len(self.texts), self.size)])

    def read_chunk(self, number: int) -> Sequence[Any]:
        return self.texts[number * self.size : (number + 1) * self.size]

    def parse(self, row: Any) -> Pair:
        self.parsed += 1
        return Pair(row[0], row[1], text_id(row[0]))


class Data(PairsDataModule):
    def __init__(self, texts: Sequence[tuple[str, str]] = TEXTS, test: Sequence[str] = ("x",), **options: Any) -> None:
        super().__init__(batch_size=2, **options)
        self.texts, self.test = texts, test

    def load_pairs(self) -> Any:
        return make_pairs(self.texts)

    def load_collections(self) -> dict[str, Collection]:
        return collections(test=self.test, dev=["y"])


def english_of(pairs: Any) -> list[str]:
    return [pair.source for pair in pairs if pair.source == pair.target]


def test_each_source_and_document_once_behind_the_pairs() -> None:
    pairs = make_pairs(TEXTS)
    searched = collections(test=["x"])
    assert with_english(pairs, searched, "none", 10) == (pairs, None)
    found, report = with_english(pairs, searched, "sources", 10)
    assert found[: len(pairs)] == pairs
    assert english_of(found) == ["Water", "fire", "sun", "radio"]
    assert report == EnglishReport(pairs=4, documents=0, searched=0)
    found, report = with_english(pairs, searched, "documents", 10)
    assert english_of(found) == ["Water", "fire", "sun", "radio", "water and fire", "the radio"]
    assert report == EnglishReport(pairs=6, documents=4, searched=4)


@pytest.mark.parametrize("stream", [False, True])
def test_equal_texts_share_an_id_and_different_ones_do_not(stream: bool) -> None:
    pairs = Lines(TEXTS) if stream else make_pairs(TEXTS)
    found, _ = with_english(pairs, collections(test=["x"]), "documents", 100)
    ids: dict[str, int] = {}
    for pair in found:
        assert ids.setdefault(fold(pair.source), pair.id) == pair.id
    assert len(set(ids.values())) == len(ids)


def test_pairs_of_a_text_with_itself_are_not_repeated() -> None:
    pairs = make_pairs([*TEXTS, ("radio", "radio"), ("the radio", "the radio")])
    assert sorted(english_of(with_english(pairs, collections(test=["x"]), "documents", 10)[0])) == sorted(
        ["Water", "fire", "sun", "radio", "water and fire", "the radio"]
    )


def test_queries_are_never_read_whatever_remove_leaks_says() -> None:
    for remove in (True, False):
        data = Data(test=["RADIO!", "the radio"], english="documents", remove_leaks=remove)
        data.setup("fit")
        assert english_of(data.pairs) == ["Water", "fire", "sun", "water and fire"]
        assert data.english_report == EnglishReport(4, 2, 4)


def test_queries_of_the_teacher_are_not_read_either() -> None:
    asked = {"dev": Collection("dev", {"q": "Fire"}, {"d": "moto"}, {"q": {"d": 1}}, "teacher", "student")}
    assert english_of(with_english(make_pairs(TEXTS), asked, "sources", 9)[0]) == ["Water", "sun", "radio"]


def test_the_default_is_by_who_reads_the_documents() -> None:
    pairs = make_pairs(TEXTS)
    assert default_english(pairs, collections(test=["x"])) == "documents"
    assert default_english(Lines(TEXTS), collections(test=["x"])) == "documents"
    assert default_english(pairs, collections(side="student", test=["x"])) == "sources"
    assert default_english([*pairs, Pair("a", "b", 9, (Candidate("c"),))], collections(test=["x"])) == "none"


def test_images_are_neither_read_nor_asked_for(tmp_path: Any) -> None:
    from datamodules.images import image_source

    image = image_source(tmp_path / "a.png")
    pairs = [Pair(image, "maji", 0), Pair("water", "maji", 0)]
    assert default_english(pairs, collections(test=["x"])) == "none"
    pictures = {"test": Collection("test", {"q": "maji"}, {"d": image}, {"q": {"d": 1}})}
    assert default_english(make_pairs(TEXTS), pictures) == "none"
    assert english_of(with_english(pairs, pictures, "documents", 9)[0]) == ["water"]


def test_it_comes_after_the_limit_and_after_noise() -> None:
    noise = TrainingNoise("delete", 5, rate=0.5)
    plain = Data(limit_pairs=4, noise=noise, english="none")
    data = Data(limit_pairs=4, noise=noise)
    for each in (plain, data):
        each.setup("fit")
    assert data.pairs[:4] == plain.pairs
    assert data.noise_report == plain.noise_report
    assert {fold(text) for text in english_of(data.pairs[4:])} >= {fold(text) for text in DOCUMENTS.values()}
    assert all(pair.noisy is False for pair in data.pairs[4:])


def test_nothing_is_added_for_a_test() -> None:
    data = Data()
    data.setup("test")
    assert english_of(data.pairs) == []


def test_of_streams_a_sample_is_read() -> None:
    texts = [(f"text {row}", f"maandishi {row}") for row in range(50_000)]
    source = Lines(texts, size=100)
    found, report = with_english(source, collections(test=["x"]), "documents", 40, seed=1)
    assert source.parsed == 40
    assert report is not None
    assert (report.pairs, report.documents) == (44, 4)
    assert len(found) == int(found.chunk_sizes().sum()) == 50_044
    everything = list(found)
    assert [(pair.source, pair.target) for pair in everything[:50_000]] == texts
    assert set(english_of(everything)) == {pair.source for pair in everything[50_000:]}
    chunks = list(found.epoch_chunks(0, 3))
    assert sorted(chunks) == list(range(len(found.chunk_sizes())))
    assert chunks == list(found.epoch_chunks(0, 3)) != list(found.epoch_chunks(1, 3))
    again, _ = with_english(Lines(texts, size=100), collections(test=["x"]), "documents", 40, seed=1)
    assert list(again)[50_000:] == everything[50_000:]


def test_of_large_collections_a_sample_is_read() -> None:
    documents = {str(row): f"document {row}" for row in range(1000)}
    large = {"test": Collection("test", {"q": "x"}, documents, {"q": {"1": 1}})}
    found, report = with_english(make_pairs(TEXTS), large, "documents", 30, seed=2)
    assert report == EnglishReport(34, 30, 1000)
    chosen = english_of(found)[4:]
    assert len(set(chosen)) == 30
    assert max(int(text.split()[1]) for text in chosen) > 500
    assert chosen != english_of(with_english(make_pairs(TEXTS), large, "documents", 30, seed=3)[0])[4:]


def test_each_part_of_a_mixture_reads_its_own_documents_and_no_query_of_another() -> None:
    class Other(Data):
        def load_collections(self) -> dict[str, Collection]:
            documents = {"z": "sun", "y": "fire engine"}
            return {name: Collection(name, {"q": "fire"}, documents, {"q": {"z": 1}}) for name in ("dev", "test")}

    data = MixtureDataModule({"sw": Data(test=["the radio"]), "so": Other([("moon", "dayax")])}, batch_size=2)
    data.setup("fit")
    assert english_of(data.mixture.parts["sw"]) == ["Water", "sun", "radio", "water and fire"]
    assert english_of(data.mixture.parts["so"]) == ["moon", "sun", "fire engine"]
    assert data.english_report == EnglishReport(7, 5, 6)
    assert data.collections["test/so"].documents == {"z": "sun", "y": "fire engine"}
    none = MixtureDataModule({"sw": Data(english="documents"), "so": Other(TEXTS)}, english="none", batch_size=2)
    none.setup("fit")
    assert not english_of(none.mixture)


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="english is 'all', expected one of none, sources, documents"):
        Data(english="all")
    with pytest.raises(ValueError, match="english_sample is 0"):
        Data(english_sample=0)


def test_a_list_source_may_be_streamed_too() -> None:
    found, report = with_english(ListSource(make_pairs(TEXTS)), collections(test=["x"]), "sources", 10)
    assert (english_of(found), report) == (["Water", "fire", "sun", "radio"], EnglishReport(4, 0, 0))
