from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from foundations.errors import InputError
from retrieval.index.exact import tie_positions
from retrieval.index.search import search, search_tokens
from retrieval.index.shards import Shards, ShardSettings, prepare_shards, write_shards
from retrieval.index.stored_ids import StoredIds
from retrieval.index.tokens import TokenMatrix

TEXTS = {f"d{i * 7919 % 100}x": "word " * (i % 9 + 1) + str(i) for i in range(57)}
WIDTH = 6


class Encoder:
    """Vectors that depend on the text, and on the longest text of the batch, as padding would have it."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.texts: list[str] = []
        self.fail_after = fail_after

    def __call__(self, texts):
        if self.fail_after is not None and len(self.texts) >= self.fail_after:
            raise KeyboardInterrupt
        self.texts += texts
        longest = max(map(len, texts))
        rows, tokens = [], []
        for text in texts:
            generator = torch.Generator().manual_seed(sum(map(ord, text)) * 1000 + longest)
            rows.append(torch.randn(WIDTH, generator=generator))
            tokens.append(torch.randn(len(text.split()), 3, generator=generator))
        lengths = torch.tensor([len(each) for each in tokens])
        return torch.stack(rows), TokenMatrix(torch.cat(tokens), torch.nn.functional.pad(lengths.cumsum(0), (1, 0)))


def settings(**options) -> ShardSettings:
    return ShardSettings(
        **{"model": "m1", "dim": WIDTH, "tokens": True, "token_dtype": "float32", "block": 10, "batch_size": 4}
        | options
    )


def write(folder, texts=TEXTS, encode=None, ranks=1, **options):
    prepare_shards(folder, texts, settings(**options))
    return sum(write_shards(folder, texts, encode or Encoder(), rank, ranks) for rank in range(ranks))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_reads_back_what_was_encoded(tmp_path):
    write(tmp_path / "a")
    shards = Shards(tmp_path / "a")
    assert list(shards.ids) == list(TEXTS)
    assert [len(part) for part in shards.pooled] == [10, 10, 10, 10, 10, 7]
    encode = Encoder()
    for number, block in enumerate(shards.pooled):
        names = list(TEXTS)[number * 10 : number * 10 + 10]
        # The batches that the block should be encoded in: longest first, four at a time.
        order = sorted(range(len(names)), key=lambda i: (-len(TEXTS[names[i]]), i))
        for start in range(0, len(order), 4):
            rows = order[start : start + 4]
            pooled, tokens = encode([TEXTS[names[i]] for i in rows])
            assert torch.equal(block[rows], pooled)
            stored = shards.tokens[number].select(torch.tensor(rows))
            assert torch.equal(stored.values, tokens.values)
            assert torch.equal(stored.offsets, tokens.offsets)


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_write_the_same_bytes(tmp_path, ranks):
    write(tmp_path / "one")
    assert write(tmp_path / "more", ranks=ranks) == len(TEXTS)
    assert content(tmp_path / "one") == content(tmp_path / "more")


def test_resumes_with_the_missing_blocks_and_the_same_bytes(tmp_path):
    write(tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        write(broken, encode=Encoder(fail_after=33))
    (broken / ".unfinished-pooled-00002.npy-def").mkdir()  # of a block that is complete: killed while tidying up
    (broken / ".unfinished-pooled-00004.npy-abc").mkdir()  # what SIGKILL would leave
    (broken / ".unfinished-pooled-00004.npy-abc" / "pooled-00004.npy").write_bytes(b"half a bl")
    pooled = broken / "pooled-00001.npy"
    pooled.write_bytes(pooled.read_bytes()[:-7])
    (broken / "lengths-00000.npy").unlink()
    with pytest.raises(InputError, match=r"5 of 6 blocks are missing .the first is 0.*goes on from here"):
        Shards(broken)
    encode = Encoder()
    assert write(broken, encode=encode) == 47
    assert set(encode.texts) == {text for i, text in enumerate(TEXTS.values()) if not 20 <= i < 30}
    assert content(broken) == content(tmp_path / "whole")
    assert write(broken, encode=Encoder(fail_after=0)) == 0, "nothing is encoded twice"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "m2"}, "vectors of another model"),
        ({"dtype": "float16"}, "of another type .dtype is float32, expected float16"),
        ({"block": 20}, "block is 10, expected 20"),
        ({"tokens": False}, "tokens is True"),
        ({"batch_size": 8}, "batch_size is 4"),
        ({"dim": 7}, "of another width"),
    ],
)
def test_shards_of_something_else_are_refused(tmp_path, change, message):
    write(tmp_path / "a")
    with pytest.raises(InputError, match=message):
        prepare_shards(tmp_path / "a", TEXTS, settings(**change))


def test_other_texts_are_refused(tmp_path):
    write(tmp_path / "a")
    names = list(TEXTS)
    for texts in (
        dict(reversed(TEXTS.items())),
        TEXTS | {names[3]: "changed"},
        {name: TEXTS[name] for name in names[:-1]},
        {("new" if name == names[0] else name): text for name, text in TEXTS.items()},
    ):
        with pytest.raises(InputError, match="of other texts"):
            prepare_shards(tmp_path / "a", texts, settings())


def test_wrong_folders(tmp_path):
    with pytest.raises(InputError, match=r"no manifest.json"):
        Shards(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files .notes\.txt"):
        prepare_shards(tmp_path, TEXTS, settings())
    with pytest.raises(InputError, match="this is a file"):
        prepare_shards(tmp_path / "notes.txt", TEXTS, settings())
    write(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(InputError, match="the format of the index is 99, expected 1"):
        Shards(tmp_path / "a")
    path.write_text("{")
    with pytest.raises(InputError, match=r"invalid JSON .* expected the manifest of an index"):
        Shards(tmp_path / "a")
    with pytest.raises(ValueError, match="block is 0"):
        settings(block=0)
    with pytest.raises(ValueError, match="dtype is 'int8', expected one of float32, float16"):
        settings(dtype="int8")


def test_killed_before_the_manifest(tmp_path):
    write(tmp_path / "whole")
    (tmp_path / ".unfinished-a-abc" / "a").mkdir(parents=True)
    (tmp_path / ".unfinished-a-abc" / "a" / "ids.txt").write_text("d1\n")
    write(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "whole"]
    assert content(tmp_path / "a") == content(tmp_path / "whole")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_search_in_shards_equals_search_in_memory(tmp_path, dtype):
    write(tmp_path / "a", dtype=dtype, token_dtype=dtype)
    shards, generator = Shards(tmp_path / "a"), torch.Generator().manual_seed(0)
    assert {part.dtype for part in shards.pooled} == {getattr(torch, dtype)}
    assert {part.values.dtype for part in shards.tokens} == {getattr(torch, dtype)}
    ids = list(TEXTS)
    queries = torch.randn(5, WIDTH, generator=generator)
    expected = search(queries, torch.cat(list(shards.pooled)), 20, ids)
    found = search(queries, shards.pooled, 20, shards.ids, memory_mb=1)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    tokens = TokenMatrix(torch.randn(9, 3, generator=generator), torch.tensor([0, 4, 9]))
    expected = search_tokens(tokens, TokenMatrix.concatenate(list(shards.tokens)), 20, ids)
    found = search_tokens(tokens, shards.tokens, 20, shards.ids, memory_mb=1)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_vectors_that_are_not_finite_are_not_written(tmp_path):
    prepare_shards(tmp_path / "a", TEXTS, settings(tokens=False))
    with pytest.raises(ValueError, match="not finite, in block 0"):
        write_shards(tmp_path / "a", TEXTS, lambda texts: (torch.full((len(texts), WIDTH), torch.nan), None))
    assert not list((tmp_path / "a").glob("*pooled*"))


def test_stored_ids(tmp_path):
    rng = random.Random(0)
    names = list({"".join(rng.choices("aZ9-_é中𝄞~", k=rng.randint(1, 6))) for _ in range(300)})
    StoredIds.write(tmp_path, iter(names))
    assert len(StoredIds(tmp_path)) == len(names)
    ids = StoredIds(tmp_path)
    assert list(ids) == names
    assert [ids[i] for i in range(-len(names), 0)] == names
    assert ids[5:17] == names[5:17]
    assert ids[290:999] == names[290:999]
    assert ids[7:3] == []
    assert ids[::7] == names[::7]
    assert torch.equal(ids.positions(), tie_positions(names))
    with pytest.raises(IndexError):
        ids[len(names)]
    for wrong, message in ((["a", "b", "a"], "'a' comes twice"), (["a b"], "white space"), (["a", ""], "is empty")):
        with pytest.raises(InputError, match=message):
            StoredIds.write(tmp_path, wrong)
    np.save(tmp_path / "id_ranks.npy", np.arange(3))
    with pytest.raises(InputError, match="do not fit each other"):
        StoredIds(tmp_path)
