from __future__ import annotations

import pytest

from datamodules.starter.gnome import english_pages, read_page, translated_titles
from datamodules.starter.help import StarterHelpDataModule, is_dev
from datamodules.starter.mediawiki import clean, mediawiki_codes, mediawiki_pairs
from datamodules.text import fold
from foundations.errors import InputError


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("Log in", "Log in"),
        ("<strong>Bold</strong> <code>$1</code>", "Bold"),
        ("'''Bold''' and ''slanted''", "Bold and slanted"),
        ("[[Special:Log|the log]] of [[Help]]", "the log of Help"),
        ("[https://example.org the docs]", "the docs"),
        ("{{PLURAL:$1|one page|$1 pages}}", "one page"),
        ("{{PLURAL:$1|0=nothing|one page|pages}}", "one page"),
        ("{{GENDER:$1|his|her}} {{SITENAME}}", "his wiki"),
        ("{{PLURAL:$1|[[Help:A|one {{SITENAME}}]]|more}}", "one wiki"),
        ("[[Special:X/{{FULLPAGENAME}}|here]]", "here"),
        ("a&nbsp;&amp; b__NOTOC__", "a & b"),
        ("* $1: $PAGENAME", ""),
    ],
)
def test_clean(message: str, text: str) -> None:
    assert clean(message) == text


def test_messages(tiny) -> None:
    assert mediawiki_pairs("sw") == [
        ("Log in", "Ingia"),
        ("Save the page", "Hifadhi ukurasa"),
        ("Wi-fi", "Mtandao"),
    ]


def test_codes() -> None:
    assert mediawiki_codes("fil") == ["fil", "tl"]
    assert mediawiki_codes("pt-PT") == ["pt-pt", "pt-br", "pt"]
    assert mediawiki_codes("zh-Hant")[0] == "zh-hant"
    assert mediawiki_codes("sr") == ["sr-ec", "sr"]


def test_pages(tiny) -> None:
    pages = english_pages()
    assert "list" not in pages  # a page of links only
    assert pages["page-3"].title == "Title 3"
    assert pages["page-3"].body.startswith("Part text 3 OK! A B word")
    assert "description" not in pages["page-3"].body
    assert "Title" not in pages["page-3"].body


def test_titles_that_are_not_translated_are_no_queries(tiny) -> None:
    titles = translated_titles("sw")
    assert titles["page-9"] == "Kichwa 9"
    assert "page-11" not in titles
    assert translated_titles("sw-KE") == titles
    with pytest.raises(InputError, match=r"not translated into 'mr'; expected one of sw"):
        translated_titles("mr")


def test_broken_page_names_its_file(tmp_path) -> None:
    path = tmp_path / "a.page"
    path.write_text("<page>")
    with pytest.raises(InputError, match=r"a\.page: this is not XML"):
        read_page(path)


@pytest.fixture
def data(tiny) -> StarterHelpDataModule:
    data = StarterHelpDataModule("sw", batch_size=2)
    data.setup()
    return data


def test_pairs_without_the_titles(data) -> None:
    """ "Save the page" is an English title, "Mtandao" a translated one."""
    texts = {(pair.source, pair.target) for pair in data.pairs}
    assert ("Log in", "Ingia") in texts
    assert ("Log in", "Log in") in texts
    assert ("French", "Kifaransa") in texts
    assert ("All are free.", "Wote ni huru.") in texts
    assert not [pair for pair in texts if "Save the page" in pair or "Mtandao" in pair]


def test_same_titles_are_one_query(data) -> None:
    """ "Kichwa 0" and "kichwa  0" are the titles of two pages."""
    qrels = data.collections["dev"].qrels | data.collections["test"].qrels
    assert qrels["page-0"] == {"page-0": 1, "page-1": 1}
    assert "page-1" not in qrels
    assert qrels["page-2"] == {"page-2": 1}


def test_collections(data) -> None:
    dev, test, english = (data.collections[name] for name in ("dev", "test", "english"))
    assert all(is_dev(page) for page in dev.queries)
    assert not any(is_dev(page) for page in test.queries)
    assert set(dev.queries) | set(test.queries) == {"page-0", *(f"page-{n}" for n in range(2, 10)), "net"}
    assert len(test.documents) == 13
    assert set(english.queries) == set(test.queries)
    assert english.query_side == "teacher"
    name = next(iter(english.queries))
    assert fold(english.queries[name]).startswith(("title", "save"))


@pytest.mark.starter
def test_real_sizes(starter_help) -> None:
    pages = english_pages()
    assert len(pages) == 266
    for locale, count in (("mr", 202), ("gu", 205), ("ta", 205), ("id", 263)):
        assert abs(len(translated_titles(locale)) - count) < 5
    for locale, count in (("sw", 2690), ("so", 1042), ("fil", 4092)):
        assert abs(len(mediawiki_pairs(locale)) - count) < 0.05 * count


@pytest.mark.starter
def test_real_pairs_hold_no_title(starter_help) -> None:
    data = StarterHelpDataModule("mr")
    data.setup()
    asked = {fold(text) for c in data.collections.values() for text in c.queries.values()}
    assert not [pair for pair in data.pairs if fold(pair.source) in asked or fold(pair.target) in asked]
    assert not set(data.collections["dev"].queries) & set(data.collections["test"].queries)
