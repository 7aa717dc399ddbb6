"""Vectors of texts on disk: immutable segments that are mapped into memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.images import PREFIX as IMAGE_PREFIX
from datamodules.images import cache_text
from foundations.cache import Array
from foundations.files import UNFINISHED, new_folder

_FORMAT = 1


def text_keys(texts: Iterable[str]) -> Array:
    """BLAKE2b hashes of texts in NFC and UTF-8, of images with what tells a changed file; 16 bytes each."""
    named = (cache_text(text) if text.startswith(IMAGE_PREFIX) else text for text in texts)
    normal = (unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass") for text in named)
    return np.array([hashlib.blake2b(data, digest_size=16).digest() for data in normal], dtype="S16")


@dataclass(frozen=True)
class Segment:
    """Some texts' vectors, as one folder of NumPy files.

    Args:
        keys: of the texts, (N,), 16 bytes each.
        pooled: (N, D), float32.
        offsets: where each text's tokens begin, and the end of the last, (N + 1,); None without tokens.
        tokens: all tokens one after the other, (offsets[-1], D); None without tokens.
        ids: their ids in the tokenizer, (offsets[-1],), int32; None without tokens.
    """

    keys: Array
    pooled: Array
    offsets: Array | None = None
    tokens: Array | None = None
    ids: Array | None = None

    @classmethod
    def open(cls, folder: Path) -> Segment:
        """Map a segment's files.

        Raises:
            OSError, ValueError: a file is missing, or has not the size that it was written with.
        """
        about = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']}, expected {_FORMAT}")
        arrays = {}
        for name, size in about["files"].items():
            path = folder / f"{name}.npy"
            if path.stat().st_size != size:
                raise ValueError(f"{path.name} has {path.stat().st_size} bytes, expected {size}")
            arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
        arrays["keys"] = np.array(arrays["keys"])
        return cls(**arrays)

    def __post_init__(self) -> None:
        count = len(self.keys)
        fits = len(self.pooled) == count
        if self.offsets is not None and self.tokens is not None and self.ids is not None:
            fits &= len(self.offsets) == count + 1 and self.offsets[-1] == len(self.tokens) == len(self.ids)
        if not fits:
            raise ValueError("its arrays do not fit each other")


class TeacherStore:
    """The segments in one folder, as one table of texts.

    A segment appears at once when it is complete, and never changes, so processes may read while another writes.
    What a killed process left half-written is never read. A damaged segment is ignored with a warning. Of a text in
    two segments the older one's vectors count, so that they stay the same whatever is written later.

    Args:
        folder: where the segments lie; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segments: dict[str, Segment] = {}
        self.broken: set[Path] = set()
        self._opened, self._stale = False, True

    def refresh(self) -> None:
        """Open the segments that appeared since the last time."""
        self._opened = True
        paths = [path for path in self.folder.glob("segment-*") if path.name not in self.segments]
        for path in sorted(paths, key=_age):
            if path in self.broken:
                continue
            try:
                self.segments[path.name] = Segment.open(path)
                self._stale = True
            except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
                self.broken.add(path)
                warnings.warn(f"{path}: ignored and encoded again: {error}", stacklevel=2)

    def clean(self) -> None:
        """Remove damaged segments and what killed processes left; call it only while no other process writes."""
        for path in [*self.broken, *self.folder.glob(f"{UNFINISHED}*")]:
            shutil.rmtree(path, ignore_errors=True)
        self.broken.clear()

    def find(self, keys: Array) -> Array:
        """Rows of texts, -1 where the store lacks them; (N,), int64."""
        if not self._opened:
            self.refresh()
        if self._stale:
            self._index()
        if len(self._sorted) == 0:
            return np.full(len(keys), -1)
        positions = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        return np.where(self._sorted[positions] == keys, self._order[positions], -1)

    def pooled(self, rows: Array) -> Array:
        """Pooled vectors of rows, (N, D), float32."""
        parts, local = self._locate(rows)
        first = self._list[int(parts[0])]
        if (parts == parts[0]).all():
            return first.pooled[local]
        result = np.empty((len(rows), first.pooled.shape[1]), dtype=np.float32)
        for part in np.unique(parts):
            here = parts == part
            result[here] = self._list[part].pooled[local[here]]
        return result

    def ragged(self, name: str, rows: Array) -> list[Array]:
        """The ``tokens`` or ``ids`` of rows: N views into the mapped files, of (tokens of the text, ...)."""
        views = []
        for part, row in zip(*(array.tolist() for array in self._locate(rows)), strict=True):
            segment = self._list[part]
            assert segment.offsets is not None
            start, end = segment.offsets[row : row + 2].tolist()
            views.append(getattr(segment, name)[start:end])
        return views

    def write(self, **columns: Sequence[Array]) -> None:
        """Write one segment and open it.

        Args:
            columns: the arrays of a `Segment`, each in parts that are joined along their first axis; ``offsets``
                is given as the number of tokens of each text under the name ``lengths``.
        """
        if "lengths" in columns:
            lengths = np.concatenate(columns.pop("lengths"))
            columns["offsets"] = [np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)]
        name = hashlib.blake2b(np.concatenate(columns["keys"]).tobytes(), digest_size=12).hexdigest()
        with new_folder(self.folder / f"segment-{name}") as folder:
            files = {column: _write_parts(folder / f"{column}.npy", parts) for column, parts in columns.items()}
            about = json.dumps({"format": _FORMAT, "files": files}, indent=2)
            (folder / "meta.json").write_text(about + "\n", encoding="utf-8")
        self.refresh()

    def _index(self) -> None:
        """Sort the keys of all segments."""
        self._list, self._stale = list(self.segments.values()), False
        keys = np.concatenate([np.empty(0, dtype="S16"), *(segment.keys for segment in self._list)])
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        self._ends = np.cumsum([len(segment.keys) for segment in self._list])

    def _locate(self, rows: Array) -> tuple[Array, Array]:
        """Number of the segment, and row within it."""
        parts = np.searchsorted(self._ends, rows, side="right")
        return parts, rows - np.concatenate([[0], self._ends])[parts]


def _age(path: Path) -> tuple[int, str]:
    """Sorts segments by the time at which they were written; one that another process has just removed comes first."""
    try:
        return path.stat().st_mtime_ns, path.name
    except FileNotFoundError:
        return 0, path.name


def _write_parts(path: Path, parts: Sequence[Array]) -> int:
    """Write arrays, joined along the first axis, as one .npy file, without joining them in memory.

    Returns:
        The size of the file in bytes.
    """
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(parts[0].dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)
    return path.stat().st_size
