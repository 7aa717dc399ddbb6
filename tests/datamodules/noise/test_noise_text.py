"""Text noise: by script, by severity, seeded, never empty, in NFC."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest

from datamodules.noise import replacements
from datamodules.noise.files import read_lexicon, read_machine_translations
from datamodules.noise.graphemes import clusters, join_words, script_name, split_words, without_diacritics
from datamodules.noise.keyboards import alphabet, keys_beside, layout
from datamodules.noise.replacements import misread, mistyped, other_letters
from datamodules.noise.romanise import romanise
from datamodules.noise.text import MIXED, TEXT_NOISES, TextNoise
from datamodules.text import script_shares
from foundations.errors import InputError

TEXTS = {
    "Latin": "Mvulana mdogo anakimbia kwenye ufuo wa bahari karibu na mbwa wake, 2019.",
    "Devanagari": "एक लहान मुलगा समुद्रकिनारी कुत्र्यासोबत धावत आहे.",
    "Ethiopic": "አንድ ትንሽ ልጅ በባህር ዳርቻ ላይ ከውሻው ጋር ይሮጣል።",
    "Bengali": "একটি ছোট ছেলে সমুদ্র সৈকতে কুকুরের সাথে দৌড়াচ্ছে।",
    "Arabic": "صبي صغير يركض على الشاطئ مع كلبه.",
    "Cyrillic": "Маленький мальчик бежит по пляжу с ёжиком.",
    "Hebrew": "ילד קטן רץ על החוף עם הכלב שלו",
    "Greek": "Ένα μικρό αγόρι τρέχει στην παραλία",
    "Thai": "เด็กชายตัวเล็กวิ่งบนชายหาดกับสุนัข",
    "Han": "一个小男孩在沙滩上和狗一起跑。",
    "Georgian": "პატარა ბიჭი გარბის სანაპიროზე",
    "Hangul": "어린 소년이 해변에서 달리고 있다",
    "Tamil": "ஒரு சிறுவன் கடற்கரையில் ஓடுகிறான்",
    "Myanmar": "ကောင်လေးတစ်ယောက်ပြေးနေသည်",
}
FREE = [kind for kind in TEXT_NOISES if kind not in ("code_switch", "mt")]
ODD = ["", "a", "!", "...", "7", "🙂", "a b", "ा", "\u200d", "e\u0301", "x 🙂🙂 y"]
SEEDS = range(12)


@pytest.mark.parametrize("kind", FREE)
def test_same_seed_same_bytes_nfc_and_never_empty(kind):
    for text in [*TEXTS.values(), *ODD]:
        for severity in range(1, 6):
            changed = TextNoise(kind, severity, 5)(text)
            assert changed == TextNoise(kind, severity, 5)(text)
            assert unicodedata.is_normalized("NFC", changed)
            assert bool(changed) == bool(text)
            assert changed == " ".join(changed.split())


@pytest.mark.parametrize("kind", TEXT_NOISES)
def test_severity_zero_is_the_identity(kind):
    for text in [*TEXTS.values(), *ODD, " not  tidy\u0301 "]:
        assert TextNoise(kind, 0)(text) is text


@pytest.mark.parametrize("kind", ["keyboard", "insert", "swap", "delete", "substitute", "ocr"])
@pytest.mark.parametrize("script", TEXTS)
def test_every_script_has_noise_of_its_own(kind, script):
    text = TEXTS[script]
    changed = [TextNoise(kind, 5, seed)(text) for seed in SEEDS]
    assert any(each != text for each in changed)
    for each in changed:
        assert set(script_shares([each])) == set(script_shares([text])) == {script}


@pytest.mark.parametrize("kind", ["insert", "delete", "swap", "substitute"])
def test_marks_stay_with_their_base(kind):
    text = TEXTS["Devanagari"]
    known = set(clusters(text))
    marks = {cluster[1:] for cluster in known}
    for seed in SEEDS:
        for cluster in clusters(TextNoise(kind, 5, seed)(text)):
            assert unicodedata.category(cluster[0])[0] != "M"
            assert cluster in known or (kind in ("insert", "substitute") and cluster[1:] in marks | {""})


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_words_change_with_a_probability_of_a_twentieth_of_the_severity(severity):
    noise, words, changed = TextNoise("delete", severity), 0, 0
    for number in range(2000):
        text = f"maji{number} kubwa nyumba rafiki asubuhi"
        words += 5
        changed += sum(old != new for old, new in zip(text.split(), noise(text).split(), strict=True))
    assert changed / words == pytest.approx(0.05 * severity, abs=0.01)


@pytest.mark.parametrize("kind", ["diacritics", "transliteration"])
def test_another_way_of_writing_comes_a_fifth_of_the_severity(kind):
    texts = [f"ёж{number} ёлка мёд" for number in range(2000)]
    for severity in (2, 5):
        changed = sum(
            old != new
            for text in texts
            for old, new in zip(text.split(), TextNoise(kind, severity)(text).split(), strict=True)
        )
        assert changed / 6000 == pytest.approx(0.2 * severity, abs=0.02)


def test_words_chosen_at_a_severity_are_chosen_at_a_higher_one():
    for text in TEXTS.values():
        changed: set[int] = set()
        for severity in range(1, 6):
            now = TextNoise("substitute", severity)(text).split()
            places = {i for i, (old, new) in enumerate(zip(text.split(), now, strict=True)) if old != new}
            assert changed <= places
            changed = places


def test_single_edits():
    assert {len(TextNoise("insert", 5, seed)("maji")) for seed in SEEDS} <= {4, 5}
    deleted = {TextNoise("delete", 5, seed)("maji") for seed in range(60)}
    assert deleted == {"maji", "aji", "mji", "mai", "maj"}
    swapped = {TextNoise("swap", 5, seed)("maji") for seed in range(60)}
    assert swapped == {"maji", "amji", "mjai", "maij"}
    assert {TextNoise("delete", 5, seed)("पा") for seed in SEEDS} == {"पा"}


def test_keyboards():
    assert set(keys_beside("g")) == set("tyfhvb")
    assert set(keys_beside("G")) == set("TYFHVB")
    assert set(keys_beside("5")) == set("46")
    assert set(keys_beside("ሰ")) == set("ሱሲሳሴስሶ")
    assert {"ख", "प", "र", "त"} & set(keys_beside("क")) == {"ख", "र", "त"}
    assert "ী" in keys_beside("া") and "া" in keys_beside("ী")  # noqa: PT018
    scripts = ["Latin", "Cyrillic", "Greek", "Hebrew", "Arabic", "Georgian", "Devanagari", "Thai", "Bengali", "Tamil"]
    for script in scripts:
        keys = layout(script)
        assert len(keys) > 20
        for key, near in keys.items():
            is_letter = unicodedata.category(key)[0] == "L"
            assert script_name(key) == script or not is_letter or key == "ๆ"
            assert keys_beside(key) or not is_letter, (script, key)
            assert all(key in keys[other] for other in near)


def test_replacements_are_of_the_same_script_and_kind():
    for script, text in TEXTS.items():
        for cluster in clusters(text.replace(" ", "")):
            for choices in (mistyped, other_letters):
                for other in choices(cluster):
                    assert other != cluster
                    assert script_shares([other]).keys() <= {script}
                    assert [unicodedata.category(c)[0] for c in other] == [unicodedata.category(c)[0] for c in cluster]
    assert "rn" in misread("m")
    assert misread("ó") == ("o",)
    assert "ብ" in misread("ስ")
    assert set(other_letters("M")) == {letter.upper() for letter in alphabet("Latin")} - {"M"}
    assert set(other_letters("३")) == set("०१२४५६७८९")


def test_words_are_dropped_or_moved_but_not_changed():
    for script, text in TEXTS.items():
        for seed in SEEDS:
            kept, moved = TextNoise("word_drop", 5, seed)(text), TextNoise("word_order", 5, seed)(text)
            if " " in text:
                assert not Counter(kept.split()) - Counter(text.split())
                assert sorted(moved.split()) == sorted(text.split())
            assert sorted(moved.replace(" ", "")) == sorted(text.replace(" ", "")), script
    assert {TextNoise("word_drop", 5, seed)("maji") for seed in range(60)} == {"maji"}
    assert {TextNoise("word_drop", 5, seed)("a b") for seed in range(60)} == {"a b", "a", "b"}


def test_words_of_scripts_without_spaces():
    for text in [*TEXTS.values(), *ODD]:
        words, gaps = split_words(text)
        assert join_words(words, gaps) == text
    assert len(split_words(TEXTS["Thai"])[0]) > 5
    assert len(split_words(TEXTS["Han"])[0]) == 8


@pytest.mark.parametrize(
    ("text", "plain"),
    [("Ọmọkùnrin kékeré", "Omokunrin kekere"), ("ƙarami ɓoye ɗan", "karami boye dan"), ("Ċħġż ø", "Chgz o"),
     ("Ένα μικρό", "Ενα μικρο"), ("ёлка й", "елка й"), ("أحمد إلى مدرسة", "احمد الى مدرسه"), ("مُحَمَّد", "محمد"),
     ("שָׁלוֹם", "שלום"), ("हाँ ज़रा मुलगा", "हां जरा मुलगा"), ("ሐረግ ሠላም ዓለም ፀሐይ", "ሀረግ ሰላም ኣለም ጸሀይ"),
     ("đường phố", "duong pho"), ("水 ガ", "水 ガ"), ("maji!", "maji!")],
)  # fmt: skip
def test_loss_of_diacritics(text, plain):
    text = unicodedata.normalize("NFC", text)
    assert unicodedata.normalize("NFC", without_diacritics(text)) == unicodedata.normalize("NFC", plain)
    assert TextNoise("diacritics", 5)(text) == unicodedata.normalize("NFC", plain)


@pytest.mark.parametrize(
    ("text", "latin"),
    [("ሰላም ለዓለም", "selam lealem"), ("አዲስ አበባ", "adis abeba"), ("ዳርቻ ጨው", "darcha chew"), ("मुलगा", "mulagaa"),
     ("संस्कृत", "sanskrta"),
     ("Привет, Щука", "Privet, Shchuka"), ("Αθήνα", "Athina"), ("שלום", "shlvm"), ("سلام", "slam"),
     ("თბილისი", "tbilisi"),
     ("かな カタ", "kana kata"), ("한국", "hangug"), ("বাংলা", "baanlaa"), ("maji ɗan", "maji dan"), ("水", "水"),
     ("කුඩා", "කුඩා"), ("ไทย", "aithy")],
)  # fmt: skip
def test_romanisation(text, latin):
    assert romanise(text) == latin


def test_no_letter_of_a_romanised_text_is_foreign():
    for script, text in TEXTS.items():
        if script not in ("Han", "Myanmar"):
            assert set(script_shares([TextNoise("transliteration", 5)(text)])) == {"Latin"}, script


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_code_switching(tmp_path):
    lexicon = read_lexicon(write(tmp_path / "lexicon.tsv", "water\tmaji", "hot water\tmaji", "dog\tMbwa", "a\ta"))
    assert lexicon == {"water": "maji", "hot water": "maji", "maji": "water", "mbwa": "dog", "dog": "Mbwa"}
    found = {TextNoise("code_switch", 5, seed, lexicon)("Kunywa (maji), mbwa!") for seed in range(60)}
    assert found == {"Kunywa (maji), mbwa!", "Kunywa (water), mbwa!", "Kunywa (maji), dog!", "Kunywa (water), dog!"}


def test_machine_translations(tmp_path):
    texts = {f"maji {i}": f"mvua {i}" for i in range(1000)}
    found = read_machine_translations(write(tmp_path / "mt.tsv", *(f"{old}\t{new}" for old, new in texts.items())))
    for severity in (1, 4, 5):
        noise = TextNoise("mt", severity, 0, translations=found)
        changed = [noise(old) for old in texts]
        assert all(new in pair for new, pair in zip(changed, texts.items(), strict=True))
        share = sum(new != old for new, old in zip(changed, texts, strict=True)) / 1000
        assert share == pytest.approx(0.2 * severity, abs=0.05)
    assert TextNoise("mt", 5, 0, translations=found)("nobody translated this") == "nobody translated this"
    assert TextNoise("mt", 5, 0, translations=found)("MAJI  3") == "mvua 3"


@pytest.mark.parametrize(
    ("read", "lines", "message"),
    [
        (read_lexicon, ["water"], "lexicon.tsv:1: found 1 column, expected 2: word<TAB>translation"),
        (read_lexicon, ["water\tmaji", "a\tb\tc"], "lexicon.tsv:2: found 3 columns"),
        (read_lexicon, ["water\t "], "lexicon.tsv:1: the second column is empty"),
        (read_lexicon, [""], "the file is empty"),
        (read_machine_translations, ["a\tb", "a\tc"], "lexicon.tsv:2: a second translation of 'a'"),
    ],
)
def test_wrong_files(tmp_path, read, lines, message):
    with pytest.raises(InputError) as error:
        read(write(tmp_path / "lexicon.tsv", *lines))
    assert message in str(error.value)


def test_mixed_is_each_kind_by_text():
    texts = [f"maji {i} kubwa nyumba rafiki asubuhi karibu" for i in range(300)]
    changed = [TextNoise("mixed", 5)(text) for text in texts]
    shorter = sum(len(new.split()) < len(old.split()) for new, old in zip(changed, texts, strict=True))
    moved = sum(
        new != old and sorted(new.split()) == sorted(old.split()) for new, old in zip(changed, texts, strict=True)
    )
    assert 300 / len(MIXED) * 0.4 < shorter < 300 / len(MIXED) * 2
    assert 300 / len(MIXED) * 0.4 < moved < 300 / len(MIXED) * 2


def test_wrong_kind_or_severity():
    with pytest.raises(ValueError, match=r"the text noise is 'keybord', expected one of .*, did you mean 'keyboard'"):
        TextNoise("keybord", 1)
    with pytest.raises(ValueError, match="the severity of ocr is 6"):
        TextNoise("ocr", 6)


def test_no_look_alike_of_a_letter_is_a_bare_mark() -> None:
    """Unicode never composes some letters of Bengali, so a table by characters would hold their dot alone."""
    for script, groups in replacements._GROUPS.items():
        for letter in clusters(groups.replace(" ", "\n")):
            for other in replacements.misread(letter) if unicodedata.category(letter[0])[0] == "L" else ():
                assert unicodedata.category(other[0])[0] != "M", (script, letter, other)
    assert "য়" in replacements.misread("য")
    assert replacements.misread("য়") == ("য",)
    assert replacements.misread("ড়ি") == ("ডি",)


def test_words_that_other_marks_than_spaces_divide() -> None:
    words, gaps = split_words("བོད་ཡིག་གི་ཚིག ሰላም፡ለዓለም x")
    assert words == ["བོད་", "ཡིག་", "གི་", "ཚིག", "ሰላም፡", "ለዓለም", "x"]
    assert gaps == ["", "", "", "", " ", "", " "]
    assert join_words(words, gaps) == "བོད་ཡིག་གི་ཚིག ሰላም፡ለዓለም x"
    texts = [f"ཁྱི་{number}་ཞིག་རྩྭ་ཐང་སྔོན་པོའི་ནང་དུ་རྒྱུག་གིན་འདུག" for number in range(50)]
    changed = sum(TextNoise("keyboard", 5)(text) != text for text in texts)
    assert changed >= 40
