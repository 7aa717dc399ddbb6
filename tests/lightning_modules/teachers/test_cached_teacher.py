from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from foundations.errors import InputError
from lightning_modules.teachers import cached as cached_teacher
from lightning_modules.teachers.cached import CachedTeacher
from lightning_modules.teachers.online import OnlineTeacher
from lightning_modules.teachers.store import TeacherStore, text_keys


def make(model: str, folder: Path, loads: bool = True, **options) -> CachedTeacher:
    online = OnlineTeacher(model, max_length=16, batch_size=4, device="cpu")
    if not loads:

        def refuse():
            raise AssertionError("the model was loaded")

        online._load = refuse
    return CachedTeacher(online, str(folder), **options)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/segment-*"))


def equal(left, right) -> bool:
    names = ("pooled", "tokens", "mask", "weights")
    pairs = [(getattr(left, name), getattr(right, name)) for name in names]
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("tokens", [False, True])
def test_the_second_run_loads_no_model_and_sees_the_same_bits(tiny_bert, tmp_path, texts, tokens):
    first = make(tiny_bert, tmp_path)
    first.prepare(texts, tokens)
    if tokens:
        first.fit_idf(texts)
    expected = first.encode(texts, tokens)
    second = make(tiny_bert, tmp_path, loads=False)
    second.prepare(texts, tokens)
    if tokens:
        second.fit_idf(texts)
    assert equal(second.encode(texts, tokens), expected)
    backwards = second.encode(texts[::-1], tokens)
    assert torch.equal(backwards.pooled, expected.pooled.flip(0))
    assert second.dim == 32
    assert len(segments(tmp_path)) == 1


def test_values_are_the_online_teachers(tiny_bert, tmp_path, texts):
    cached, online = make(tiny_bert, tmp_path), OnlineTeacher(tiny_bert, max_length=16, device="cpu")
    for teacher in (cached, online):
        teacher.fit_idf([*texts, texts[0]])
    ours, theirs = cached.encode([*texts, ""], True), online.encode([*texts, ""], True)
    torch.testing.assert_close(ours.pooled, theirs.pooled, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.tokens, theirs.tokens, atol=2e-3, rtol=1e-3)  # float16
    assert torch.equal(ours.mask, theirs.mask)
    torch.testing.assert_close(ours.weights, theirs.weights)
    assert ours.tokens.dtype == torch.float32
    exact = make(tiny_bert, tmp_path, token_dtype="float32").encode([*texts, ""], True)
    torch.testing.assert_close(exact.tokens, theirs.tokens, atol=1e-5, rtol=0)


def test_unseen_texts_are_encoded_and_kept(tiny_bert, tmp_path, texts):
    teacher = make(tiny_bert, tmp_path)
    teacher.prepare(texts[:4], True)
    expected = teacher.encode(texts, True)
    assert len(segments(tmp_path)) == 2
    assert equal(make(tiny_bert, tmp_path, loads=False).encode(texts, True), expected)


def test_texts_are_known_by_their_nfc(tiny_bert, tmp_path):
    make(tiny_bert, tmp_path).encode([unicodedata.normalize("NFD", "é पाणी")])
    make(tiny_bert, tmp_path, loads=False).encode([unicodedata.normalize("NFC", "é पाणी")])


def test_pooled_vectors_are_served_from_the_store_with_tokens(tiny_bert, tmp_path, texts):
    first = make(tiny_bert, tmp_path)
    first.prepare(texts[:5], True)
    later = make(tiny_bert, tmp_path, loads=False)
    assert torch.equal(later.encode(texts[:5]).pooled, first.encode(texts[:5], True).pooled)
    mixed = first.encode(texts)  # half of them come from either store
    assert torch.equal(mixed.pooled[:5], later.encode(texts[:5]).pooled)
    assert torch.equal(make(tiny_bert, tmp_path, loads=False).encode(texts).pooled, mixed.pooled)


