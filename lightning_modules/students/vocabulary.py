"""Fit a tokenizer's vocabulary to texts: trim it to their pieces, or extend it by new ones.

Both rebuild the tokenizer in its JSON form and say from which old rows each new row of an embedding table starts.
Known are Unigram (SentencePiece) and WordPiece (BERT) tokenizers.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

Mode = Literal["keep", "trim", "extend"]
_CHUNK = 4096
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_MERGED_ALPHABETS = ("LATIN", "GREEK", "CYRILLIC")
"""Scripts whose accents BERT's uncased normaliser may go on stripping: words stay readable without them."""


@dataclass(frozen=True)
class Adapted:
    """A new vocabulary.

    Args:
        tokenizer: the tokenizer as JSON.
        sources: for each new id the old ids whose mean its row starts from.
    """

    tokenizer: str
    sources: list[list[int]]


def trim(tokenizer: Any, texts: Sequence[str]) -> Adapted:
    """Keep the pieces that occur in the texts, the special tokens, and single characters.

    Single characters are kept for ASCII and for the scripts of the texts, so that unseen words of the same
    languages can still be spelt. The given texts are tokenised as before.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        texts: the texts, as they are later given to the tokenizer.

    Returns:
        The smaller vocabulary, in the old order.

    Raises:
        ValueError: the tokenizer is of another kind.
    """
    spec = _spec(tokenizer)
    pieces = _pieces(spec)
    used = _used_ids(tokenizer, texts)
    names = {id_: piece for id_, (piece, _) in pieces.items()}
    scripts = {_script(character) for id_ in used & names.keys() for character in names[id_]}
    keep = used | {token["id"] for token in spec["added_tokens"]} | _needed(spec)
    keep |= {id_ for id_, piece in names.items() if _is_single(piece, scripts) or _BYTE.fullmatch(piece)}
    return _rebuild(spec, [(*pieces[id_], [id_]) for id_ in pieces if id_ in keep])


def extend(tokenizer: Any, texts: Sequence[str], new_pieces: int) -> Adapted:
    """Add pieces that are trained on the texts, each started from the mean of its old pieces.

    The pieces come from byte-pair merges over the texts' words; those that segment the texts most often are taken.
    An uncased BERT normaliser strips the vowel signs of scripts such as Devanagari; where the texts are in one, it
    is replaced by one that brings text to NFC and lower case and strips accents from Latin, Greek and Cyrillic only.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        texts: texts of the target language.
        new_pieces: largest number of pieces to add.

    Returns:
        The larger vocabulary: the old pieces, then the new ones, then added tokens that are no pieces.

    Raises:
        ValueError: the tokenizer is of another kind, or ``new_pieces`` is below 1.
    """
    if new_pieces < 1:
        raise ValueError(f"new_pieces is {new_pieces}, expected at least 1")
    spec = _spec(tokenizer)
    pieces = _pieces(spec)
    if _strips_marks(spec) and any(_has_marks(text) for text in texts):
        spec["normalizer"] = _keep_marks(spec["normalizer"])
    renewed = type(tokenizer).from_str(json.dumps(spec, ensure_ascii=False))
    old = {piece: (id_, score) for id_, (piece, score) in pieces.items()}
    known = {piece: score for piece, (_, score) in old.items()}
    kind = spec["model"]["type"]
    continuing = spec["model"]["continuing_subword_prefix"] if kind == "WordPiece" else None
    added = train_pieces(renewed, texts, known, continuing, new_pieces)
    rows = [(*pieces[id_], [id_]) for id_ in pieces]
    rows += [(new.piece, new.score, _old_ids(new, tokenizer, old, continuing, spec)) for new in added]
    return _rebuild(spec, rows)


def chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """The texts in lists of at most ``size``."""
    iterator = iter(texts)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _spec(tokenizer: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(tokenizer.to_str()) | {"truncation": None, "padding": None}
    kind = spec["model"].get("type")
    if kind not in ("Unigram", "WordPiece"):
        raise ValueError(
            f"the vocabulary of a {kind} tokenizer cannot be adapted, only that of a Unigram or WordPiece one: "
            "use vocabulary=keep"
        )
    return spec


def _pieces(spec: Mapping[str, Any]) -> dict[int, tuple[str, float]]:
    """Id -> piece and score (0 in WordPiece), by rising id; added tokens that are no pieces come last."""
    vocabulary = spec["model"]["vocab"]
    if spec["model"]["type"] == "Unigram":
        pieces = {id_: (piece, score) for id_, (piece, score) in enumerate(vocabulary)}
    else:
        pieces = {id_: (piece, 0.0) for piece, id_ in sorted(vocabulary.items(), key=lambda item: item[1])}
    return pieces


def _used_ids(tokenizer: Any, texts: Sequence[str]) -> set[int]:
    """The ids that the texts are written with, none of them cut off."""
    truncation = tokenizer.truncation
    tokenizer.no_truncation()
    try:
        batches = (tokenizer.encode_batch_fast(chunk) for chunk in chunks(texts, _CHUNK))
        return {id_ for batch in batches for encoding in batch for id_ in encoding.ids}
    finally:
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)


