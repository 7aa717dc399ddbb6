"""Image-text models of ``open_clip`` as teachers."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foundations.cache import Array, content_hash
from foundations.checks import did_you_mean
from foundations.errors import InputError
from lightning_modules.models.files import folder_hash
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.images import ImageTeacher
from strategies.base import Embeddings

if TYPE_CHECKING:
    from PIL.Image import Image

HUB = "hf-hub:"
CONFIG_FILE = "open_clip_config.json"
_HUB_SECONDS = 10.0
_FORMAT = 1
"""Part of the fingerprint: raise it when the same model and settings give other vectors."""


class OpenClipTeacher(ImageTeacher):
    """Both towers of an ``open_clip`` model, frozen, in float32, loaded when the first text or image comes.

    Pooled vectors are ``encode_image`` and ``encode_text``, scaled to unit length. Token states are put into the joint
    space by the same last norm and projection as the pooled vector: those of all patches of an image without the class
    token, and of the tokens of a text without start, end and padding. CLIP never trained them to match, which is worth
    knowing before they are used in a loss. Images have token states where the image tower is open_clip's own vision
    transformer without attention pooling; the others (ResNet, timm's, CoCa's) have pooled vectors only.

    Images go through the evaluation transform that the weights were published with. OpenAI's weights are
    used with QuickGELU, as they were trained, also under the name of an architecture without it.

    Args:
        model: an architecture (``open_clip.list_models()``), a local folder with ``open_clip_config.json`` and weights,
            or ``hf-hub:organisation/name``.
        pretrained: with an architecture, the tag of published weights, or a checkpoint file; else None or empty.
        batch_size: number of texts or images that are encoded together.
        device: where the model runs; ``auto`` is the current GPU if there is one, else the CPU.

    Raises:
        InputError: there is no such model, tag or file.
    """

    def __init__(
        self, model: str, pretrained: str | None = None, *, batch_size: int = 64, device: str = "auto"
    ) -> None:
        super().__init__(model, batch_size, device)
        self.folder = Path(model).expanduser() if _is_path(model) else None
        pretrained = pretrained or None
        self.checkpoint = _checkpoint(pretrained)
        self.pretrained = pretrained
        self._check()
        self._tower: nn.Module | None = None
        self._transform: Any = None
        self._words: Any = None

    @property
    def name(self) -> str:
        """The model as open_clip names it."""
        return self.model if self.folder is None else f"local-dir:{self.folder}"

    @property
    def config(self) -> dict[str, Any]:
        """The architecture: ``embed_dim``, ``vision_cfg`` and ``text_cfg``, read without loading the model."""
        import open_clip

        config: dict[str, Any] = open_clip.get_model_config(self.name)
        return config

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return int(self.config["embed_dim"])

    @property
    def patches(self) -> int:
        """Number of patches of an image.

        Raises:
            ValueError: the image tower gives no token states.
        """
        vision = self.config["vision_cfg"]
        if (
            "timm_model_name" in vision
            or not isinstance(vision.get("layers", 12), int)
            or vision.get("attentional_pool")
        ):
            raise ValueError(
                f"{self.model}: its image tower gives no token states (only open_clip's own vision transformers "
                "without attention pooling do); use a strategy and a score that need pooled vectors only"
            )
        size, patch = (_two(vision.get(key, default)) for key, default in (("image_size", 224), ("patch_size", 16)))
        return (size[0] // patch[0]) * (size[1] // patch[1])

    @property
    def tower(self) -> nn.Module:
        """The model, loaded on first use."""
        self.load()
        assert self._tower is not None
        return self._tower

    def load(self) -> None:
        """Load model, transform and tokenizer.

        Raises:
            InputError: a download failed, or the weights do not fit.
        """
        if self._tower is not None:
            return
        import open_clip

        try:
            model, self._transform = open_clip.create_model_from_pretrained(
                self.name,
                pretrained=str(self.checkpoint) if self.checkpoint else self.pretrained,
                force_quick_gelu=bool(self._published().get("quick_gelu")),
            )
            self._words = open_clip.get_tokenizer(self.name)
        except (RuntimeError, ValueError, OSError, ImportError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"open_clip cannot load this model: {reason}", self.model) from error
        self._tower = model.requires_grad_(False).eval().float().to(self.model_device)

    def settings(self, side: TextSide = "queries") -> dict[str, Any]:  # noqa: ARG002
        """The architecture, and how images are prepared."""
        published = {key: value for key, value in self._published().items() if key not in ("url", "hf_hub")}
        return {
            "model": self.model,
            "library": "open_clip",
            "pretrained": None if self.checkpoint else self.pretrained,
            "published": published,
            "config": self.config,
            "format": _FORMAT,
        }

    def load_images(self) -> None:
        """As `load`: both towers come together."""
        self.load()

    def model_key(self) -> str:
        """See `ModelTeacher.model_key`."""
        if self.checkpoint is not None:
            return f"{self.model} {content_hash(self.checkpoint)}"
        return self.model if self.folder is None else folder_hash(self.folder)

    def _published(self) -> dict[str, Any]:
        """What open_clip knows about published weights; empty for local ones and the hub's."""
        if self.pretrained is None or self.checkpoint is not None:
            return {}
        from open_clip.pretrained import get_pretrained_cfg

        return dict(get_pretrained_cfg(self.model, self.pretrained))

    def _check(self) -> None:
        """Raise InputError for a model, a tag or a file that is not there."""
        if self.folder is not None:
            check_folder(self.folder)
        if self.folder is not None or self.model.startswith(HUB):
            if self.pretrained is not None:
                raise InputError("holds its own weights, so pretrained must not be set", self.model)
            if self.folder is None:
                _check_hub(self.model.removeprefix(HUB))
            return
        check_name(self.model)
        if self.checkpoint is None:
            _check_tag(self.model, self.pretrained)

    def pixels(self, image: Image) -> Tensor:
        """See `ImageTeacher.pixels`."""
        pixels: Tensor = self._transform(image)
        return pixels

    def encode_pixels(self, pixels: Tensor, tokens: bool) -> Embeddings:
        """See `ImageTeacher.encode_pixels`."""
        model: Any = self.tower
        if not tokens:
            return Embeddings(model.encode_image(pixels, normalize=True))
        expected = self.patches
        visual = model.visual
        with _outputs(visual.transformer) as outputs:
            pooled = model.encode_image(pixels, normalize=True)
        states = visual.ln_post(outputs[0][:, -expected:])  # the class token stands first
        states = states if visual.proj is None else states @ visual.proj
        return Embeddings(pooled, states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))

    def encode_batch(self, texts: list[str], tokens: bool, side: TextSide) -> tuple[Embeddings, Tensor]:  # noqa: ARG002
        """See `ModelTeacher.encode_batch`."""
        model: Any = self.tower
        ids = self._tokenize(texts)
        on_device = ids.to(self.model_device)
        if not tokens:
            return Embeddings(model.encode_text(on_device, normalize=True)), ids
        text = getattr(model, "text", model)
        with _outputs(text.transformer) as outputs:
            pooled = model.encode_text(on_device, normalize=True)
        states = _projected(text, outputs[0])[:, : ids.shape[1]]  # CoCa's class token stands last
        return Embeddings(pooled, states, self._real(ids).to(states.device)), ids

    def _tokenize(self, texts: list[str]) -> Tensor:
        """Ids of texts, (B, context length)."""
        self.load()
        ids: Tensor = self._words([unicodedata.normalize("NFC", text) for text in texts])
        return ids

    def _real(self, ids: Tensor) -> Tensor:
        """True at the tokens that are words; a text without any has all its tokens there, (B, T), bool."""
        inner = getattr(self._words, "tokenizer", None)
        if inner is not None:  # of transformers
            special = torch.tensor(sorted({*inner.all_special_ids, inner.pad_token_id or 0}))
            mask = ~torch.isin(ids, special)
            return torch.where(mask.any(1, keepdim=True), mask, torch.ones_like(mask))
        # CLIP's own: start, words, end, zeros; 0 is a word as well.
        ends = (ids == self._words.eot_token_id).int().argmax(1, keepdim=True)
        positions = torch.arange(ids.shape[1])
        return torch.where(ends > 1, (positions > 0) & (positions < ends), positions <= ends)

    def text_ids(self, texts: list[str], side: TextSide) -> list[Array]:  # noqa: ARG002
        """See `ImageTeacher.text_ids`."""
        result: list[Array] = []
        for start in range(0, len(texts), self.batch_size):
            ids = self._tokenize(texts[start : start + self.batch_size])
            result += [row[mask].numpy() for row, mask in zip(ids, self._real(ids), strict=True)]
        return result


