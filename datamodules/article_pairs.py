"""Training pairs from judgments: a query and a document that is relevant to it, read when they are needed."""

from __future__ import annotations

import numpy as np

from datamodules.derived import IntArray, clean_line
from datamodules.judgments import BoolArray, Judgments
from datamodules.pairs import Pair
from datamodules.source import PairSource
from datamodules.text import text_id
from datamodules.text_store import TextStore


class ArticlePairs(PairSource):
    """Pairs of the texts that the lines of a file of judgments name; 8 bytes a pair are in memory.

    Args:
        judgments: all judgments of the file.
        chosen: which of them are pairs; (J,).
        sources: texts that the teacher reads.
        targets: texts that the student reads.
        source: whether the sources are the queries or the documents of the judgments.
        chunk_rows: pairs in a chunk.
    """

    def __init__(
        self,
        judgments: Judgments,
        chosen: BoolArray,
        sources: TextStore,
        targets: TextStore,
        source: str = "queries",
        chunk_rows: int = 1024,
    ) -> None:
        self.path, self.offsets, self.chunk_rows = judgments.path, np.asarray(judgments.offsets[chosen]), chunk_rows
        self.sources, self.targets = sources, targets
        self._columns = slice(0, 2) if source == "queries" else slice(1, None, -1)

    def chunk_sizes(self) -> IntArray:
        """Number of pairs in each chunk; (C,)."""
        starts = np.arange(0, len(self.offsets), self.chunk_rows)
        return np.minimum(self.chunk_rows, len(self.offsets) - starts).astype(np.int64)

    def read_chunk(self, number: int) -> list[bytes]:
        """The lines of the judgments of a chunk, which lie near each other in the file."""
        offsets = self.offsets[number * self.chunk_rows : (number + 1) * self.chunk_rows].tolist()
        with self.path.open("rb") as file:
            file.seek(offsets[0])
            content = file.read(offsets[-1] - offsets[0]) + file.readline() + b"\n"
        starts = [offset - offsets[0] for offset in offsets]
        lines = [content[start : content.index(b"\n", start)] for start in starts]
        return [clean_line(line, 1 if offset == 0 else 0) for line, offset in zip(lines, offsets, strict=True)]

    def parse(self, row: bytes) -> Pair:
        """The texts of a judgment; sources that differ only in case and white space share an id."""
        source, target = (column.decode("utf-8") for column in row.split()[:2][self._columns])
        text = self.sources[source]
        return Pair(text, self.targets[target], text_id(text))

    def row_length(self, row: bytes) -> int:  # noqa: ARG002
        """0: a line names its texts and does not say how long they are."""
        return 0
