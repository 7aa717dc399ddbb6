from __future__ import annotations

from benchmarks.noise_study import chosen_tables, differences

TABLES = """**Wrong correspondence, caption level**

| a |

**Test text noise: keyboard**

| b |

**Test-time text noise: MMI by kind**

| c |
"""


def row(level: str, first: str, second: str, difference: str, p: str, language: str = "average") -> dict[str, str]:
    stage = {"stage": "training", "kind": "correspondence-caption", "level": level, "language": language}
    return stage | {"first": first, "second": second, "difference": difference, "p_holm": p}


def test_tables_are_found_by_their_titles():
    tables = chosen_tables(TABLES)
    assert list(tables) == ["Wrong correspondence", "Test-time text noise"]
    assert tables["Wrong correspondence"].startswith("**Wrong correspondence, caption level**")
    assert "| c |" in tables["Test-time text noise"]
    assert "| b |" not in "".join(tables.values())


def test_only_significant_differences_of_the_average_at_the_level_count():
    rows = [
        row("0.2", "ot", "mse", "-1.5", "0.01"),
        row("0.2", "contrastive", "mse", "0.5", "0.2"),
        row("0.2", "contrastive", "ot", "2.0", "0.001"),
        row("0.4", "ot", "mse", "3.0", "0.01"),
        row("0.2", "ot", "mse", "3.0", "0.01", language="sw"),
    ]
    assert differences(rows, 0.2) == ["`contrastive` is ahead of `ot`", "`mse` is ahead of `ot`"]
