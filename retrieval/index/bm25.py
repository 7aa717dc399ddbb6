"""BM25, the lexical baseline that a neural result is compared with."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from foundations.progress import delayed_progress
from retrieval.collection import Run
from retrieval.index.exact import TopDocuments

WeightedWords = Mapping[str, float]
"""Word -> weight."""

_BLOCK_BYTES = 256 * 2**20


class BM25:
    """BM25 in Lucene's form, computed by bm25s.

    The score of a document d for a query is the sum over its words w of weight(w) * idf(w) * tf / (tf + k1 * (1 - b
    + b * |d| / avgdl)), with idf = ln(1 + (N - n + 0.5) / (n + 0.5)) for a word in n of N documents (Robertson &
    Zaragoza 2009; "Lucene (accurate)" of Kamphuis et al. 2020). Words are those of `retrieval.index.bm25.words`.

    Args:
        documents: document id -> text. The words of all of them are held in memory while the index is built, about
            4 bytes a word and 50 a document, and 8 bytes for each different word of a document after that.
        k1: how soon repeats of a word saturate; Anserini's default.
        b: how much long documents are discounted, from 0 to 1; Anserini's default.

    Raises:
        ValueError: a parameter out of range, or documents without a word.

    Example:
        >>> engine = BM25({"a": "maji ya moto", "b": "moto", "c": "nyumba"})
        >>> list(engine.search({"q": "moto"}, k=3)["q"])  # the shorter text first; "c" has no word of the query
        ['b', 'a']
    """

    def __init__(self, documents: Mapping[str, str], k1: float = 0.9, b: float = 0.4) -> None:
        import bm25s

        if not (k1 >= 0 and 0 <= b <= 1):
            raise ValueError(f"k1 is {k1} and b is {b}, expected k1 >= 0 and b from 0 to 1")
        self.document_ids = list(documents)
        self.vocabulary: dict[str, int] = {}
        rows: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
        with delayed_progress("read documents for BM25", len(documents)) as advance:
            for text in documents.values():
                ids = [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words(text)]
                rows.append(np.array(ids, dtype=np.int32))
                advance(1)
        if not self.vocabulary:
            raise ValueError("the documents hold no word that BM25 could index")
        engine = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
        show = sys.stderr.isatty() and len(rows) > 100_000
        engine.index((rows, self.vocabulary), create_empty_token=False, show_progress=show)
        self._starts, self._documents = engine.scores["indptr"], engine.scores["indices"]
        self._values = engine.scores["data"]

    def search(self, queries: Mapping[str, str | WeightedWords], k: int) -> Run:
        """The k best documents of each query that hold a word of it.

        Args:
            queries: query id -> text, or the weight of each of its words (a text counts a word as often as it has it).
            k: number of documents to find.

        Returns:
            Scores by query and document; a query whose words no document holds is left out. Equal scores are cut
            off as trec_eval ranks them, by descending document id.
        """
        size = len(self.document_ids)
        top = TopDocuments(len(queries), k, self.document_ids, size, torch.device("cpu"))
        rows = max(1, _BLOCK_BYTES // 4 // size)
        everything, texts = torch.arange(size), list(queries.values())
        with delayed_progress("search with BM25", len(texts)) as advance:
            for start in range(0, len(texts), rows):
                block = self.score_all(texts[start : start + rows])
                top.add(slice(start, start + len(block)), block, everything)
                advance(len(block))
        run: Run = {}
        for query, scores, documents in zip(queries, *(part.tolist() for part in top.result()), strict=True):
            if retrieved := {self.document_ids[d]: s for s, d in zip(scores, documents, strict=True) if s > 0}:
                run[query] = retrieved
        return run

    def score_all(self, queries: Sequence[str | WeightedWords]) -> Tensor:
        """The score of every document, in the order of ``document_ids``; (Q, N), float32, 0 where no word is shared."""
        scores = np.zeros((len(queries), len(self.document_ids)), dtype=np.float32)
        for row, query in zip(scores, queries, strict=True):
            weights = Counter(words(query)) if isinstance(query, str) else query
            for word, weight in weights.items():
                if (number := self.vocabulary.get(word)) is not None:
                    column = slice(self._starts[number], self._starts[number + 1])
                    row[self._documents[column]] += np.float32(weight) * self._values[column]
        return torch.from_numpy(scores)


def translate(text: str, lexicon: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """A query translated word by word.

    A word with several translations shares its weight among them, as a structured query does roughly (Pirkola
    1998; Darwish & Oard 2003). A word that the lexicon lacks stays as it is: names often do.

    Args:
        text: the query.
        lexicon: word -> its translations, each of one or more words; keys as `words` gives them.

    Returns:
        Word -> weight, for `BM25.search`.

    >>> translate("mbwa moto", {"moto": ["fire", "hot"]})
    {'mbwa': 1.0, 'fire': 0.5, 'hot': 0.5}
    """
    weights: dict[str, float] = {}
    for word in words(text):
        translations = lexicon.get(word) or [word]
        for translation in translations:
            for part in words(translation):
                weights[part] = weights.get(part, 0.0) + 1 / len(translations)
    return weights


def make_lexicon(entries: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """A lexicon for `translate` from (word, translation) pairs; entries of several words are left out."""
    lexicon: dict[str, list[str]] = {}
    for word, translation in entries:
        if len(parts := words(word)) == 1 and translation not in lexicon.setdefault(parts[0], []):
            lexicon[parts[0]].append(translation)
    return lexicon


_APOSTROPHES = {0x27: "'", 0x2019: "'", 0x200C: "\u200c", 0x200D: "\u200d"}

# Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUNS = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")


class _Separators(dict[int, str]):
    """What `str.translate` puts for a character: itself in a word, a space between words."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


_SEPARATORS = _Separators(_APOSTROPHES)


def words(text: str) -> list[str]:
    r"""The words of a text, without case, in Unicode NFKC.

    A word is a run of letters, marks and digits; vowel signs (of Devanagari, Ethiopic, ...) stay in it, and so do
    apostrophes and joiners between letters. Runs in a script without spaces (Han, kana, Thai, ...) become
    overlapping pairs of characters, as in Lucene's CJK analyser. Nothing is stemmed, and no word is left out.

    >>> words("Ng'ombe, wa MARÍA; मराठी")
    ["ng'ombe", 'wa', 'maría', 'मराठी']
    >>> words("東京都 tower")
    ['東京', '京都', 'tower']
    """
    result = []
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    for word in folded.translate(_SEPARATORS).split():
        bare = word.strip("'\u200c\u200d")
        if not bare:
            continue
        if not _HAS_UNSPACED.search(bare):
            result.append(bare)
            continue
        for run in _RUNS.findall(bare):
            is_pairs = _HAS_UNSPACED.match(run) and len(run) > 1
            result += [run[i : i + 2] for i in range(len(run) - 1)] if is_pairs else [run]
    return result
