from __future__ import annotations

import pytest

from datamodules.starter.udhr import articles, declarations, find_declaration, udhr_pairs

SAMPLE = ["Wote ni huru", "simba na paka", "kujumlisha"]


def html(tag: str, title: str, text: str) -> str:
    head = f'<!doctype html>\n<html data-code="x" dir="ltr" lang="{tag}"><head><title>{title}</title></head>'
    return f'{head}<body><article data-number="1"><h2>1</h2><p>{text}</p></article></body></html>'


@pytest.fixture
def add(tiny):
    def add(code: str, tag: str, title: str, text: str) -> None:
        path = declarations()[0].path.with_name(f"{code}.html")
        path.write_text(html(tag, title, text), encoding="utf-8")

    return add


def test_articles_align_where_they_have_as_many_paragraphs(tiny) -> None:
    """The preamble is one paragraph in English and two in Swahili."""
    assert udhr_pairs("sw", SAMPLE) == [
        ("All are free.", "Wote ni huru."),
        ("No one", "Hakuna"),
        ("a", "c"),
        ("b", "d"),
    ]


def test_preamble_and_entities(tiny) -> None:
    path = declarations()[0].path.with_name("x.html")
    path.write_text("<header><h2>no</h2><p>A &amp; <b>B</b>\n c</p><p> </p></header><p>outside</p>", encoding="utf-8")
    assert articles(path) == {0: ["A & B c"]}


def test_drafts_come_last_and_newer_spellings_first(add) -> None:
    for code in ("hau_1901", "hau_1996", "062"):
        add(code, "ha", "Hausa", "Wote ni huru")
    found = find_declaration("ha", SAMPLE)
    assert found is not None
    assert found.path.stem == "hau_1996"


def test_the_script_decides(add) -> None:
    add("aaa_cyrl", "zh-Cyrl", "Other (Cyrillic)", "Сви су слободни")
    add("aaa_latn", "zh-Latn", "Other (Latin)", "Svi su slobodni i simba")
    for sample, code in ((["сви слободни су"], "aaa_cyrl"), (["svi slobodni su"], "aaa_latn")):
        found = find_declaration("zh", sample)
        assert found is not None
        assert found.path.stem == code
    assert find_declaration("zh", ["सर्व मानव"]) is None


def test_an_alias_and_the_title_find_a_declaration(add) -> None:
    add("tgl", "tl", "Filipino (Tagalog)", "Ang lahat ng tao")
    add("zzz", "zzz", "Marathi, Eastern", "hoje mr")
    for locale, code, sample in (("fil", "tgl", "ang lahat ng tao"), ("mr", "zzz", "hoje mr")):
        found = find_declaration(locale, [sample])
        assert found is not None
        assert found.path.stem == code


def test_a_region_prefers_its_own_tag(add) -> None:
    add("swh_ke", "sw-KE", "Swahili (Kenya)", "Wote ni huru")
    for locale, code in (("sw", "swh"), ("sw-KE", "swh_ke"), ("sw-TZ", "swh")):
        found = find_declaration(locale, SAMPLE)
        assert found is not None
        assert found.path.stem == code


def test_no_declaration_gives_no_pairs(tiny) -> None:
    assert udhr_pairs("qu", SAMPLE) == []


@pytest.mark.starter
@pytest.mark.parametrize(("locale", "code", "count"), [("so", "som", 48), ("fil", "tgl", 50), ("mr", "mar", 60)])
def test_real_declarations(starter, locale: str, code: str, count: int) -> None:
    from datamodules.starter.cldr import read_annotations

    sample = [entry.name for entry in read_annotations(locale).values()]
    found = find_declaration(locale, sample)
    assert found is not None
    assert found.path.stem == code
    assert len(udhr_pairs(locale, sample)) == count
