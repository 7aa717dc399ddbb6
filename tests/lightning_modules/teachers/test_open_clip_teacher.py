"""A tiny CLIP in open_clip's layout, with random weights; nothing is downloaded."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from datamodules.images import image_source, load_image
from datamodules.pairs import PairBatch
from foundations.errors import InputError
from lightning_modules.cli.front_door import teacher_options
from lightning_modules.distillation import DistillationModule
from lightning_modules.students.static import StaticEncoder
from lightning_modules.teachers.cached import CachedTeacher
from lightning_modules.teachers.open_clip import OpenClipTeacher
from strategies.contrastive import Contrastive
from strategies.cosine import Cosine
from strategies.kl import KL
from strategies.mse import MSE
from strategies.ot import OptimalTransport
from strategies.ot_match import OTMatch
from strategies.relational import Relational
from tests.training_steps import losses_of_steps

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
MEAN = [0.4, 0.5, 0.6]
CAPTIONS = ["a cat on a mat", "two dogs", "the sun"]


def save(folder: Path, vision: dict | None = None, text: dict | None = None, seed: int = 0, **options) -> Path:
    """Write open_clip_config.json and weights, as open_clip pushes them to the hub."""
    model = {"embed_dim": 16, "vision_cfg": VISION | (vision or {}), "text_cfg": TEXT | (text or {})} | options
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model, "preprocess_cfg": {"mean": MEAN, "std": [0.2, 0.2, 0.2], "interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = open_clip.create_model(f"local-dir:{folder}")
        for parameter in built.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    torch.save(built.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(5):
        pixels = random.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{'png' if number % 2 else 'jpg'}")
    return [image_source(path) for path in sorted(folder.iterdir())]


def make(model: Path, **options) -> OpenClipTeacher:
    return OpenClipTeacher(str(model), batch_size=2, device="cpu", **options)


@pytest.fixture(scope="module")
def teacher(model: Path) -> OpenClipTeacher:
    return make(model)


def reference(model: Path):
    built, transform = open_clip.create_model_from_pretrained(f"local-dir:{model}")
    return built.eval(), transform, open_clip.get_tokenizer(f"local-dir:{model}")


def test_pooled_vectors_are_open_clips_in_the_order_of_the_list(model, teacher, images) -> None:
    built, transform, tokenizer = reference(model)
    mixed = [images[0], CAPTIONS[0], images[1], images[2], CAPTIONS[1], CAPTIONS[2], images[3]]
    with torch.no_grad():
        seen = built.encode_image(torch.stack([transform(load_image(text)) for text in images]), normalize=True)
        read = built.encode_text(tokenizer(CAPTIONS), normalize=True)
    expected = torch.stack([seen[0], read[0], seen[1], seen[2], read[1], read[2], seen[3]])
    for tokens in (False, True):
        torch.testing.assert_close(teacher.encode(mixed, tokens).pooled, expected, atol=1e-5, rtol=1e-5)
    assert teacher.encode(mixed).pooled.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in teacher.tower.parameters())
    assert not teacher.tower.training


def test_patches_are_in_the_joint_space(model, teacher, images) -> None:
    """With an average pool, the mean of the patches is the pooled vector; with a class token it is not."""
    found = teacher.encode(images[:3], tokens=True)
    assert found.tokens.shape == (3, 16, 16)
    assert found.mask.all()
    assert not torch.allclose(F.normalize(found.tokens.mean(1), dim=-1), found.pooled, atol=1e-2)
    built, transform, _ = reference(model)
    pixels = torch.stack([transform(load_image(text)) for text in images[:3]])
    with torch.no_grad():
        built.visual.output_tokens = True
        _, states = built.visual(pixels)
    torch.testing.assert_close(found.tokens, states @ built.visual.proj.detach(), atol=1e-5, rtol=1e-4)


def test_the_mean_of_the_patches_is_the_pooled_vector_of_an_averaging_tower(tmp_path, images) -> None:
    folder = save(tmp_path / "average", vision={"pool_type": "avg"})
    found = make(folder).encode(images[:2], tokens=True)
    torch.testing.assert_close(F.normalize(found.tokens.mean(1), dim=-1), found.pooled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("custom", [False, True])
def test_words_are_real_and_start_end_and_padding_are_not(tmp_path, custom: bool) -> None:
    folder = save(tmp_path / "model", custom_text=custom)
    teacher = make(folder)
    texts = ["a cat on a mat", "dogs", "! !", " ".join(["cat"] * 30), ""]
    found = teacher.encode(texts, tokens=True)
    assert found.mask.sum(1).tolist() == [5, 1, 2, 10, 2]  # "!" has the id 0; an empty text has start and end
    assert (found.tokens[~found.mask] == 0).all()
    built, _, tokenizer = reference(folder)
    with torch.no_grad():
        ids = tokenizer(texts[:1])
        text = getattr(built, "text", built)
        states = text.token_embedding(ids) + text.positional_embedding
        states = text.ln_final(text.transformer(states, attn_mask=text.attn_mask)) @ text.text_projection
    torch.testing.assert_close(found.tokens[0, :5], states[0, 1:6], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(F.normalize(states[0, 6], dim=-1), found.pooled[0], atol=1e-5, rtol=1e-4)


def test_the_second_run_loads_no_model(model, images, tmp_path, monkeypatch) -> None:
    texts = [*images, *CAPTIONS]
    first = CachedTeacher(make(model), str(tmp_path))
    first.prepare(texts, tokens=True)
    expected = first.encode(texts, tokens=True)
    monkeypatch.setattr(OpenClipTeacher, "load", lambda self: pytest.fail("the model was loaded"))
    second = CachedTeacher(make(model), str(tmp_path))
    second.prepare(texts, tokens=True)
    found = second.encode(texts, tokens=True)
    assert torch.equal(found.pooled, expected.pooled)
    assert torch.equal(found.tokens, expected.tokens)
    assert second.dim == 16


def test_a_changed_image_is_encoded_again(model, tmp_path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40), "red").save(path)
    teacher = CachedTeacher(make(model), str(tmp_path / "cache"))
    red = teacher.encode([image_source(path)]).pooled
    Image.new("RGB", (48, 40), "blue").save(path)
    assert not torch.equal(teacher.encode([image_source(path)]).pooled, red)


def test_idf_counts_words_and_gives_patches_one_weight(model, teacher, images, tmp_path) -> None:
    texts = ["a cat", "a dog", "a cow", images[0]]
    cached = CachedTeacher(make(model), str(tmp_path))
    for each in (teacher, cached):
        each.fit_idf(texts)
        found = each.encode(texts, tokens=True)
        a, cat = found.weights[0, :2].tolist()
        assert a == pytest.approx(np.log(5 / 4) + 1)
        assert cat == pytest.approx(np.log(5 / 2) + 1)
        assert (found.weights[3] == found.weights[3, 0]).all()
        assert (found.weights[found.mask] >= 1).all()


def test_other_weights_architectures_or_transforms_have_other_fingerprints(model, tmp_path) -> None:
    same = save(tmp_path / "same")
    others = [save(tmp_path / "seed", seed=1), save(tmp_path / "pool", vision={"pool_type": "avg"})]
    config = json.loads((same / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    moved = save(tmp_path / "mean")
    (moved / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    keys = {make(folder).model_key() for folder in (same, *others, moved)}
    assert len(keys) == 4
    assert make(model).fingerprint() == make(model).fingerprint()


def test_room_on_disk_is_reckoned_by_patches_and_words(teacher, images) -> None:
    assert teacher.mean_length([images[0], "a cat"]) == (16 + 2) / 2


def test_a_checkpoint_file_of_an_architecture(tmp_path, monkeypatch, images) -> None:
    """The architecture is one that open_clip lists; here it lists a tiny one."""
    folder = save(tmp_path / "own")
    name = open_clip.list_models()[0]
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS, name, json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    )
    file = folder / "open_clip_pytorch_model.bin"
    teacher = OpenClipTeacher(name, str(file), device="cpu")
    assert teacher.encode(images[:1]).pooled.shape == (1, 16)
    assert teacher.dim == 16
    assert "published" in teacher.settings()


def test_openais_weights_are_used_with_quick_gelu(monkeypatch) -> None:
    asked = {}

    def create(name: str, **options):
        asked.update(options)
        raise RuntimeError("no network\nhere")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    teacher = OpenClipTeacher("ViT-B-32", "openai", device="cpu")
    assert (teacher.dim, teacher.patches) == (512, 49)
    with pytest.raises(InputError, match=r"ViT-B-32: open_clip cannot load this model: no network$"):
        teacher.encode(["a cat"])
    assert asked == {"pretrained": "openai", "force_quick_gelu": True}
    assert teacher.fingerprint() != OpenClipTeacher("ViT-B-32", "laion2b_s34b_b79k").fingerprint()


@pytest.mark.parametrize("vision", [{"layers": [1, 1, 1, 1], "width": 8}, {"attentional_pool": True}])
def test_towers_without_patches_have_pooled_vectors_only(tmp_path, images, vision: dict) -> None:
    teacher = make(save(tmp_path / "model", vision=vision))
    assert teacher.encode(images[:1]).pooled.shape == (1, 16)
    with pytest.raises(ValueError, match="its image tower gives no token states"):
        teacher.encode(images[:1], tokens=True)


def test_wrong_names(tmp_path, model) -> None:
    with pytest.raises(InputError, match=r"no architecture 'ViT-B32', did you mean '.*ViT-B-32"):
        OpenClipTeacher("ViT-B32", "openai")
    with pytest.raises(InputError, match=r"the weights of ViT-B-32 are 'opena', expected .*, did you mean 'openai'\?"):
        OpenClipTeacher("ViT-B-32", "opena")
    with pytest.raises(InputError, match=r"needs published weights or a checkpoint.*laion2b_s34b_b79k"):
        OpenClipTeacher("ViT-B-32")
    with pytest.raises(InputError, match="no such checkpoint"):
        OpenClipTeacher("ViT-B-32", str(tmp_path / "none.pt"))
    with pytest.raises(InputError, match="pretrained must not be set"):
        OpenClipTeacher(str(model), "openai")
    with pytest.raises(InputError, match="no such folder"):
        OpenClipTeacher(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"has no open_clip_config\.json"):
        OpenClipTeacher(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(InputError, match="is no open_clip configuration"):
        OpenClipTeacher(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text((model / "open_clip_config.json").read_text())
    with pytest.raises(InputError, match="has no weights"):
        OpenClipTeacher(str(tmp_path))


def test_weights_that_do_not_fit(tmp_path, model) -> None:
    folder = save(tmp_path / "wrong")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 48
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="open_clip cannot load this model"):
        make(folder).encode(["a cat"])


def test_bad_images(teacher, tmp_path, images) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    with pytest.raises(InputError, match=r"broken\.jpg: is no image, or is damaged"):
        teacher.encode([images[0], image_source(broken)])
    with pytest.raises(InputError, match="no such image"):
        teacher.encode([image_source(tmp_path / "none.jpg")])


def test_names_on_the_command_line(model, tmp_path) -> None:
    cached = "--model.teacher=lightning_modules.teachers.cached.CachedTeacher"
    inner = "--model.teacher.teacher"
    own = [cached, f"{inner}=lightning_modules.teachers.open_clip.OpenClipTeacher"]
    tagged = [*own, f"{inner}.model=ViT-B-32", f"{inner}.pretrained=laion2b_s34b_b79k"]
    assert teacher_options("open_clip:ViT-B-32/laion2b_s34b_b79k") == tagged
    assert teacher_options(f"open_clip:ViT-B-32/{tmp_path}/a.pt")[-1] == f"{inner}.pretrained={tmp_path}/a.pt"
    assert teacher_options(f"open_clip:{model}") == [*own, f"{inner}.model={model}", f"{inner}.pretrained="]
    assert teacher_options("open_clip:hf-hub:org/name")[-2] == f"{inner}.model=hf-hub:org/name"
    with pytest.raises(InputError, match=r"did you mean .*ViT-B-32"):
        teacher_options("open_clip:ViT-B_32/openai")
    with pytest.raises(InputError, match="names no weights, expected open_clip:ViT-B-32/TAG"):
        teacher_options("open_clip:ViT-B-32")
    with pytest.raises(InputError, match=r"has no open_clip_config\.json"):
        teacher_options(f"open_clip:{tmp_path}")


@pytest.mark.parametrize("strategy", ["mse", "ot"])
def test_a_run_with_images_as_sources_and_documents(model, images, script, tiny_config, tmp_path, strategy) -> None:
    """The front door's short name, the cache, the figures of texts and the leak check, on a folder of TSV files."""
    words = ["maji", "jua", "paka", "moto", "rafiki"]
    folder = tmp_path / "data"
    folder.mkdir()
    lines = {
        "pairs.tsv": [f"{image}\t{word} {other}" for image, word in zip(images, words, strict=True) for other in words],
        "documents.tsv": [f"d{place}\t{image}" for place, image in enumerate(images)],
        "qrels": [f"q{place} 0 d{place} 1" for place in range(5)],
        "queries.tsv": [f"q{place}\t{word}" for place, word in enumerate(words)],
    }
    for name in ("qrels", "queries.tsv"):
        lines[f"dev.{name}"] = lines[name]
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    own = ("--teacher", f"open_clip:{model}", "--strategy", strategy, "--data.root", folder)
    output = ("--output", tmp_path, "--name", "run", "--logger", "none", "--trainer.max_epochs", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
        done = script("train.py", "--config", tiny_config, *own, *output)
    assert done.status == 0, done.err
    figures = json.loads((tmp_path / "run" / "diagnostics.json").read_text())
    assert set(figures["texts"]) == {"train target", "dev queries"}
    assert (tmp_path / "run" / "metrics.json").is_file()


STRATEGIES = {
    "ot": OptimalTransport,
    "ot unbalanced": lambda: OptimalTransport(marginal_relaxation=1.0),
    "ot partial": lambda: OptimalTransport(mass=0.8),
    "ot_match": lambda: OTMatch(warmup_steps=0),
    "mse": MSE,
    "token mse": lambda: MSE(level="token"),
    "contrastive": Contrastive,
    "maxsim contrastive": lambda: Contrastive(score="maxsim"),
    "kl": KL,
    "relational": Relational,
    "cosine": Cosine,
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_loss_falls_on_images_captions_and_both(model, images, tiny_unigram, name: str) -> None:
    for sources in (images[:4], [*CAPTIONS, "water is life"], [*images[:2], *CAPTIONS[:2]]):
        torch.manual_seed(0)
        module = DistillationModule(
            StaticEncoder(tiny_unigram, max_length=16), make(model), STRATEGIES[name](), lr=0.01
        )
        module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
        targets = ["paka mdogo", "habari ya asubuhi", "maji ni uhai", "jua kubwa jekundu"]
        batch = PairBatch(list(sources), targets, torch.arange(4), noisy=torch.tensor([False, False, True, False]))
        losses = losses_of_steps(module, batch)
        assert losses[-1] < 0.9 * losses[0], sources


def test_a_hub_that_cannot_be_reached_is_said_at_once(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.perf_counter()
    with pytest.raises(
        InputError, match=r"cannot get 'org/name' from the hub: .*refused; a model on this disk is open_c"
    ):
        OpenClipTeacher("hf-hub:org/name")
    assert time.perf_counter() - began < 5
