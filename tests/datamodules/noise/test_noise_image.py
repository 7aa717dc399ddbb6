"""Image noise: each kind against a slow formula or its statistics, at any size, seeded, worse with severity."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from datamodules.images import ImageReference, image_source, load_image
from datamodules.noise.image import IMAGE_NOISES, corrupt, disk, motion

SEVERITIES = range(1, 6)
GREY = Image.new("RGB", (200, 160), (128, 128, 128))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Smooth blobs of colour with some sharp edges."""
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (14, 18, 3), dtype=np.uint8), "RGB")
    image = small.resize((220, 170), Image.Resampling.BICUBIC)
    image.paste((250, 20, 20), (30, 40, 90, 100))
    return image


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64) / 255


def damage(image: Image.Image, other: Image.Image) -> float:
    return float(((values(image) - values(other)) ** 2).mean())


@pytest.mark.parametrize("name", IMAGE_NOISES)
def test_same_seed_same_bytes_and_worse_with_severity(name, photo):
    errors = []
    for severity in SEVERITIES:
        noisy = corrupt(photo, name, severity, seed=3)
        assert (noisy.mode, noisy.size) == ("RGB", photo.size)
        assert noisy.tobytes() == corrupt(photo, name, severity, seed=3).tobytes()
        errors.append(damage(photo, noisy))
    assert errors[0] > 0
    assert errors == sorted(errors)
    assert errors[4] > 1.3 * errors[0]


@pytest.mark.parametrize("name", ["gaussian", "shot", "impulse", "motion", "occlusion"])
def test_another_seed_is_other_noise(name, photo):
    assert corrupt(photo, name, 3, seed=1).tobytes() != corrupt(photo, name, 3, seed=2).tobytes()


@pytest.mark.parametrize("name", IMAGE_NOISES)
def test_severity_zero_is_the_identity(name, photo):
    assert corrupt(photo, name, 0, seed=9) is photo


@pytest.mark.parametrize("name", IMAGE_NOISES)
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (40, 2), (301, 203)])
def test_any_size(name, size):
    image = Image.new("RGB", size, (10, 200, 90))
    assert corrupt(image, name, 5, seed=0).size == size
    assert corrupt(image.convert("L"), name, 5, seed=0).mode == "RGB"


def test_gaussian_noise_has_its_standard_deviation():
    # Grey lies in the middle: at severity 1 and 2 hardly anything is clipped.
    for severity, deviation in ((1, 0.08), (2, 0.12)):
        assert values(corrupt(GREY, "gaussian", severity)).std() == pytest.approx(deviation, rel=0.02)
    for severity, deviation in zip(SEVERITIES, (0.08, 0.12, 0.18, 0.26, 0.38), strict=True):
        drawn = np.clip(128 / 255 + np.random.default_rng(1).normal(scale=deviation, size=100_000), 0, 1)
        assert values(corrupt(GREY, "gaussian", severity)).std() == pytest.approx(drawn.std(), rel=0.02)


def test_shot_noise_counts_photons():
    dark = Image.new("RGB", (200, 160), (51, 51, 51))
    for severity, photons in zip(SEVERITIES, (60, 25, 12, 5, 3), strict=True):
        drawn = np.minimum(np.random.default_rng(1).poisson(0.2 * photons, 100_000) / photons, 1)
        found = values(corrupt(dark, "shot", severity))
        assert found.mean() == pytest.approx(drawn.mean(), rel=0.02)
        assert found.var() == pytest.approx(drawn.var(), rel=0.04)


def test_impulse_noise_sets_a_share_to_black_and_white():
    for severity, share in zip(SEVERITIES, (0.03, 0.06, 0.09, 0.17, 0.27), strict=True):
        found = np.asarray(corrupt(GREY, "impulse", severity))
        assert (found == 0).mean() == pytest.approx(share / 2, rel=0.1)
        assert (found == 255).mean() == pytest.approx(share / 2, rel=0.1)
        assert ((found == 128) | (found == 0) | (found == 255)).all()


@pytest.mark.parametrize(("radius", "edge"), [(3, 0.1), (10, 0.5)])
def test_defocus_kernel(radius, edge):
    kernel, centre = disk(radius, edge), max(8, radius)
    assert kernel.sum() == pytest.approx(1)
    for row in range(2 * centre + 1):
        for column in range(2 * centre + 1):
            distance = np.hypot(row - centre, column - centre)
            if distance > radius + 4:
                assert kernel[row, column] == pytest.approx(0, abs=1e-12)
            if distance < radius - 4:
                assert kernel[row, column] == pytest.approx(kernel[centre, centre])
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1])


@pytest.mark.parametrize(
    ("severity", "radius", "edge"), [(1, 3, 0.1), (2, 4, 0.5), (3, 6, 0.5), (4, 8, 0.5), (5, 10, 0.5)]
)
def test_defocus_equals_a_loop(photo, severity, radius, edge):
    pixels, kernel = values(photo), disk(radius, edge)
    half = kernel.shape[0] // 2
    found = values(corrupt(photo, "defocus", severity))
    for top, left in ((0, 0), (5, 219), (80, 100), (169, 3)):
        expected = np.zeros(3)
        for down in range(-half, half + 1):
            for right in range(-half, half + 1):
                row, column = abs(top + down), abs(left + right)  # mirrored, the border itself once
                row, column = min(row, 2 * 169 - row), min(column, 2 * 219 - column)
                expected += kernel[half + down, half + right] * pixels[row, column]
        assert found[top, left] == pytest.approx(expected, abs=0.5 / 255 + 1e-9)


