import unicodedata

import pytest

from retrieval.index.bm25 import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("... !", []),
        ("Maji, ya-moto!", ["maji", "ya", "moto"]),
        ("ng'ombe 'quoted'", ["ng'ombe", "quoted"]),
        ("ng\u2019ombe", ["ng'ombe"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("मराठी भाषा", ["मराठी", "भाषा"]),
        ("ሰላም፡ዓለም።", ["ሰላም", "ዓለም"]),
        ("東", ["東"]),
        ("東京都", ["東京", "京都"]),
        ("windows11 日本語ok", ["windows11", "日本", "本語", "ok"]),
        ("\uff26\uff55\uff4c\uff4c", ["full"]),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_composed_and_decomposed_texts_have_the_same_words():
    text = "Türkçe élan क़लम"
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))
