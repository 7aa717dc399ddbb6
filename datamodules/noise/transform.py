"""Noise put into pairs and collections; text noise and image noise depend on the text or image and the seed alone.

So they are the same for any number of workers and ranks, after a resume, with another `limit_pairs`, and for pairs that
are streamed. Equal texts are changed alike.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

from datamodules.images import ImageReference, is_image
from datamodules.lines import LazyTexts
from datamodules.noise.correspondence import mismatch, realised_counts, with_known_level
from datamodules.noise.files import read_lexicon, read_machine_translations
from datamodules.noise.options import EvaluationNoise, TrainingNoise
from datamodules.noise.text import TextNoise
from datamodules.pairs import Pair
from datamodules.sources import Pairs, PairSource, Row, WrappedSource
from foundations.errors import InputError
from foundations.progress import delayed_progress
from retrieval.collection import Collection


@dataclass(frozen=True)
class NoiseReport:
    """What noise did to the training pairs.

    Args:
        pairs: number of pairs.
        captions: number of targets; fewer than pairs where the teacher reads both the image and the English caption.
        mismatched: of the captions, those whose source really changed; None without wrong correspondence.
        targets_changed: pairs whose target text noise changed; None where none was asked for, or pairs are streamed.
        sources_changed: pairs whose image was corrupted; the same.
        options: what was asked for.
    """

    pairs: int
    captions: int
    mismatched: int | None
    targets_changed: int | None
    sources_changed: int | None
    options: TrainingNoise

    @classmethod
    def of_parts(cls, parts: Sequence[NoiseReport]) -> NoiseReport:
        """What noise did to several datasets together; the options are those of the first."""

        def total(count: str) -> Any:
            known = [value for part in parts if (value := getattr(part, count)) is not None]
            return sum(known) if known else None

        counts = {
            name: total(name) for name in ("pairs", "captions", "mismatched", "targets_changed", "sources_changed")
        }
        return cls(**counts, options=parts[0].options)

    @property
    def rates(self) -> dict[str, float]:
        """Realised shares, where known: ``mismatched`` of the captions, the others of the pairs."""
        counts = {
            "mismatched": (self.mismatched, self.captions),
            "targets_changed": (self.targets_changed, self.pairs),
            "sources_changed": (self.sources_changed, self.pairs),
        }
        return {name: count / total for name, (count, total) in counts.items() if count is not None}

    def __str__(self) -> str:
        noise, rates, parts = self.options, self.rates, []
        if "mismatched" in rates:
            asked = f"file {noise.index_file}" if noise.index_file else f"rate {noise.rate:g}"
            parts.append(f"{rates['mismatched']:.4f} of them with another's source ({noise.level} level, {asked})")
        if noise.changes_texts:
            share = f"{rates['targets_changed']:.4f}" if "targets_changed" in rates else "as they are read, some"
            parts.append(f"{share} with a changed target ({noise.text}, severity {noise.text_severity})")
        if noise.changes_images:
            share = f"{rates['sources_changed']:.4f}" if "sources_changed" in rates else "as they are read, all"
            parts.append(f"{share} with a corrupted image ({noise.image}, severity {noise.image_severity})")
        pairs = f"{self.pairs:,} pairs" + (f" of {self.captions:,} captions" if self.captions < self.pairs else "")
        return f"{pairs}, {'; '.join(parts) or 'none changed'}; seed {noise.known_seed}"


class PairNoise:
    """Text noise in the target and image noise in the source of a pair; the files of the noise are read here."""

    def __init__(self, noise: EvaluationNoise) -> None:
        self.noise = noise
        self._text: TextNoise | None = None
        if noise.changes_texts:
            lexicon = read_lexicon(noise.lexicon) if noise.text == "code_switch" and noise.lexicon else {}
            mt = read_machine_translations(noise.translations) if noise.text == "mt" and noise.translations else {}
            self._text = TextNoise(noise.text, noise.text_severity, noise.known_seed, lexicon, mt)

    def __call__(self, pair: Pair, index: int = 0) -> Pair:  # noqa: ARG002  (the text itself gives the random numbers)
        """The pair with noise; the pair itself where nothing changes."""
        source, target = self.image(pair.source), self.text(pair.target)
        if source == pair.source and target == pair.target:
            return pair
        return replace(pair, source=source, target=target)

    def text(self, text: str) -> str:
        """A text with noise; an image, or a text without letters to change, stays."""
        return text if self._text is None or is_image(text) else self._text(text)

    def image(self, text: str) -> str:
        """The string of an image that `load_image` will corrupt; a text stays as it is.

        The seed is a hash of the file's name (not its folder) and the box, so every image has noise of its own.
        """
        if not self.noise.changes_images or not is_image(text):
            return text
        reference = ImageReference.parse(text)
        key = f"{self.noise.known_seed}\0{PurePath(reference.path).name}\0{reference.box}"
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big")
        return str(replace(reference, noise=self.noise.image, severity=self.noise.image_severity, seed=seed))


def noisy_pairs(pairs: Pairs, noise: TrainingNoise) -> tuple[Pairs, NoiseReport]:
    """Training pairs, all of them and in the dataset's order, with noise, and what was done to them.

    The pairs are the very same object where nothing is asked for. InputError for wrong correspondence of pairs that are
    streamed, image noise without images, or a wrong file.
    """
    if isinstance(pairs, PairSource):
        return _noisy_source(pairs, noise)
    matched = mismatch(pairs, noise)
    noise = with_known_level(pairs, noise)
    wrong, captions = realised_counts(matched)
    mismatched = wrong if noise.changes_correspondence else None
    if not (noise.changes_texts or noise.changes_images):
        return matched, NoiseReport(len(pairs), captions, mismatched, None, None, noise)
    _need_images(noise, any(is_image(pair.source) for pair in matched))
    change = PairNoise(noise)
    changed: list[Pair] = []
    with delayed_progress("add noise", len(pairs)) as advance:
        for row, pair in enumerate(matched):
            changed.append(change(pair, row))
            if row % 1024 == 0:
                advance(1024)
    both = list(zip(matched, changed, strict=True))
    targets = sum(old.target != new.target for old, new in both) if noise.changes_texts else None
    sources = sum(old.source != new.source for old, new in both) if noise.changes_images else None
    if targets == 0:
        warnings.warn(f"the text noise {noise.text} changes no target of the training pairs", stacklevel=2)
    return changed, NoiseReport(len(pairs), captions, mismatched, targets, sources, noise)


def _noisy_source(pairs: PairSource, noise: TrainingNoise) -> tuple[PairSource, NoiseReport]:
    if noise.changes_correspondence:
        raise InputError(
            "wrong correspondence shuffles the sources of all pairs, but these are streamed from disk: "
            "set noise.rate to 0, or use data that fits into memory"
        )
    report = NoiseReport(len(pairs), len(pairs), None, None, None, noise)
    if not (noise.changes_texts or noise.changes_images):
        return pairs, report
    _need_images(noise, is_image(next(iter(pairs)).source))
    return NoisySource(pairs, PairNoise(noise)), report


def noisy_collection(collection: Collection, change: PairNoise) -> Collection:
    """A collection of ``test`` or ``english`` with noise in what models read; those of other splits stay as they are.

    The texts that the student reads get text noise, if the collection is ``test``; images get image noise on both
    sides, whoever reads them.
    """
    if collection.split not in ("test", "english"):
        return collection
    sides: dict[str, Any] = {}
    for side, reader in (("queries", collection.query_side), ("documents", collection.document_side)):
        is_text = collection.split == "test" and reader == "student" and change.noise.changes_texts
        if is_text or change.noise.changes_images:
            texts: Mapping[str, str] = getattr(collection, side)
            noisy = NoisyTexts(texts, change, is_text)
            sides[side] = dict(noisy.items()) if isinstance(texts, dict) else noisy
    return replace(collection, **sides) if sides else collection


def noisy_collections(collections: Mapping[str, Collection], noise: EvaluationNoise) -> dict[str, Collection]:
    """The collections with noise in ``test`` (and in the images of ``english``).

    InputError for image noise where no collection of ``test`` has an image, or a wrong file.
    """
    if not (noise.changes_texts or noise.changes_images):
        return dict(collections)
    tests = [each for each in collections.values() if each.split == "test"]
    _need_images(
        noise,
        any(is_image(next(iter(side.values()))) for each in tests for side in (each.queries, each.documents)),
        "test",
    )
    change = PairNoise(noise)
    changed = {name: noisy_collection(collection, change) for name, collection in collections.items()}
    if noise.changes_texts and not any(_differs(each, changed[each.name]) for each in tests):
        warnings.warn(f"the text noise {noise.text} changes no text of the test collection", stacklevel=2)
    return changed


def _differs(old: Collection, new: Collection) -> bool:
    """Whether any text of a collection is another now; taken for granted where texts stay on disk."""
    sides = ((old.queries, new.queries), (old.documents, new.documents))
    return any(isinstance(after, NoisyTexts) or before != after for before, after in sides)


def _need_images(noise: EvaluationNoise, has_image: bool, where: Literal["pair", "test"] = "pair") -> None:
    if noise.changes_images and not has_image:
        what = "no training pair's source is one" if where == "pair" else "the test collection has none"
        raise InputError(f"the noise {noise.image} is for images, but {what}")


class NoisySource(WrappedSource):
    """Streamed pairs with text and image noise, made when a row is parsed."""

    def __init__(self, source: PairSource, change: PairNoise) -> None:
        super().__init__(source)
        self.change = change

    def parse(self, row: Row) -> Pair:
        """The pair of a row, with noise."""
        return self.change(self.source.parse(row))


class NoisyTexts(LazyTexts):
    """Texts and images by id with noise, made when one is asked for; texts are changed only if `is_text`."""

    def __init__(self, texts: Mapping[str, str], change: PairNoise, is_text: bool) -> None:
        self.texts, self.change, self.is_text = texts, change, is_text

    def __getitem__(self, key: str) -> str:
        return self._noisy(self.texts[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def read(self) -> Iterator[tuple[str, str]]:
        """(id, text with noise), read in one go."""
        return ((key, self._noisy(text)) for key, text in self.texts.items())

    def _noisy(self, text: str) -> str:
        return self.change.image(self.change.text(text) if self.is_text else text)
