"""Checks of options, and the nearest of some names."""

import math

import pytest

from foundations.checks import check_choice, check_number, did_you_mean, nearest


def test_did_you_mean_is_silent_when_nothing_is_near():
    assert did_you_mean("xyz", ["ot", "mse"]) == ""
    assert did_you_mean("ms", ["ot", "mse"]) == ", did you mean 'mse'?"


def test_the_nearest_names_come_first_and_are_limited():
    names = ["ViT-B-32", "ViT-B-16", "RN50", "ViT-B-32-quickgelu"]
    assert nearest("ViT-B32", names)[0] == "ViT-B-32"
    assert len(nearest("ViT-B32", names, count=2)) == 2
    assert nearest("zzz", names) == []


def test_a_choice_is_one_of_the_choices():
    check_choice("score", "pooled", ("pooled", "maxsim"))
    with pytest.raises(ValueError, match=r"^score is 'pool', expected one of pooled, maxsim, did you mean 'pooled'\?$"):
        check_choice("score", "pool", ("pooled", "maxsim"))
    with pytest.raises(ValueError, match=r"^score is None, expected one of pooled, maxsim$"):
        check_choice("score", None, ("pooled", "maxsim"))
    with pytest.raises(ValueError, match=r"^min_grade is 4, expected one of 1, 2$"):
        check_choice("min_grade", 4, (1, 2))


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, {"above": 0}, "n is 0, expected a number above 0"),
        (0, {"least": 1}, "n is 0, expected at least 1"),
        (1.5, {"least": 0, "most": 1}, "n is 1.5, expected a number from 0 to 1"),
        (0.0, {"above": 0, "most": 1}, "n is 0.0, expected a number above 0 and at most 1"),
        (1.0, {"least": 0, "below": 1}, "n is 1.0, expected at least 0 and below 1"),
        (3, {"most": 2}, "n is 3, expected at most 2"),
        (2, {"below": 2}, "n is 2, expected a number below 2"),
        (math.nan, {"least": 0}, "n is nan, expected at least 0"),
        (math.inf, {"above": 0}, "n is inf, expected a number above 0"),
        (math.nan, {}, "n is nan, expected a finite number"),
    ],
)
def test_a_number_out_of_range_is_refused(value, bounds, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_number("n", value, **bounds)


def test_the_bounds_of_a_number():
    check_number("n", 0, least=0, most=0)
    check_number("n", 1e-9, above=0, below=1)