def _needed(spec: Mapping[str, Any]) -> set[int]:
    """The unknown piece, and one of the lowest score: Unigram sets the score of unknown characters by it."""
    model = spec["model"]
    if model["type"] == "WordPiece":
        return {model["vocab"][model["unk_token"]]}
    lowest = min(range(len(model["vocab"])), key=lambda id_: model["vocab"][id_][1])
    return {lowest} | ({model["unk_id"]} if model["unk_id"] is not None else set())


def _script(character: str) -> str:
    """The script of a letter, mark or digit: the first word of its Unicode name."""
    if character.isascii() or unicodedata.category(character)[0] not in "LMN":
        return ""
    return unicodedata.name(character, "").split(" ")[0]


def _is_single(piece: str, scripts: set[str]) -> bool:
    bare = piece.removeprefix("##").removeprefix("▁")
    return len(bare) <= 1 and (bare.isascii() or _script(bare) in scripts - {""})


def _rebuild(spec: dict[str, Any], rows: list[tuple[str, float, list[int]]]) -> Adapted:
    """The tokenizer with these pieces; every id in it is renewed."""
    ids = {piece: id_ for id_, (piece, _, _) in enumerate(rows)}
    sources = [old for _, _, old in rows]
    for token in spec["added_tokens"]:
        if token["content"] not in ids:
            ids[token["content"]] = len(ids)
            sources.append([token["id"]])
        token["id"] = ids[token["content"]]
    spec["added_tokens"].sort(key=lambda token: token["id"])
    model = spec["model"]
    if model["type"] == "Unigram":
        unknown = model["unk_id"]
        model["unk_id"] = None if unknown is None else ids[model["vocab"][unknown][0]]
        model["vocab"] = [[piece, score] for piece, score, _ in rows]
    else:
        model["vocab"] = {piece: ids[piece] for piece, _, _ in rows}
    _renew_ids(spec.get("post_processor"), ids)
    return Adapted(json.dumps(spec, ensure_ascii=False), sources)


def _renew_ids(processor: dict[str, Any] | None, ids: Mapping[str, int]) -> None:
    """Renew the ids of the special tokens that a post-processor puts around a text."""
    if processor is None:
        return
    for part in processor.get("processors", ()):
        _renew_ids(part, ids)
    if processor["type"] == "TemplateProcessing":
        for special in processor["special_tokens"].values():
            special["ids"] = [ids[token] for token in special["tokens"]]
    for name in ("sep", "cls"):
        if name in processor:
            processor[name] = [processor[name][0], ids[processor[name][0]]]


def _old_ids(
    new: NewPiece, tokenizer: Any, old: Mapping[str, tuple[int, float]], continuing: str | None, spec: Mapping[str, Any]
) -> list[int]:
    """The old pieces that a new one was written with; the unknown piece where there are none."""
    if continuing is None:
        ids, unknown = [token.id for token in tokenizer.model.tokenize(new.piece)], spec["model"]["unk_id"]
        return [id_ for id_ in ids if id_ != unknown] or [unknown or 0]
    bare = new.piece.removeprefix(continuing)
    starts = new.piece == bare
    for form in (bare, tokenizer.normalizer.normalize_str(bare)):
        if ids := _longest_matches(form, old, continuing, starts):
            return ids
    return [old[spec["model"]["unk_token"]][0]]


def _longest_matches(text: str, old: Mapping[str, tuple[int, float]], continuing: str, starts: bool) -> list[int]:
    """WordPiece: the longest piece that fits, again and again; empty where none fits."""
    ids, position = [], 0
    while position < len(text):
        prefix = "" if starts and position == 0 else continuing
        for end in range(len(text), position, -1):
            if prefix + text[position:end] in old:
                ids.append(old[prefix + text[position:end]][0])
                position = end
                break
        else:
            return []
    return ids


def _strips_marks(spec: Mapping[str, Any]) -> bool:
    normalizer = spec.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        return False
    strips = normalizer["strip_accents"]
    return bool(normalizer["lowercase"] if strips is None else strips)


def _has_marks(text: str) -> bool:
    """Whether a letter outside Latin, Greek and Cyrillic carries a mark that BERT's normaliser strips."""
    base = ""
    for character in unicodedata.normalize("NFD", text):
        category = unicodedata.category(character)
        if category != "Mn":
            base = character if category[0] in "LM" else ""
        elif base and _script(base) not in _MERGED_ALPHABETS and not base.isascii():
            return True
    return False


def _keep_marks(normalizer: dict[str, Any]) -> dict[str, Any]:
    """BERT's normaliser, but accents are stripped from Latin, Greek and Cyrillic letters and from symbols only."""
    letters = "".join(rf"\p{{{name.title()}}}" for name in _MERGED_ALPHABETS)
    strip = rf"(?<=[{letters}])\p{{Mn}}+|[\x{{FE00}}-\x{{FE0F}}]"
    steps = [
        {"type": "NFD"},
        {"type": "Replace", "pattern": {"Regex": strip}, "content": ""},
        {"type": "NFC"},
        normalizer | {"strip_accents": False},
    ]
    return {"type": "Sequence", "normalizers": steps}


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
    pieces = [*_characters(words, continuing), *(_spell(piece, continuing) for piece in frequent)]
    chosen = [piece for piece in dict.fromkeys(pieces) if piece and piece not in old][:size]
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