def test_other_settings_or_models_have_their_own_vectors(tiny_bert, tiny_unigram, tmp_path):
    first = make(tiny_bert, tmp_path)
    first.encode(["the cat"])
    others = [
        OnlineTeacher(tiny_bert, max_length=8, device="cpu"),
        OnlineTeacher(tiny_unigram, max_length=16, device="cpu"),
    ]
    for other in others:
        teacher = CachedTeacher(other, str(tmp_path))
        assert (
            not torch.equal(teacher.encode(["the cat"]).pooled, first.encode(["the cat"]).pooled) or other is others[0]
        )
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["truncate", "remove", "meta", "list", "other", "empty", "mixed"])
def test_a_damaged_segment_is_encoded_again(tiny_bert, tmp_path, texts, damage):
    make(tiny_bert, tmp_path).prepare(texts, True)
    (segment,) = segments(tmp_path)
    if damage == "truncate":
        data = (segment / "tokens.npy").read_bytes()
        (segment / "tokens.npy").write_bytes(data[:-100])
    elif damage == "remove":
        (segment / "pooled.npy").unlink()
    elif damage == "mixed":  # an array of another segment, of the size that is expected
        about = json.loads((segment / "meta.json").read_text())
        np.save(segment / "pooled.npy", np.zeros((len(texts) - 1, 32), np.float32))
        about["files"]["pooled"] = (segment / "pooled.npy").stat().st_size
        (segment / "meta.json").write_text(json.dumps(about))
    else:
        content = {"meta": "{", "list": "[]", "other": '{"format": 1, "files": ["keys"]}', "empty": ""}[damage]
        (segment / "meta.json").write_text(content)
    again = make(tiny_bert, tmp_path)
    with pytest.warns(UserWarning, match="ignored and encoded again"):
        again.prepare(texts, True)
    assert len(segments(tmp_path)) == 1
    later = make(tiny_bert, tmp_path, loads=False)
    assert equal(later.encode(texts, True), again.encode(texts, True))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"dim": "wide"}', '{"dim": null}', "\xff"])
def test_a_damaged_description_is_written_again(tiny_bert, tmp_path, texts, content):
    make(tiny_bert, tmp_path).prepare(texts, False)
    (about,) = tmp_path.glob("*/about.json")
    sound = about.read_text()
    about.write_text(content, encoding="latin-1")
    again = make(tiny_bert, tmp_path, loads=False)
    with pytest.warns(UserWarning, match="about.json: ignored and written again"):
        assert again.dim == 32
    assert about.read_text() == sound
    assert again.encode(texts).pooled.shape == (len(texts), 32)


def test_half_written_folders_are_not_read_and_are_removed(tiny_bert, tmp_path, texts):
    teacher = make(tiny_bert, tmp_path)
    teacher.prepare(texts[:3], False)
    (segment,) = segments(tmp_path)
    leftover = segment.parent / f".unfinished-{segment.name}-abc"
    leftover.mkdir()
    (leftover / "keys.npy").write_bytes(b"half")
    later = make(tiny_bert, tmp_path)
    later.prepare(texts, False)
    assert not leftover.exists()


