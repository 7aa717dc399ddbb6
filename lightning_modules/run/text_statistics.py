"""What a tokenizer makes of texts: the numbers that tell whether a model can read a language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from datamodules.text import script_shares
from lightning_modules.students.tokens import Tokenization
from retrieval.collection import Side

BIN_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Lower ends of the bins of the length histograms, in tokens; the last bin has no end."""

_CHUNK = 2048
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class TextStatistics:
    """Figures about some texts, as one model reads them."""

    texts: int
    words: float  # white-space separated words of a text on average
    fertility: float  # tokens of a word on average; high where the vocabulary does not fit the language
    unknown: float  # share of the tokens that stand for what the vocabulary lacks
    truncated: float  # share of the texts that are longer than the model reads
    median_length: float  # tokens of the median text, without special ones
    longest: int  # tokens of the longest text
    scripts: dict[str, float]  # share of each script among the letters
    histogram: list[int] = field(repr=False)  # number of texts in each bin of lengths; see `BIN_EDGES`
    reader: Side = "student"  # who reads them

    @property
    def sparkline(self) -> str:
        """The histogram as a row of bars, a bin each."""
        highest = max(self.histogram) or 1
        return "".join(_BARS[-(-number * (len(_BARS) - 1) // highest)] for number in self.histogram)

    @property
    def main_scripts(self) -> str:
        """The scripts with at least one letter in twenty."""
        return ", ".join(f"{name} {share:.0%}" for name, share in self.scripts.items() if share >= 0.05) or "-"


def text_statistics(texts: Sequence[str], tokenization: Tokenization, reader: Side = "student") -> TextStatistics:
    """The figures of at least one text, as a model, which is named by `reader`, tokenizes them.

    Words are counted by white space, so the fertility says nothing about scripts that have none between words.
    """
    tokenizer = tokenization.tokenizer
    unknown_id = None if tokenization.unknown is None else tokenizer.token_to_id(tokenization.unknown)
    # The prefix is read by the model, but is not the text's.
    own = len(tokenizer.encode(tokenization.prefix, add_special_tokens=False).ids) if tokenization.prefix else 0
    lengths, unknown = [], 0
    for start in range(0, len(texts), _CHUNK):
        chunk = [tokenization.prefix + text for text in texts[start : start + _CHUNK]]
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            lengths.append(max(0, len(encoding.ids) - own))
            unknown += encoding.ids.count(unknown_id) if unknown_id is not None else 0
    sizes = np.array(lengths)
    words = sum(len(text.split()) for text in texts)
    limit = tokenization.max_length - own - tokenizer.num_special_tokens_to_add(False)
    return TextStatistics(
        texts=len(texts),
        words=words / len(texts),
        fertility=float(sizes.sum() / max(1, words)),
        unknown=unknown / max(1, int(sizes.sum())),
        truncated=float((sizes > limit).mean()),
        median_length=float(np.median(sizes)),
        longest=int(sizes.max()),
        scripts=script_shares(texts),
        histogram=np.histogram(sizes, [*BIN_EDGES, np.inf])[0].tolist(),
        reader=reader,
    )


def flat(rows: Mapping[str, TextStatistics]) -> dict[str, float]:
    """The figures by name, for loggers: ``diagnostics/train_target/fertility`` and so on."""
    names = ("texts", "words", "fertility", "unknown", "truncated", "median_length", "longest")
    return {
        f"diagnostics/{row.replace(' ', '_')}/{name}": float(getattr(figures, name))
        for row, figures in rows.items()
        for name in names
    }
