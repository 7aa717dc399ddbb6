"""Train new vocabulary pieces on the texts of a language."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_START = "▁"
_LEAST = 2


@dataclass(frozen=True)
class NewPiece:
    """A piece for the vocabulary.

    Args:
        piece: in the tokenizer's own spelling: ``▁`` or ``##`` included.
        score: log probability, comparable with the old pieces'; 0 for WordPiece.
    """

    piece: str
    score: float


def train_pieces(
    tokenizer: Any, texts: Sequence[str], old: Mapping[str, float], continuing: str | None, size: int
) -> list[NewPiece]:
    """Learn byte-pair merges on the texts' words and take the pieces that segment the texts most often.

    BPE is used for both kinds of tokenizer because its trainer gives the same pieces every time; the trainers for
    Unigram and WordPiece depend on the order of a hash table.

    Args:
        tokenizer: its normaliser and pre-tokenizer make the words.
        texts: the texts.
        old: the old pieces and their scores.
        continuing: the mark of pieces within a word (``##``), or None for Unigram.
        size: largest number of new pieces.

    Returns:
        New pieces, the most frequent first; all characters of the texts are among them where the old vocabulary
        lacks them.
    """
    words = Counter(word for text in texts for word in _words(tokenizer, text, continuing))
    counts = _segment(words, 2 * size)
    total = sum(counts.values())
    scores = {_spell(piece, continuing): math.log(count / total) for piece, count in counts.items()}
    lowest = min(scores.values(), default=0.0)
    shift = _calibration(scores, old)
    frequent = sorted((piece for piece in counts if counts[piece] >= _LEAST), key=lambda piece: (-counts[piece], piece))
    wanted = [*_characters(words, continuing), *(_spell(piece, continuing) for piece in frequent)]
    chosen = [piece for piece in dict.fromkeys(wanted) if piece and piece not in old][:size]
    return [NewPiece(piece, 0.0 if continuing else scores.get(piece, lowest) + shift) for piece in chosen]


def _words(tokenizer: Any, text: str, continuing: str | None) -> Iterator[str]:
    """The words of a text as the tokenizer cuts them; those of WordPiece get the mark of a beginning as well."""
    normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
        yield word if continuing is None else _START + word


def _segment(words: Mapping[str, int], merges: int) -> Counter[str]:
    """How often each piece of a byte-pair vocabulary, learnt on the words, is used to write them."""
    from tokenizers import Tokenizer, models, trainers

    bpe = Tokenizer(models.BPE())
    alphabet = {character for word in words for character in word}
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + merges, min_frequency=_LEAST, show_progress=False)
    ordered = sorted(words)
    bpe.train_from_iterator((word for word in ordered for _ in range(words[word])), trainer)
    counts: Counter[str] = Counter()
    for word in ordered:
        for piece in bpe.encode(word).tokens:
            counts[piece] += words[word]
    return counts


def _spell(piece: str, continuing: str | None) -> str:
    """A byte-pair piece in the tokenizer's spelling."""
    if continuing is None:
        return piece
    return piece.removeprefix(_START) if piece.startswith(_START) else continuing + piece


def _characters(words: Mapping[str, int], continuing: str | None) -> list[str]:
    """The characters of the words, the most frequent first; in WordPiece, at the beginning and within a word."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    ordered = [character for character in sorted(counts, key=lambda c: (-counts[c], c)) if character != _START]
    if continuing is None:
        return ordered
    begins = [character for character in ordered if unicodedata.category(character)[0] != "M"]
    return [*begins, *(continuing + character for character in ordered)]


def _calibration(scores: Mapping[str, float], old: Mapping[str, float]) -> float:
    """What to add to new log probabilities so that pieces in both vocabularies have the old score on average."""
    shared = [piece for piece in scores if piece in old]
    weights = [math.exp(scores[piece]) for piece in shared]
    if not shared:
        return 0.0
    return sum(w * (old[p] - scores[p]) for w, p in zip(weights, shared, strict=True)) / sum(weights)
