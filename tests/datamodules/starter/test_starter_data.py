from __future__ import annotations

import pytest

from datamodules.starter.emoji import EmojiSearch, StarterDataModule, is_dev, locale_name_pairs
from datamodules.text import fold
from foundations.errors import InputError
from lightning_modules.distillation import teacher_texts
from lightning_modules.evaluation.callback import RetrievalEvaluation

ALL = {"mnyama", "paka mkubwa", "nyumba", "Mlinzi", "pet", "joto", "maji", "baridi", "anga"}


def built(**options) -> StarterDataModule:
    data = StarterDataModule(batch_size=2, **options)
    data.setup()
    return data


def texts(data: StarterDataModule) -> set[tuple[str, str]]:
    return {(pair.source, pair.target) for pair in data.pairs}


def queries(data: StarterDataModule) -> set[str]:
    return {*data.collections["dev"].queries.values(), *data.collections["test"].queries.values()}


def test_pairs(tiny) -> None:
    found = texts(built(english="none"))
    assert ("lion", "Simba") in found
    assert ("plus sign", "alama ya kujumlisha") in found  # a symbol that is no emoji
    assert ("dog: dark", "mbwa: nyeusi") in found
    assert ("French", "Kifaransa") in found
    assert ("All are free.", "Wote ni huru.") in found
    assert ("Tanzania", "TANZANIA") not in found  # not translated
    assert not [pair for pair in found if pair[0] == pair[1]]


def test_queries_are_keywords_that_are_no_training_string_in_any_case(tiny) -> None:
    """ "simba" is a name ("Simba") and so are "moto" and "paka"; "+" is no emoji, so its keywords are not asked."""
    assert queries(built()) == ALL


def test_relevant_are_all_emoji_with_the_keyword(tiny) -> None:
    data = built()
    everything = data.collections["dev"].qrels | data.collections["test"].qrels
    assert everything["mnyama"] == {"1F981": 1, "1F408": 1, "1F415": 1}
    assert everything["joto"] == {"1F525": 1, "2600": 1}
    assert everything["paka_mkubwa"] == {"1F981": 1}


def test_documents_are_english_and_all_base_emoji(tiny) -> None:
    for collection in built().collections.values():
        assert collection.documents["1F981"] == "lion: big cat, Leo, lion, zoo"
        assert len(collection.documents) == 6
        assert collection.document_side == "teacher"


def test_dev_and_test_are_apart_by_the_hash_of_the_text(tiny) -> None:
    collections = built().collections
    dev, test = (set(map(fold, collections[name].queries.values())) for name in ("dev", "test"))
    assert dev == {text for text in dev | test if is_dev(text)}
    assert dev
    assert test
    assert dev.isdisjoint(test)


def test_english_twin(tiny) -> None:
    english = built().collections["english"]
    assert english.query_side == english.document_side == "teacher"
    asked = {"big cat", "leo", "zoo", "pet", "house", "hot", "water", "cold", "sky"}  # not "lion", "cat": names
    assert {fold(text) for text in english.queries.values()} == {text for text in asked if not is_dev(text)}
    if "hot" in english.qrels:
        assert english.qrels["hot"] == {"1F525": 1, "2600": 1}


@pytest.mark.parametrize("english", ["none", "sources", "documents"])
@pytest.mark.parametrize("derived", [True, False])
def test_queries_do_not_depend_on_the_options_and_are_never_trained_on(tiny, english, derived: bool) -> None:
    data = built(english=english, derived=derived)
    assert queries(data) == ALL
    assert not {fold(target) for _, target in texts(data)} & {fold(query) for query in queries(data)}


def test_english_pairs(tiny) -> None:
    sources = {source for source, target in texts(built(english="sources")) if source == target}
    assert {"lion", "French", "All are free."} <= sources
    assert "zoo" not in sources
    data = built()
    documents = set(data.collections["test"].documents.values())
    assert {(text, text) for text in documents} <= texts(data)
    assert {text for text, target in texts(data) if text == target} == sources | documents


def test_equal_sources_share_an_id_with_their_english_pair(tiny) -> None:
    ids = {}
    for pair in built().pairs:
        assert ids.setdefault(fold(pair.source), pair.id) == pair.id
    assert len(set(ids.values())) == len(ids)


def test_families_that_are_asked_are_in_no_pair(tiny, monkeypatch) -> None:
    monkeypatch.setattr("datamodules.starter.emoji.is_unseen", lambda family: family == "animal-mammal")
    data = built(split="family", english="sources")
    sources = {source for source, _ in texts(data)}
    assert sources.isdisjoint({"lion", "cat", "dog", "dog: dark", "zoo"})
    assert {"fire", "sun", "plus sign"} <= sources
    assert queries(data) == {"Simba", "mnyama", "paka mkubwa", "paka", "nyumba", "mbwa", "Mlinzi", "pet"}
    everything = data.collections["dev"].qrels | data.collections["test"].qrels
    assert everything["paka"] == {"1F408": 1}


def test_teacher_reads_test_queries_too(tiny) -> None:
    data = built()
    wanted = {pair.source for pair in data.pairs} | set(data.collections["test"].documents.values())
    wanted |= set(data.collections["test"].queries.values()) | set(data.collections["english"].queries.values())
    assert set(teacher_texts(data, RetrievalEvaluation().teacher_sides(data.collections))) == wanted
    assert len(teacher_texts(data, RetrievalEvaluation().teacher_sides(data.collections))) == len(wanted)


def test_wrong_options(tiny) -> None:
    with pytest.raises(InputError, match="unknown language 'swa'; did you mean sw"):
        built(language="swa")
    with pytest.raises(ValueError, match="split is 'random', expected one of keyword, family"):
        StarterDataModule(split="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="english is 'all'"):
        StarterDataModule(english="all")  # type: ignore[arg-type]


def test_nothing_is_read_before_setup(cache) -> None:
    StarterDataModule("sw")
    assert not cache.exists()


@pytest.mark.starter
@pytest.mark.parametrize(("language", "names", "tests"), [("sw", 817, 1732)])
def test_real_sizes(starter, language: str, names: int, tests: int) -> None:
    pairs = {(fold(source), fold(target)) for source, target in locale_name_pairs(language)}
    assert abs(len(pairs) - names) < 5
    data = built(language=language)
    sizes = {name: len(collection.queries) for name, collection in data.collections.items()}
    assert abs(sizes["test"] - tests) < 0.02 * tests
    assert 0.2 < sizes["dev"] / (sizes["dev"] + sizes["test"]) < 0.3
    assert len(data.collections["test"].documents) == 1588
    targets = {fold(pair.target) for pair in data.pairs}
    assert targets.isdisjoint(fold(query) for query in queries(data))


@pytest.mark.starter
def test_real_families(starter) -> None:
    search = EmojiSearch.read("sw", "family")
    assert 0.15 < len(search.asked) / len(search.documents) < 0.35
    targets = {fold(target) for _, target in search.training_texts(derived=True)}
    foreign = search.collections()
    assert targets.isdisjoint(fold(q) for name in ("dev", "test") for q in foreign[name].queries.values())
    names = {fold(search.english[emoji].name) for emoji in search.asked}
    sources = {fold(source) for source, _ in search.names + search.derived_names}
    assert len(names & sources) < 0.01 * len(names)