@pytest.mark.parametrize(
    ("severity", "radius", "sigma"), [(1, 10, 3), (2, 15, 5), (3, 15, 8), (4, 15, 12), (5, 20, 15)]
)
def test_motion_smears_a_point_along_a_line(severity, radius, sigma):
    pixels = np.zeros((101, 101, 3))
    pixels[50, 50] = 1
    found = motion(pixels, severity - 1, np.random.default_rng(4))[:, :, 0]
    angle = np.random.default_rng(4).uniform(-45, 45)
    assert found.sum() == pytest.approx(1)
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    # What a pixel takes from behind it appears before the point.
    expected = np.zeros((101, 101))
    for step in steps:
        row, column = round(step * np.sin(np.deg2rad(angle))), round(step * np.cos(np.deg2rad(angle)))
        expected[50 - row, 50 - column] += weights[step]
    assert np.allclose(found, expected)


def test_brightness_keeps_hue_and_saturation():
    image = Image.new("RGB", (2, 1), (100, 50, 25))
    image.putpixel((1, 0), (0, 0, 0))
    for severity in SEVERITIES:
        found = values(corrupt(image, "brightness", severity))[0]
        value = min(1, 100 / 255 + 0.1 * severity)
        assert found[0] == pytest.approx(np.array([1, 0.5, 0.25]) * value, abs=0.003)
        assert found[1] == pytest.approx([0.1 * severity] * 3, abs=0.003)


def test_contrast_shrinks_the_distance_from_the_mean(photo):
    pixels = values(photo)
    for severity, ratio in zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True):
        found = values(corrupt(photo, "contrast", severity))
        assert found.mean(axis=(0, 1)) == pytest.approx(pixels.mean(axis=(0, 1)), abs=0.003)
        assert found.std(axis=(0, 1)) / pixels.std(axis=(0, 1)) == pytest.approx([ratio] * 3, abs=0.01)


def test_pixelate_averages_boxes(photo):
    found = np.asarray(corrupt(photo.crop((0, 0, 200, 160)), "pixelate", 2))
    expected = np.asarray(photo, dtype=np.float64)[:160, :200].reshape(80, 2, 100, 2, 3).mean(axis=(1, 3))
    assert np.abs(found[::2, ::2] - expected).max() <= 1
    assert (found[::2, ::2] == found[1::2, 1::2]).all()


def test_pixelate_shrinks_to_the_published_shares():
    for severity, share in zip(SEVERITIES, (0.6, 0.5, 0.4, 0.3, 0.25), strict=True):
        stripes = Image.fromarray(np.arange(224, dtype=np.uint8)[None].repeat(8, axis=0))
        found = np.asarray(corrupt(stripes, "pixelate", severity))[0, :, 0]
        assert len(np.unique(found)) == int(224 * share)


def test_jpeg_is_a_jpeg_of_its_quality(photo):
    for severity, quality in zip(SEVERITIES, (25, 18, 15, 10, 7), strict=True):
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=quality)
        assert corrupt(photo, "jpeg", severity).tobytes() == Image.open(buffer).convert("RGB").tobytes()


def test_occlusion_covers_a_share_of_the_area():
    white = Image.new("RGB", (300, 200), "white")
    for severity in SEVERITIES:
        covered = np.asarray(corrupt(white, "occlusion", severity, seed=severity))[:, :, 0] == 128
        assert covered.mean() == pytest.approx(0.1 * severity, abs=0.01)
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        assert covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_noise_in_the_string_of_an_image(tmp_path, photo):
    path = tmp_path / "photo.png"
    photo.save(path)
    whole = ImageReference.parse(image_source(path))
    noisy = load_image(str(ImageReference(whole.path, noise="impulse", severity=4, seed=11)))
    assert noisy.tobytes() == corrupt(photo, "impulse", 4, 11).tobytes()
    box = load_image(str(ImageReference(whole.path, (10, 20, 60, 90), "defocus", 1, 0)))
    assert box.tobytes() == corrupt(photo.crop((10, 20, 60, 90)), "defocus", 1, 0).tobytes()
    assert load_image(str(ImageReference(whole.path, noise="jpeg", severity=0))).tobytes() == photo.tobytes()


def test_wrong_name_or_severity(photo):
    with pytest.raises(ValueError, match="the image noise is 'fog', expected one of gaussian"):
        corrupt(photo, "fog", 1)
    with pytest.raises(ValueError, match="the severity of jpeg is 6"):
        corrupt(photo, "jpeg", 6)


def test_defocus_is_near_to_a_box_blur_of_the_same_variance(photo):
    # An independent implementation for the scale of the radius: a disk of radius r has the variance r^2 / 4 on an axis.
    blurred = photo.filter(ImageFilter.GaussianBlur(6 / 2))
    assert damage(blurred, corrupt(photo, "defocus", 3)) < 0.1 * damage(photo, blurred)
