from __future__ import annotations

import math

import pytest
import torch

from strategies.noise_detection import NARROWEST, NoiseDetector, fit_mixture, standing


def draw(*parts, seed=0):
    """Values of (count, mean, deviation) each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([mean + deviation * torch.randn(count, generator=generator) for count, mean, deviation in parts])


def slow_maximisation(values, start, steps):
    """Expectation maximisation as in a textbook, one value after the other; the first component does not move."""
    components = list(start)
    for _ in range(steps):
        responsibilities = []
        for x in values:
            densities = [w * math.exp(-((x - m) ** 2) / (2 * d * d)) / d for w, m, d in components]
            responsibilities.append([density / sum(densities) for density in densities])
        updated = []
        for k in range(len(components)):
            mass = sum(r[k] for r in responsibilities)
            mean = sum(r[k] * x for r, x in zip(responsibilities, values, strict=True)) / mass
            squares = sum(r[k] * (x - mean) ** 2 for r, x in zip(responsibilities, values, strict=True))
            updated.append(
                (mass / len(values), mean, math.sqrt(squares / mass)) if k else (mass / len(values), 0.0, 1.0)
            )
        components = updated
    return components


def test_expectation_maximisation_equals_a_slow_loop():
    values = draw((40, 0, 1), (30, 3, 0.7), (30, 7, 1))
    high = sorted(x for x in values.double().tolist() if x > 2)
    halves = high[: (len(high) + 1) // 2], high[(len(high) + 1) // 2 :]
    share = len(high) / 200
    start = [(1 - 2 * share, 0.0, 1.0)]
    for half in halves:
        mean = sum(half) / len(half)
        start.append((share, mean, math.sqrt(sum((x - mean) ** 2 for x in half) / len(half))))
    wanted = torch.tensor(slow_maximisation(values.double().tolist(), start, 7), dtype=torch.float64)
    mixture = fit_mixture(values, iterations=7, tolerance=-math.inf)
    found = torch.stack([mixture.shares, mixture.means, mixture.deviations], 1)
    assert torch.allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.4, 0.6, 0.8])
def test_the_noisy_share_is_the_rate(rate):
    count = int(2000 * rate)
    values = draw((count, 0, 1), ((2000 - count) // 2, 3, 1), ((2000 - count) // 2, 6, 1.5))
    mixture = fit_mixture(values)
    assert mixture.shares[0].item() == pytest.approx(rate, abs=0.04)
    found, noisy = mixture.clean_posterior(values) < 0.5, torch.arange(2000) < count
    assert (found != noisy).float().mean() < 0.1


def test_the_posterior_grows_with_the_value():
    mixture = fit_mixture(draw((400, 0, 1), (300, 3, 0.6), (300, 6, 3)))
    values = torch.cat([torch.tensor([-math.inf]), torch.linspace(-20, 40, 601), torch.tensor([math.inf])])
    posterior = mixture.clean_posterior(values)
    assert (posterior.diff() >= -1e-6).all()
    assert posterior[0] < 0.1
    assert posterior[-1] > 0.99
    # Without the clamp the wide component would have the least values.
    far = (values[1] - mixture.means) / mixture.deviations
    assert (mixture.shares.log() - mixture.deviations.log() - far.square() / 2).argmax() != 0


@pytest.mark.parametrize(
    "values",
    [
        [],
        [5.0],
        [math.nan] * 9,
        [0.0] * 50,
        [-3.0, 1.0, 1.9, 7.0],  # one value alone is above chance
    ],
)
def test_nothing_to_part(values):
    assert fit_mixture(torch.tensor(values)) is None


@pytest.mark.parametrize("values", [[9.0] * 50, [0.0] * 25 + [9.0] * 25, [math.nan, math.inf, 4.0, 4.0, 0.0]])
def test_equal_values_do_not_make_a_component_of_no_width(values):
    mixture = fit_mixture(torch.tensor(values))
    assert (mixture.deviations >= NARROWEST).all()
    assert all(part.isfinite().all() for part in (mixture.shares, mixture.means, mixture.deviations))
    assert mixture.shares.sum().item() == pytest.approx(1)


def test_standing_equals_a_slow_loop():
    torch.manual_seed(0)
    cosines, ids = torch.rand(3, 8), torch.tensor([0, 1, 2, 3, 1, 4, 5, 0])
    labels = torch.tensor([2, 3, 4])
    same = ids[labels][:, None] == ids
    same[torch.arange(3), labels] = False
    for row, label in enumerate(labels.tolist()):
        others = torch.stack([cosines[row, j] for j in range(8) if ids[j] != ids[label]])
        deviation = others.std() * math.sqrt(1 + 1 / len(others))
        wanted = (cosines[row, label] - others.mean()) / deviation
        assert torch.isclose(standing(cosines, labels, same)[row], wanted, atol=1e-5)


def test_a_wrong_pair_stands_at_chance():
    torch.manual_seed(0)
    cosines = torch.nn.functional.normalize(torch.randn(400, 16), dim=1) @ torch.randn(16, 400)
    standings = standing(cosines, torch.arange(400), None)
    assert standings.mean().abs() < 0.15
    assert 0.9 < standings.std() < 1.1


def test_no_standing_without_two_other_sources():
    assert standing(torch.ones(1, 1), torch.tensor([0]), None).isnan().all()
    assert standing(torch.eye(2), torch.arange(2), None).isnan().all()
    assert standing(torch.ones(3, 3), torch.arange(3), None).isnan().all()


def test_memory_keeps_the_last_and_goes_round():
    detector = NoiseDetector(100, 0.5)
    for start in range(0, 260, 20):
        values = torch.arange(start, start + 20).float()
        detector.remember(values, (values % 2).to(torch.int8))
    assert detector.seen == 260
    assert sorted(detector.standings.tolist()) == list(range(160, 260))
    assert torch.equal(detector.truth, (detector.standings % 2).to(torch.int8))
    places = detector.remember(torch.arange(1000.0, 1150.0), torch.zeros(150, dtype=torch.int8))
    assert sorted(detector.standings.tolist()) == list(range(1050, 1150))
    noisy = torch.arange(150) >= 140
    detector.note(places, noisy)
    assert sorted(detector.standings[detector.detected == 1].tolist()) == list(range(1140, 1150))


def test_nothing_is_judged_before_there_are_enough_and_where_nearly_all_stand_at_chance():
    clean, chance = draw((60, 6, 1)), draw((150, 0, 1))
    detector = NoiseDetector(300, 0.5)
    detector.remember(torch.cat([clean[:30], chance[:30]]), torch.full((60,), -1, dtype=torch.int8))
    assert not detector.judge(chance).any()
    detector.remember(torch.cat([clean, chance]), torch.full((210,), -1, dtype=torch.int8))
    assert detector.judge(chance).float().mean() > 0.9
    assert not detector.judge(clean).any()
    assert not detector.judge(torch.tensor([math.nan])).any()
    lost = NoiseDetector(300, 0.5)
    lost.remember(torch.cat([clean[:5], chance]), torch.full((155,), -1, dtype=torch.int8))
    assert not lost.judge(chance).any()


def test_a_threshold_finds_more_the_higher_it_is():
    values = draw((200, 0, 1), (300, 3, 1.2))
    found = []
    for threshold in (0.1, 0.5, 0.9):
        detector = NoiseDetector(500, threshold)
        detector.remember(values, torch.full((500,), -1, dtype=torch.int8))
        found.append(int(detector.judge(values).sum()))
    assert found[0] < found[1] < found[2]


def shares(detector):
    return {name.removeprefix("info/noise_"): value.item() for name, value in detector.diagnostics().items()}


def test_precision_and_recall_are_counted_over_the_judged_pairs():
    detector = NoiseDetector(100, 0.5)
    assert shares(detector) == {}
    places = detector.remember(torch.zeros(8), torch.tensor([1, 1, 1, 0, 0, 0, -1, -1], dtype=torch.int8))
    assert shares(detector) == {}
    detector.note(places, torch.tensor([1, 1, 0, 1, 0, 0, 1, 0]).bool())
    detector.remember(torch.zeros(5), torch.ones(5, dtype=torch.int8))  # not judged
    assert shares(detector) == pytest.approx({"detected": 4 / 8, "rate": 3 / 6, "precision": 2 / 3, "recall": 2 / 3})


def test_what_would_be_zero_over_zero_is_left_out():
    detector = NoiseDetector(100, 0.5)
    places = detector.remember(torch.zeros(4), torch.zeros(4, dtype=torch.int8))
    detector.note(places, torch.zeros(4).bool())
    assert shares(detector) == {"detected": 0, "rate": 0}
    detector.note(places, torch.tensor([True, False, False, False]))
    assert shares(detector) == {"detected": 0.25, "rate": 0, "precision": 0}
    unknown = NoiseDetector(100, 0.5)
    unknown.note(unknown.remember(torch.zeros(4), torch.full((4,), -1, dtype=torch.int8)), torch.ones(4).bool())
    assert shares(unknown) == {"detected": 1}
