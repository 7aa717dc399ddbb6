"""The ids of millions of texts in files, with the order that breaks ties, so that a search need not hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from foundations.cache import Array
from foundations.errors import InputError

_UNUSABLE = re.compile(r"[\s\0]|^$", re.ASCII)


class StoredIds(Sequence[str]):
    """Ids in files that are mapped into memory: ``ids.txt``, one a line, where each begins, and their order for ties.

    InputError where a file in the folder is missing or does not fit the others.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        try:
            self._offsets = load_mapped(folder / "id_offsets.npy")
            self._positions = load_mapped(folder / "id_ranks.npy")
            self._bytes: Array = np.memmap(folder / "ids.txt", dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise InputError(f"the ids cannot be read ({error}): index again", folder) from error
        if len(self._positions) + 1 != len(self._offsets) or self._offsets[-1] != len(self._bytes):
            raise InputError("the files of the ids do not fit each other: index again", folder)

    @classmethod
    def write(cls, folder: str | Path, ids: Iterable[str]) -> None:
        """Write ids into an existing folder.

        InputError where an id comes twice, or a TREC run cannot hold it: it is empty, or holds white space.
        """
        folder = Path(folder)
        ends = [0]
        with (folder / "ids.txt").open("wb") as file:
            for name in ids:
                if _UNUSABLE.search(name):
                    raise InputError(f"the id {name!r} is empty or holds white space: the TREC formats cannot hold it")
                ends.append(ends[-1] + file.write(name.encode() + b"\n"))
        offsets = np.array(ends, dtype=np.int64)
        np.save(folder / "id_offsets.npy", offsets)
        np.save(folder / "id_ranks.npy", _ranks(np.fromfile(folder / "ids.txt", dtype=np.uint8), offsets))

    def positions(self) -> Tensor:
        """Position of each id in descending order of the ids, which is the order of ties; (N,), int32."""
        return torch.from_numpy(np.array(self._positions))

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return [self[i] for i in range(start, stop, step)]
            content = self._bytes[self._offsets[start] : self._offsets[max(start, stop)]].tobytes()
            return [line.decode() for line in content.split(b"\n")[:-1]]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return bytes(self._bytes[self._offsets[index] : self._offsets[index + 1] - 1]).decode()


def load_mapped(path: Path) -> Array:
    """A NumPy file mapped into memory, private and writable, so that PyTorch takes it without a copy."""
    array: Array = np.load(path, mmap_mode="c")
    return array


def _ranks(content: Array, offsets: Array) -> Array:
    """Position of each id in descending order; UTF-8 sorts by bytes as Python sorts by code points."""
    lengths = np.diff(offsets) - 1
    width = int(lengths.max(initial=1))
    table = np.zeros((len(lengths), width), dtype=np.uint8)
    table[np.arange(width) < lengths[:, None]] = content[content != ord("\n")]
    names = table.view(f"S{width}")[:, 0]
    order = names.argsort(kind="stable")[::-1]
    repeated = np.flatnonzero(names[order[1:]] == names[order[:-1]])
    if len(repeated):
        raise InputError(f"the id {names[order[repeated[0]]].decode()!r} comes twice, expected each once")
    ranks = np.empty(len(order), dtype=np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks
