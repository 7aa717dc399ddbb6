"""Image noise at severities 1 to 5, with the constants of ImageNet-C (Hendrycks and Dietterich 2019, section 4).

They were chosen for images of 224 x 224 pixels. Here an image has the size of its file, and the constants stay as they
are, so the same blur in pixels does less to a larger image. ``occlusion``, which is not in ImageNet-C, is ours: a grey
rectangle in a random position.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from foundations.checks import check_choice, check_number

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = np.ndarray[Any, np.dtype[np.float64]]
"""Height, width, RGB; 0 to 1."""
Corrupt = Callable[[Pixels, int, np.random.Generator], Pixels]
_GREY = 0.5


def corrupt(image: Image, name: str, severity: int, seed: int = 0) -> Image:
    """An RGB image with a noise of `IMAGE_NOISES` at a severity of 1 to 5 (0: as it is), in RGB and of the same size.

    The same bytes for the same arguments; the seed gives the random numbers.
    """
    from PIL import Image as PILImage

    check_choice("the image noise", name, IMAGE_NOISES)
    check_number(f"the severity of {name}", severity, least=0, most=5)
    if severity == 0:
        return image
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noisy = IMAGE_NOISES[name](pixels, severity - 1, generator)
    return PILImage.fromarray(np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8), "RGB")


def gaussian(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:
    """Add normal noise of standard deviation 0.08 to 0.38."""
    return pixels + generator.normal(scale=(0.08, 0.12, 0.18, 0.26, 0.38)[level], size=pixels.shape)


def shot(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:
    """Count photons: a Poisson number with a mean of 60 to 3 where a channel is 1."""
    photons = (60, 25, 12, 5, 3)[level]
    return generator.poisson(pixels * photons) / photons


def impulse(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:
    """Set a share of 0.03 to 0.27 of the values (each channel for itself) to 0 or 1, as often the one as the other."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    drawn = generator.random(pixels.shape)
    return np.where(drawn < share, np.where(drawn < share / 2, 1.0, 0.0), pixels)


def defocus(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Average over a disk with a radius of 3 to 10 pixels, whose edge is smoothed."""
    radius, edge = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[level]
    return _filtered(pixels, disk(radius, edge))


def disk(radius: int, edge: float) -> Pixels:
    """Weights of a disk, sum 1, smoothed by a Gaussian (deviation `edge`) of 3 x 3 pixels (5 x 5 above radius 8)."""
    from scipy.ndimage import convolve1d

    reach = max(8, radius)
    row = np.arange(-reach, reach + 1)
    weights = (row[:, None] ** 2 + row**2 <= radius**2).astype(np.float64)
    half = 1 if radius <= 8 else 2
    gauss = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * edge**2))
    for axis in (0, 1):
        weights = convolve1d(weights, gauss / gauss.sum(), axis=axis, mode="mirror")
    return np.asarray(weights / weights.sum())


def motion(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:
    """Average along a line that begins at the pixel, with normal weights, at an angle within 45 degrees of level."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level]
    angle = np.deg2rad(generator.uniform(-45, 45))
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    downs, rights = np.rint(steps * np.sin(angle)).astype(int), np.rint(steps * np.cos(angle)).astype(int)
    reach = 2 * radius
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width, _ = pixels.shape
    result = np.zeros_like(pixels)
    for weight, down, right in zip(weights.tolist(), downs.tolist(), rights.tolist(), strict=True):
        result += weight * padded[reach + down : reach + down + height, reach + right : reach + right + width]
    return result


def brightness(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Add 0.1 to 0.5 to the value of HSV (the largest channel); hue and saturation stay."""
    value = pixels.max(axis=2, keepdims=True)
    brighter = np.minimum(value + 0.1 * (level + 1), 1)
    return np.asarray(np.where(value > 0, pixels * (brighter / np.maximum(value, 1e-12)), brighter))


def contrast(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Draw each channel towards its mean, to 0.4 to 0.05 of its distance."""
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return np.asarray((pixels - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[level] + mean)


def pixelate(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Shrink to 0.6 to 0.25 of each side, and enlarge again, both with a box filter."""
    from PIL import Image as PILImage

    share = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    image = _image(pixels)
    small = image.resize([max(1, int(side * share)) for side in image.size], PILImage.Resampling.BOX)
    return _pixels(small.resize(image.size, PILImage.Resampling.BOX))


def jpeg(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Write and read a JPEG of quality 25 to 7."""
    from PIL import Image as PILImage

    buffer = io.BytesIO()
    _image(pixels).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[level])
    with PILImage.open(buffer) as image:
        return _pixels(image.convert("RGB"))


def occlusion(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:
    """Cover 0.1 to 0.5 of the area by a grey rectangle with the proportions of the image, in a random position."""
    height, width, _ = pixels.shape
    side = (0.1 * (level + 1)) ** 0.5
    high, wide = max(1, round(height * side)), max(1, round(width * side))
    top, left = generator.integers(height - high + 1), generator.integers(width - wide + 1)
    result = pixels.copy()
    result[top : top + high, left : left + wide] = _GREY
    return result


IMAGE_NOISES: dict[str, Corrupt] = {
    "gaussian": gaussian,
    "shot": shot,
    "impulse": impulse,
    "defocus": defocus,
    "motion": motion,
    "brightness": brightness,
    "contrast": contrast,
    "pixelate": pixelate,
    "jpeg": jpeg,
    "occlusion": occlusion,
}
"""Every kind of image noise: pixels, severity minus 1, and random numbers give pixels, to be clipped."""


def _filtered(pixels: Pixels, kernel: Pixels) -> Pixels:
    """Every channel convolved with a kernel (odd sides); the image is mirrored at its border."""
    from scipy.signal import fftconvolve

    half = kernel.shape[0] // 2
    padded = np.pad(pixels, ((half, half), (half, half), (0, 0)), mode="reflect")
    return np.asarray(fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1)))


def _image(pixels: Pixels) -> Image:
    from PIL import Image as PILImage

    return PILImage.fromarray(np.rint(pixels * 255).astype(np.uint8), "RGB")


def _pixels(image: Image) -> Pixels:
    return np.asarray(image, dtype=np.float64) / 255