def test_nothing_is_left_when_encoding_fails(tiny_bert, tmp_path, texts, monkeypatch):
    teacher = make(tiny_bert, tmp_path)
    monkeypatch.setattr("lightning_modules.teachers.store._write_parts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        teacher.prepare(texts, True)
    monkeypatch.undo()
    assert list(tmp_path.glob("*/*/*segment*")) == []
    teacher.prepare(texts, True)  # the lock is free
    assert len(segments(tmp_path)) == 1


def test_large_work_is_written_in_several_segments(tiny_bert, tmp_path, texts, monkeypatch):
    monkeypatch.setattr(cached_teacher, "_SEGMENT_BYTES", 1000)
    teacher = make(tiny_bert, tmp_path)
    teacher.fit_idf(texts)
    assert len(segments(tmp_path)) > 2
    online = OnlineTeacher(tiny_bert, max_length=16, device="cpu")
    torch.testing.assert_close(teacher.encode(texts).pooled, online.encode(texts).pooled, atol=1e-6, rtol=0)
    online.fit_idf(texts)
    torch.testing.assert_close(teacher.encode(texts, True).weights, online.encode(texts, True).weights)


def encode_in_process(model: str, folder: str, texts: list[str], results) -> None:
    torch.set_num_threads(1)
    results.put(make(model, Path(folder)).encode(texts, True).pooled.numpy())


def test_processes_may_write_at_once(tiny_bert, tmp_path, texts):
    """Three processes with overlapping texts: all get the right vectors, and the cache is whole afterwards."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    parts = [texts, texts, [*texts[3:], "new text"]]
    processes = [context.Process(target=encode_in_process, args=(tiny_bert, tmp_path, part, results)) for part in parts]
    for process in processes:
        process.start()
    shapes = sorted(len(results.get(timeout=60)) for _ in parts)
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert shapes == sorted(map(len, parts))
    later = make(tiny_bert, tmp_path, loads=False).encode([*texts, "new text"], True)
    online = OnlineTeacher(tiny_bert, max_length=16, device="cpu").encode([*texts, "new text"], True)
    torch.testing.assert_close(later.pooled, online.pooled, atol=1e-6, rtol=0)


class SlowTeacher(OnlineTeacher):
    """Takes a twentieth of a second for a batch of four, and says how many texts it has encoded."""

    encoded = None

    def encode_batch(self, texts, tokens, side):
        time.sleep(0.05)
        if self.encoded is not None:
            with self.encoded.get_lock():
                self.encoded.value += len(texts)
        return super().encode_batch(texts, tokens, side)


def encode_slowly(model: str, folder: Path, texts: list[str], seconds: float, encoded) -> None:
    torch.set_num_threads(1)
    cached_teacher._SEGMENT_SECONDS, cached_teacher._SLICE = seconds, 2
    teacher = SlowTeacher(model, max_length=16, batch_size=4, device="cpu")
    teacher.encoded = encoded
    CachedTeacher(teacher, str(folder)).prepare(texts, False)


def begin(*arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=encode_slowly, args=arguments)
    process.start()
    return process


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def stored(folder: Path) -> int:
    store = TeacherStore(segments(folder)[0].parent)
    store.refresh()
    return len({key for segment in store.segments.values() for key in segment.keys.tolist()})


def test_a_killed_process_loses_at_most_what_is_younger_than_a_segment(tiny_bert, tmp_path):
    texts = [f"text {number} of many" for number in range(2000)]
    encoded = multiprocessing.get_context("fork").Value("i", 0)
    process = begin(tiny_bert, tmp_path, texts, 0.4, encoded)
    wait_until(lambda: len(segments(tmp_path)) >= 3)
    before = encoded.value
    wait_until(lambda: encoded.value >= before + 12)
    os.kill(process.pid, signal.SIGKILL)
    process.join(timeout=60)
    before = encoded.value
    assert process.exitcode == -signal.SIGKILL
    kept = stored(tmp_path)
    assert 0 < before - kept <= 4 * 0.4 / 0.05 + 4, "what was encoded in 0.4 s, and a batch"
    rest = begin(tiny_bert, tmp_path, texts[: kept + 40], 60, encoded)
    rest.join(timeout=60)
    assert rest.exitcode == 0
    make(tiny_bert, tmp_path, loads=False).encode(texts[: kept + 40])


def test_a_process_with_little_to_do_does_not_wait_for_one_with_much(tiny_bert, tmp_path):
    context = multiprocessing.get_context("fork")
    much, little = context.Value("i", 0), context.Value("i", 0)
    long = begin(tiny_bert, tmp_path, [f"text {number}" for number in range(4000)], 60, much)
    wait_until(lambda: much.value > 0)
    short = begin(tiny_bert, tmp_path, ["the cat", "the sun"], 60, little)
    short.join(timeout=30)
    try:
        assert short.exitcode == 0
        assert long.is_alive()
        assert stored(tmp_path) == little.value == 2
    finally:
        long.kill()
        long.join(timeout=60)


def test_processes_with_the_same_texts_share_the_work(tiny_bert, tmp_path):
    texts = [f"text {number}" for number in range(480)]
    encoded = multiprocessing.get_context("fork").Value("i", 0)
    processes = [begin(tiny_bert, tmp_path, texts, 0.2, encoded) for _ in range(2)]
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    assert stored(tmp_path) == 480
    assert 480 <= encoded.value <= 680, "each would encode all of the 480 if they did not look at each other"


def test_vectors_stay_the_same_when_another_process_writes_the_same_text_again(tmp_path):
    first, second = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    for pooled, others in ((first, ["b"]), (second, ["c", "d", "e"])):
        keys = text_keys(["a", *others])
        TeacherStore(tmp_path).write(keys=[keys], pooled=[np.repeat(pooled, len(keys), 0)])
        time.sleep(0.01)
    for _ in range(2):
        store = TeacherStore(tmp_path)
        assert store.pooled(store.find(text_keys(["a", "c"]))).tolist() == [[0] * 4, [1] * 4]


def test_the_arithmetic_is_printed_and_a_full_disk_refused(tiny_bert, tmp_path, texts, monkeypatch, capsys):
    monkeypatch.setattr(cached_teacher, "_ANNOUNCED_BYTES", 100)
    make(tiny_bert, tmp_path).prepare(texts, True)
    printed = capsys.readouterr().err
    assert f"{len(texts)} texts x (32 x 4 + " in printed
    assert "tokens x 32 x 2) bytes = " in printed
    monkeypatch.setattr(cached_teacher.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(InputError, match="are free: free some space"):
        make(tiny_bert, tmp_path).prepare(["another"], False)


def test_looking_up_a_batch_is_fast(tmp_path, texts):
    """64 texts among 20,000: below 1 ms pooled and 3 ms with tokens on one core; ten times that here."""
    random = np.random.default_rng(0)
    many = [f"text {index}" for index in range(20_000)]
    store = TeacherStore(tmp_path / "store")
    pooled = random.standard_normal((len(many), 384), dtype=np.float32)
    tokens = np.zeros((10 * len(many), 384), dtype=np.float16)
    lengths = np.full(len(many), 10)
    store.write(
        keys=[text_keys(many)],
        pooled=[pooled],
        lengths=[lengths],
        tokens=[tokens],
        ids=[np.zeros(10 * len(many), np.int32)],
    )
    teacher = CachedTeacher(OnlineTeacher("unused"), str(tmp_path))
    teacher._stores = {(True, "queries"): store, (False, "queries"): TeacherStore(tmp_path / "none")}
    batch = [many[i] for i in random.integers(len(many), size=64)]
    times = {}
    for with_tokens in (False, True):
        teacher.encode(batch, with_tokens)
        start = time.perf_counter()
        for _ in range(10):
            teacher.encode(batch, with_tokens)
        times[with_tokens] = (time.perf_counter() - start) / 10
    print({key: f"{1000 * value:.2f} ms" for key, value in times.items()})
    assert times[False] < 0.01
    assert times[True] < 0.03


@pytest.mark.filterwarnings("error")
def test_a_cold_cache_warns_of_nothing(tiny_bert, tmp_path, texts):
    """Torch warns of arrays that cannot be written to, such as a mapped file."""
    found = make(tiny_bert, tmp_path).encode(texts, tokens=True)
    assert found.tokens[found.mask].isfinite().all()


def test_wrong_options(tiny_bert, tmp_path):
    with pytest.raises(ValueError, match="token_dtype is 'int8', expected one of float16, float32"):
        make(tiny_bert, tmp_path, token_dtype="int8")
    with pytest.raises(ValueError, match="no texts"):
        make(tiny_bert, tmp_path).encode([])


@pytest.mark.parametrize("tokens", [False, True])
def test_an_iterable_is_read_once_and_in_blocks(tiny_bert, tmp_path, texts, monkeypatch, tokens):
    monkeypatch.setattr("lightning_modules.teachers.cached._BLOCK", 3)
    whole = make(tiny_bert, tmp_path / "whole")
    whole.prepare(texts, tokens)
    teacher, longest = make(tiny_bert, tmp_path / "blocks"), 0
    encode = teacher.teacher.encode_batches

    def watched(block, *options):
        nonlocal longest
        longest = max(longest, len(block))
        return encode(block, *options)

    teacher.teacher.encode_batches = watched  # type: ignore[method-assign]
    teacher.prepare(iter([*texts, *texts]), tokens)
    assert longest <= 3
    assert len(segments(tmp_path / "blocks")) == 1
    again = make(tiny_bert, tmp_path / "blocks", loads=False)
    again.prepare(iter(texts), tokens)
    ours, theirs = again.encode(texts, tokens), whole.encode(texts, tokens)
    torch.testing.assert_close(ours.pooled, theirs.pooled, atol=1e-6, rtol=0)
    store = TeacherStore(segments(tmp_path / "blocks")[0].parent)
    store.refresh()
    assert sum(len(segment.keys) for segment in store.segments.values()) == len(set(texts))


def test_texts_that_come_on_the_way_need_not_be_stored(tiny_bert, tmp_path, texts):
    teacher = make(tiny_bert, tmp_path)
    teacher.stores_new = False
    teacher.prepare(texts[:3], True)
    before = segments(tmp_path)
    online = OnlineTeacher(tiny_bert, max_length=16, device="cpu")
    assert equal(teacher.encode(texts[2:6], True), online.encode(texts[2:6], True))
    teacher.fit_idf(texts)
    online.fit_idf(texts)
    assert equal(teacher.encode(texts[2:6], True), online.encode(texts[2:6], True))
    assert teacher.encode(texts[2:6], True).weights is not None
    torch.testing.assert_close(teacher.encode(texts[:3], True).weights, online.encode(texts[:3], True).weights)
    assert segments(tmp_path) == before
    assert equal(teacher.encode(texts[:3]), make(tiny_bert, tmp_path, loads=False).encode(texts[:3]))
