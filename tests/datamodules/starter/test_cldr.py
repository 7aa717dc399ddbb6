from __future__ import annotations

import pytest

from datamodules.starter.cldr import (
    find_language,
    languages,
    read_annotations,
    read_families,
    read_json,
    read_locale_names,
)
from foundations.errors import InputError


def test_annotations_of_a_region_inherit_and_those_of_a_script_do_not(tiny) -> None:
    kenya, swahili = read_annotations("sw-KE"), read_annotations("sw")
    assert kenya["🔥"].name == "mwoto"
    assert swahili["🔥"].name == "moto"
    assert kenya["🐈"] == swahili["🐈"]
    assert list(read_annotations("zh-Hant")) == ["🔥"]
    assert read_annotations("sw", derived=True)["🐕🏿"].name == "mbwa: nyeusi"
    assert read_annotations("fil", derived=True) == {}


def test_locale_names_have_no_patterns(tiny) -> None:
    names = read_locale_names("sw")
    assert names["territories", "territories", "DE"] == "Ujerumani"
    assert not [name for name in names.values() if "{0}" in name or "Eneo" in name]


def test_families_know_skin_tones_and_no_components(tiny) -> None:
    families = read_families()
    assert families["🐕🏿"] == "animal-mammal"
    assert families["☀"] == "sky"
    assert "🦰" not in families
    assert "🇦" not in families


@pytest.mark.parametrize(
    ("given", "locale"),
    [("sw", "sw"), ("SW", "sw"), ("sw_ke", "sw-KE"), ("tl", "fil"), ("Swahili", "sw"), ("tagalog", "fil")],
)
def test_ways_to_name_a_language(tiny, given: str, locale: str) -> None:
    assert find_language(given) == locale


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("swahilli", r"unknown language 'swahilli'; did you mean sw"),
        ("sww", "did you mean sw"),
        ("qqq", "expected one of fil, sw, sw-KE, zh$"),
        ("zh-Hant", "names only 1 emoji in it, expected at least 5"),
        ("en", "English, which is the teacher's"),
        ("English", "English, which is the teacher's"),
    ],
)
def test_wrong_languages(tiny, given: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        find_language(given)
    assert "\n" not in str(error.value)


def test_broken_json_names_its_file(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"a\.json:1: invalid JSON"):
        read_json(path)
    with pytest.raises(InputError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")


@pytest.mark.slow
@pytest.mark.starter
def test_more_than_a_hundred_languages(starter) -> None:
    found = languages()
    assert len({locale.split("-")[0] for locale in found}) > 100
    assert {"sw", "so", "fil", "mr", "am", "zh-Hant", "pt-PT"} <= set(found)
    assert not any(locale.startswith("en") for locale in found)


@pytest.mark.starter
def test_real_sizes(starter) -> None:
    english, english_derived = read_annotations("en"), read_annotations("en", derived=True)
    for locale, expected in (("sw", 4339), ("so", 4341), ("fil", 4338), ("mr", 4340)):
        base, derived = read_annotations(locale), read_annotations(locale, derived=True)
        shared = [e for e in base if e in english] + [e for e in derived if e in english_derived]
        assert len(shared) == expected
    assert len(set(read_families().values())) == 98  # of 100: skin tones and hair are components
