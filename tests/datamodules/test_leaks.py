from collections.abc import Sequence

import numpy as np
import pytest

from datamodules.leaks import Leaks, check_leaks, find_leaks
from datamodules.pairs import Pair
from datamodules.sources import PairSource
from foundations.errors import InputError
from retrieval.collection import Collection


def collection(name, queries, query_side="student"):
    return Collection(
        name,
        dict(enumerate(queries)),
        {"d": "text"},
        {},
        query_side,
        "teacher" if query_side == "student" else "student",
    )


class ListSource(PairSource):
    def __init__(self, pairs: Sequence[Pair], size: int) -> None:
        self.chunks = [pairs[start : start + size] for start in range(0, len(pairs), size)]

    def chunk_sizes(self):
        return np.array([len(chunk) for chunk in self.chunks])

    def read_chunk(self, number):
        return self.chunks[number]

    def parse(self, row):
        return row


PAIRS = [
    Pair("fire", "moto", 0),
    Pair("Hot water", "maji ya moto", 1),
    Pair("water", "MAJI", 2),
    Pair("sun", "jua!", 3),
    Pair("the sun", "jua kali", 4),
    Pair("heart", "\u2764", 5),
]


@pytest.mark.parametrize(
    ("queries", "rows", "exact"),
    [
        (["moto"], [0], 1),
        (["Moto"], [0], 0),
        (["maji ya  moto"], [1], 1),
        (["maji", "jua"], [2, 3], 0),
        (["\u2764"], [5], 1),
        (["fire", "water"], [], 0),  # only the teacher reads them
        (["mot"], [], 0),
    ],
)
def test_queries_of_the_student_are_looked_for_among_targets(queries, rows, exact):
    leaks, found = find_leaks(PAIRS, {"test": collection("test", queries)})
    assert found == rows
    assert (leaks.checked, leaks.pairs, leaks.exact) == (6, len(rows), exact)


def test_queries_of_the_teacher_are_looked_for_among_sources():
    leaks, rows = find_leaks(PAIRS, {"dev": collection("dev", ["hot water.", "moto"], "teacher")})
    assert rows == [1]
    assert leaks.examples == ["Hot water"]
    assert "1 of 6 training pairs hold a query of dev or test (0 exactly), such as 'Hot water'" in str(leaks)


def test_the_english_twin_is_not_looked_at():
    assert not find_leaks(PAIRS, {"english/sw": collection("english/sw", ["fire"], "teacher")})[1]


def test_limit():
    leaks, rows = find_leaks(PAIRS, {"test": collection("test", ["moto", "maji"])}, limit=2)
    assert (leaks.checked, rows) == (2, [0])


def test_parts_are_added_up():
    parts = [find_leaks(PAIRS, {"test": collection("test", [query])})[0] for query in ("moto", "maji")]
    assert Leaks.of_parts(parts) == Leaks(12, 2, 1, ["moto", "MAJI"])


@pytest.mark.parametrize("queries", [[], ["moto"], ["jua", "maji"], ["moto", "maji ya moto", "maji", "jua"]])
@pytest.mark.parametrize("size", [1, 4, 10])
def test_leaks_are_left_out_of_lists_and_replaced_in_sources(queries, size):
    asked = {"test": collection("test", queries)} if queries else {}
    kept = [pair for pair in PAIRS if pair.target.casefold().strip("!") not in queries]
    pairs, leaks = check_leaks(PAIRS, asked, remove=True)
    assert pairs == kept
    assert (leaks.pairs, leaks.dropped) == (len(PAIRS) - len(kept), len(kept) < len(PAIRS))
    source, streamed = check_leaks(ListSource(PAIRS, size), asked, remove=True)
    assert streamed == leaks
    assert list(source.chunk_sizes()) == list(ListSource(PAIRS, size).chunk_sizes())
    for before, after in zip(PAIRS, source, strict=True):
        assert after == before if before in kept else after in kept
    assert list(source) == list(source)


def test_leaks_stay_where_they_are_to_stay():
    asked = {"test": collection("test", ["moto"])}
    for pairs in (PAIRS, ListSource(PAIRS, 2)):
        same, leaks = check_leaks(pairs, asked, remove=False)
        assert same is pairs
        assert (leaks.pairs, leaks.dropped) == (1, False)


@pytest.mark.parametrize("pairs", [PAIRS[:1], ListSource(PAIRS[:1], 1)])
def test_nothing_but_leaks(pairs):
    with pytest.raises(InputError, match="every training pair holds a query"):
        check_leaks(pairs, {"test": collection("test", ["moto"])}, remove=True)
