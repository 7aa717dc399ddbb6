import pytest

from retrieval.fusion import linear_fusion, reciprocal_rank_fusion

A = {"q1": {"a": 3.0, "b": 2.0, "c": 1.0}, "q2": {"x": 1.0}}
B = {"q1": {"c": 10.0, "d": 10.0, "a": -5.0}}


def test_reciprocal_ranks():
    fused = reciprocal_rank_fusion([A, B], depth=10)
    # Ties rank by descending id, so d is before c in B.
    expected = {"a": 1 / 61 + 1 / 63, "b": 1 / 62, "c": 1 / 63 + 1 / 62, "d": 1 / 61}
    assert fused["q1"] == pytest.approx(expected)
    assert fused["q2"] == {"x": 1 / 61}
    assert list(fused["q1"]) == sorted(expected, key=expected.__getitem__, reverse=True)


def test_weights_and_constant():
    fused = reciprocal_rank_fusion([A, B], depth=10, k=0, weights=[2.0, 0.5])
    assert fused["q1"]["a"] == pytest.approx(2 / 1 + 0.5 / 3)


def test_depth_cuts():
    assert list(reciprocal_rank_fusion([A, B], depth=2)["q1"]) == ["a", "c"]


def test_linear_with_min_max():
    fused = linear_fusion([A, B], depth=10, weights=[1.0, 2.0])
    # A: a 1, b .5, c 0, d (not there) 0. B: c 1, d 1, a 0, b (not there) 0.
    assert fused["q1"] == pytest.approx({"a": 1.0, "b": 0.5, "c": 2.0, "d": 2.0})
    assert fused["q2"] == {"x": 1.0}


def test_linear_with_z_scores():
    fused = linear_fusion([A, B], depth=10, normalisation="z")
    deviation = (2 / 3) ** 0.5
    b_mean, b_deviation = 5.0, 50**0.5
    lowest_a, lowest_b = -1 / deviation, (-5 - b_mean) / b_deviation
    assert fused["q1"] == pytest.approx(
        {
            "a": 1 / deviation + lowest_b,
            "b": 0 + lowest_b,
            "c": lowest_a + (10 - b_mean) / b_deviation,
            "d": lowest_a + (10 - b_mean) / b_deviation,
        }
    )


def test_linear_without_normalisation_gives_what_is_missing_the_lowest_score():
    assert linear_fusion([A, B], depth=10, normalisation="none")["q1"] == pytest.approx(
        {"a": -2.0, "b": -3.0, "c": 11.0, "d": 11.0}
    )


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([],), {"depth": 1}, "for 0 runs"),
        (([A],), {"depth": 0}, "depth is 0"),
        (([A, B],), {"depth": 1, "weights": [1.0]}, "1 weights for 2 runs"),
        (([A],), {"depth": 1, "normalisation": "zz"}, "normalisation is 'zz', expected one of min_max, z, none"),
    ],
)
def test_wrong_options(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        linear_fusion(*arguments, **options)


def test_negative_constant():
    with pytest.raises(ValueError, match="k is -1"):
        reciprocal_rank_fusion([A], depth=1, k=-1)