def architectures() -> list[str]:
    """The names of open_clip's architectures, found without importing it."""
    from importlib.util import find_spec

    spec = find_spec("open_clip")
    folders = spec.submodule_search_locations if spec is not None else None
    return sorted(path.stem for folder in folders or () for path in (Path(folder) / "model_configs").glob("*.json"))


def check_name(model: str) -> None:
    """Raise InputError where open_clip has no architecture of that name, with the nearest ones."""
    names = architectures()
    if model not in names:
        question = did_you_mean(model, names, cutoff=0.4) or ", see open_clip.list_models()"
        raise InputError(f"open_clip has no architecture {model!r}{question}")


def _check_hub(name: str) -> None:
    """Raise InputError where a model is neither in the hub's cache nor on the hub, without trying again and again."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        if not isinstance(try_to_load_from_cache(name, CONFIG_FILE), str):
            HfApi().model_info(name, timeout=_HUB_SECONDS)
    except Exception as error:  # the class is that of an HTTP library, which one differs by version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"open_clip cannot get {name!r} from the hub: {reason}; a model on this disk is open_clip:FOLDER"
        ) from error


def check_folder(folder: Path) -> None:
    """Raise InputError where a folder holds no open_clip model."""
    if not folder.is_dir():
        raise InputError("no such folder, expected one with an open_clip model", folder)
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"has no {CONFIG_FILE}, expected an open_clip model", folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _ = [content["model_cfg"][key] for key in ("embed_dim", "vision_cfg", "text_cfg")]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "is no open_clip configuration: expected model_cfg with embed_dim, vision_cfg, text_cfg", path
        ) from error
    if not any(next(folder.glob(pattern), None) for pattern in ("*.safetensors", "*.bin", "*.pth")):
        raise InputError("has no weights (*.safetensors, *.bin, *.pth)", folder)


def _check_tag(model: str, tag: str | None) -> None:
    from open_clip.pretrained import list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(model)
    if tag is None or tag not in tags:
        what = f"the weights of {model} are {tag!r}" if tag else f"{model} needs published weights or a checkpoint"
        question = did_you_mean(tag or "", tags)
        raise InputError(f"{what}, expected one of {', '.join(tags) or '(none)'}, or a file{question}")


def _checkpoint(pretrained: str | None) -> Path | None:
    """The file that ``pretrained`` names; None for a tag."""
    if pretrained is None:
        return None
    path = Path(pretrained).expanduser()
    if not path.is_file() and (_is_path(pretrained) or path.suffix in (".pt", ".pth", ".bin", ".safetensors")):
        raise InputError("no such checkpoint", path)
    return path if path.is_file() else None


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or (not name.startswith(HUB) and Path(name).is_dir())


def _two(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1])) if isinstance(value, list | tuple) else (int(value), int(value))


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module gives while the block runs."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs.append(getattr(output, "last_hidden_state", output))

    handle = module.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def _projected(text: Any, states: Tensor) -> Tensor:
    """The states of a text tower in the joint space, (B, T, D)."""
    if not hasattr(text, "ln_final"):  # a tower of transformers
        projected: Tensor = text.proj(states)
        return projected
    states = text.ln_final(states)
    layer = text.text_projection
    if layer is None:
        return states
    joint: Tensor = layer(states) if isinstance(layer, nn.Linear) else states @ layer
    return joint
