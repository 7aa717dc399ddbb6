"""The switches of noise: what goes wrong with training pairs, and with what is read at test time."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from datamodules.noise.image import IMAGE_NOISES
from datamodules.noise.text import TEXT_NOISES
from foundations.checks import check_choice, check_number

NoiseLevel = Literal["caption", "image"]


@dataclass(frozen=True)
class EvaluationNoise:
    """Noise in what models read: in the student's texts and in images; see `datamodules.noise.text` and ``.image``.

    Args:
        text: kind of text noise: keyboard, insert, delete, swap, substitute, ocr, word_drop, word_order, code_switch,
            diacritics, transliteration, mt or mixed; empty for none.
        text_severity: 0 (none) to 5.
        image: kind of image noise: gaussian, shot, impulse, defocus, motion, brightness, contrast, pixelate, jpeg or
            occlusion; empty for none.
        image_severity: 0 (none) to 5.
        lexicon: for ``code_switch``, a file of ``word<TAB>word`` in two languages.
        translations: for ``mt``, a file of ``text<TAB>machine translation``.
        seed: of everything random here. None is 0, so that all runs are asked the same.

    Raises:
        ValueError: an unknown kind, a severity out of range, or a kind without the file that it needs.
    """

    text: str = ""
    text_severity: int = 0
    image: str = ""
    image_severity: int = 0
    lexicon: str | None = None
    translations: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_kind("text", self.text, self.text_severity, TEXT_NOISES)
        _check_kind("image", self.image, self.image_severity, IMAGE_NOISES)
        for kind, name, file in (("code_switch", "lexicon", self.lexicon), ("mt", "translations", self.translations)):
            if self.text == kind and not file:
                raise ValueError(f"the text noise {kind} needs a file: set {name}")
            if file and not Path(file).expanduser().is_file():
                raise ValueError(f"{name}: no such file: {file}")
            if file and self.text != kind:
                warnings.warn(f"{name} has no effect without the text noise {kind}", stacklevel=4)
        check_number("the seed of noise", self.known_seed, least=0)

    @property
    def known_seed(self) -> int:
        """The seed, 0 where none is chosen."""
        return self.seed or 0

    @property
    def changes_texts(self) -> bool:
        """Whether there is any text noise."""
        return bool(self.text) and self.text_severity > 0

    @property
    def changes_images(self) -> bool:
        """Whether there is any image noise."""
        return bool(self.image) and self.image_severity > 0


@dataclass(frozen=True)
class TrainingNoise(EvaluationNoise):
    """Noise in training pairs: sources that belong to other targets, and noise in the targets and images.

    Args:
        rate: share of wrong correspondence that is asked for, 0 to 1; see `datamodules.noise.correspondence`.
        level: ``caption``: the sources of single pairs are shuffled; ``image``: sources are permuted, all pairs of a
            source move together.
        index_file: a published ``.npy`` file instead of a rate: for ``caption`` the number of the source of each pair,
            for ``image`` a permutation of the sources.
        text: kind of text noise in the targets; see `EvaluationNoise`.
        text_severity: 0 (none) to 5.
        image: kind of image noise in the sources; see `EvaluationNoise`.
        image_severity: 0 (none) to 5.
        lexicon: for ``code_switch``.
        translations: for ``mt``.
        seed: of everything random here; None follows the seed of the run.

    Raises:
        ValueError: as `EvaluationNoise`; or a rate out of range, an unknown level, or both a rate and an index file.
    """

    rate: float = 0.0
    level: NoiseLevel = "caption"
    index_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("the rate of noise", self.rate, least=0, most=1)
        check_choice("the level of noise", self.level, get_args(NoiseLevel))
        if self.index_file and self.rate:
            raise ValueError("set the rate of noise or its index_file, not both: the file says which pairs are wrong")
        if self.index_file and not Path(self.index_file).expanduser().is_file():
            raise ValueError(f"index_file: no such file: {self.index_file}")

    @property
    def changes_correspondence(self) -> bool:
        """Whether there is any wrong correspondence."""
        return self.rate > 0 or bool(self.index_file)


def _check_kind(side: str, kind: str, severity: int, kinds: Collection[str]) -> None:
    if kind:
        check_choice(f"the {side} noise", kind, kinds)
    check_number(f"{side}_severity", severity, least=0, most=5)
    if severity and not kind:
        raise ValueError(f"{side}_severity is {severity}, but no {side} noise is chosen: {', '.join(kinds)}")
