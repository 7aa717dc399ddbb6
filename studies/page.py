"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from retrieval.results import AVERAGE
from retrieval.table import format_p
from studies.figures import Difference, Figure, Study, level_name
from studies.runs import Condition, Score
from studies.tables import Entry, Table, number

_SCALE = 1.75
"""Pixels of the page for a point of a figure."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass
class Section:
    """A part of the page.

    Args:
        title: its heading.
        parts: HTML, one below the other.
    """

    title: str
    parts: list[str] = field(default_factory=list)


def page(title: str, question: str, summary: str, sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        title: of the study.
        question: that it answers.
        summary: what was run, in a sentence.
        sections: in their order.
    """
    contents = "".join(f'<li><a href="#s{i}">{escape(each.title)}</a></li>' for i, each in enumerate(sections, 1))
    body = "".join(
        f'<section id="s{i}"><h2>{escape(each.title)}</h2>{"".join(each.parts)}</section>'
        for i, each in enumerate(sections, 1)
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body><main><header><h1>{escape(title)}</h1>"
        f'<p class="question">{escape(question)}</p><p class="summary">{escape(summary)}</p></header>'
        f"<nav><ol>{contents}</ol></nav>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Words."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def items(lines: Sequence[str], kind: str = "") -> str:
    """A list."""
    return f'<ul class="{kind}">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def settings(rows: Mapping[str, str]) -> str:
    """Names and values."""
    return f"<dl>{''.join(f'<dt>{escape(key)}</dt><dd>{escape(value)}</dd>' for key, value in rows.items())}</dl>"


def figure(svg: str, caption: str) -> str:
    """A plot, and words below it."""
    points = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])  # type: ignore[index]
    svg = svg.replace("<svg", f'<svg style="max-width: {points * _SCALE:.0f}px"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def table(content: Table, caption: bool = True) -> str:
    """A table; the average of the languages comes first, and every figure has all its digits in ``data-value``."""
    head = "".join(
        f"<th{'' if place else ' class=name'}>{escape(name)}</th>" for place, name in enumerate(content.columns)
    )
    blocks = sorted(content.blocks.items(), key=lambda item: item[0] != AVERAGE)
    bodies = []
    for block, rows in blocks:
        words = "average of the languages" if block == AVERAGE else block
        name = f'<tr class="block"><th colspan="{len(content.columns)}">{escape(words)}</th></tr>' if block else ""
        lines = "".join(f"<tr>{''.join(_cell(each, place) for place, each in enumerate(row))}</tr>" for row in rows)
        bodies.append(f'<tbody data-language="{escape(block)}">{name}{lines}</tbody>')
    title = f"<caption>{escape(content.title)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table id="{escape(content.name)}">{title}<thead><tr>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>{paragraph(content.note, 'note')}"
    )


def _cell(each: Entry, place: int) -> str:
    if place == 0:
        return f'<th class="name">{escape(each.text)}</th>'
    mean, sign, rest = each.text.partition(" ±")
    text = f"<b>{escape(mean)}</b>" if each.best else escape(mean)
    interval = f' <span class="interval">±{escape(rest)}</span>' if sign else ""
    return f"<td{_data(each.figure)}>{text}{interval}</td>"


def _data(figure: Figure | None) -> str:
    if figure is None:
        return ""
    interval = "" if figure.interval is None else f" [{figure.interval[0]:.6g}, {figure.interval[1]:.6g}]"
    hint = (
        f"{figure.value:.6g}{interval}, seed{'s' if len(figure.seeds) > 1 else ''} {', '.join(map(str, figure.seeds))}"
    )
    return f' data-value="{figure.value!r}" data-seeds="{len(figure.seeds)}" title="{escape(hint)}"'


def significance(differences: Sequence[Difference], study: Study) -> str:
    """A matrix of strategies for each level: row minus column, and whether it is more than chance."""
    if not differences:
        return ""
    levels = sorted({each.level for each in differences})
    found = {(each.level, each.first, each.second): each for each in differences}
    matrices = []
    for level in levels:
        head = "".join(f"<th><span>{escape(name)}</span></th>" for name in study.strategies[:-1])
        lines = []
        for row, first in enumerate(study.strategies[1:], 1):
            cells = [_difference(found.get((level, other, first)), study) for other in study.strategies[:row]]
            cells += ["<td></td>"] * (len(study.strategies) - 1 - row)
            lines.append(f'<tr><th class="name">{escape(first)}</th>{"".join(cells)}</tr>')
        name = f"{level_name(differences[0].series)} {level:g}" if level else "clean"
        matrices.append(
            f'<table class="matrix"><caption>{escape(name)}</caption><thead><tr><th></th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table>"
        )
    seeds = sorted({each.seeds for each in differences})
    averaged = "one seed" if seeds == [1] else f"{' or '.join(map(str, seeds))} seeds"
    over = f"{len(differences)} comparisons" if len(differences) > 1 else "one comparison"
    note = (
        f"Row minus column in {study.metric}; shaded: p < 0.05 (blue: the row is better, orange: the column is). "
        f"Two-sided paired t-test over queries on values {'of' if seeds == [1] else 'averaged over'} {averaged}, "
        f"Holm-corrected over the {over} shown here."
    )
    return f'<div class="matrices">{"".join(matrices)}</div>{paragraph(note, "note")}'


def _difference(each: Difference | None, study: Study) -> str:
    if each is None:
        return "<td>-</td>"
    value = -each.difference  # the row is the second of the pair
    kind = "" if each.p >= 0.05 else "better" if value > 0 else "worse"
    text = ("+" if value > 0 else "") + number(value, study.metric)
    return f'<td class="{kind}" data-p="{each.p!r}" data-value="{value!r}" title="p {format_p(each.p)}">{text}</td>'


def runs_table(scores: Sequence[Score], metric: str) -> str:
    """Every run's figure, with all digits in ``data-value``; the heads sort."""
    rows = "".join(
        f'<tr><th class="name">{escape(each.run)}</th><td class="word">{escape(each.strategy)}</td>'
        f'<td class="word">{escape(_noise(each.condition))}</td><td class="word">{escape(each.language)}</td>'
        f'<td data-value="{each.seed}">{each.seed}</td>'
        f'<td data-value="{each.value!r}" data-run="{escape(each.run)}" '
        f'data-condition="{escape(_key(each.condition))}" data-language="{escape(each.language)}">'
        f"{number(each.value, metric)}</td></tr>"
        for each in scores
    )
    head = "".join(f'<th class="{"" if name in ("seed", metric) else "name"}">{escape(name)}</th>'
                   for name in ("run", "strategy", "noise", "language", "seed", metric))  # fmt: skip
    return (
        f"<details><summary>{len(scores)} figures; click a head to sort</summary><div class=scroll>"
        f'<table id="runs" class="sortable"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _noise(condition: Condition) -> str:
    return "none" if condition == Condition() else f"{condition.stage}: {condition.kind} {condition.level:g}"


def _key(condition: Condition) -> str:
    return f"{condition.stage}/{condition.kind}/{condition.level:g}"


STYLE = """
:root { --ink: #1f1f1f; --soft: #666; --rule: #cfcfcf; --paper: #fff; --blue: #dcecf7; --orange: #fbe6d8; }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); font: 16px/1.5 Charter, "Bitstream Charter", "Source Serif 4",
  "Noto Serif", Georgia, serif; font-variant-numeric: oldstyle-nums; }
body { margin: 0; counter-reset: table figure; }
.scroll + .note, .matrices + .note { counter-increment: table; } figcaption { counter-increment: figure; }
.scroll + .note::before, .matrices + .note::before { content: "Table " counter(table) ". "; }
figcaption::before { content: "Figure " counter(figure) ". "; }
.scroll + .note::before, .matrices + .note::before, figcaption::before { color: var(--ink); font-weight: 600; }
main { max-width: 62rem; margin: 0 auto; padding: 3.5rem 2rem 5rem; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 600; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; font-weight: 600; margin: 3rem 0 .8rem; padding-top: .7rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; font-weight: 600; margin: 2rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: inherit; text-decoration-color: var(--rule); text-underline-offset: .15em; }
.question { font-size: 1.15rem; font-style: italic; color: #333; }
.summary, .note, figcaption { color: var(--soft); }
.note, figcaption { font-size: .84rem; line-height: 1.45; max-width: 46rem; }
.missing { background: #fff8e6; border-left: 3px solid #e0a800; padding: .6rem 1rem .6rem 2rem; font-size: .9rem; }
nav ol { columns: 2; padding-left: 1.2rem; font-size: .92rem; margin: 1.6rem 0 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.4rem; font-size: .92rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; font: .84rem/1.4 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums lining-nums; border-top: 1.5px solid var(--ink);
  border-bottom: 1.5px solid var(--ink); }
caption { text-align: left; font-weight: 600; padding: 0 0 .35rem; }
thead th { border-bottom: .75px solid var(--ink); font-weight: 600; }
th, td { padding: .22rem .7rem; text-align: right; font-weight: 400; white-space: nowrap; }
td b { font-weight: 700; }
.name, .word { text-align: left; } th:first-child, td:first-child { padding-left: .2rem; }
.block th { text-align: left; font-style: italic; color: var(--soft); padding-top: .6rem; }
tbody + tbody .block th { border-top: .75px solid var(--rule); }
.interval { color: var(--soft); font-size: .88em; }
figure { margin: 1.6rem 0 .8rem; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif !important; }
.matrices { display: flex; flex-wrap: wrap; gap: 1.4rem 2rem; margin: 1rem 0 .3rem; }
.matrix { font-size: .74rem; } .matrix td, .matrix th { padding: .18rem .4rem; }
.matrix thead th span { writing-mode: vertical-rl; transform: rotate(180deg); display: inline-block; }
.better { background: var(--blue); } .worse { background: var(--orange); }
summary { cursor: pointer; color: var(--soft); font-size: .92rem; }
.sortable thead th { cursor: pointer; } .sortable thead th[aria-sort]::after { content: " \\2191"; }
.sortable thead th[aria-sort=descending]::after { content: " \\2193"; }
code { font: .86em "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media print {
  html { font-size: 10.5px; } main { max-width: none; padding: 0; } nav { display: none; }
  h2 { break-after: avoid; } figure, table, .matrix { break-inside: avoid; } .scroll { overflow: visible; }
  figure svg { max-width: 130mm !important; }
  .better, .worse, .missing { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details:not([open]) { display: none; } @page { margin: 18mm 16mm; }
}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", event => {
    const head = event.target.closest("th");
    if (!head) return;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const order = key(a).localeCompare(key(b), "en", {numeric: true});
      const numbers = Number(key(a)) - Number(key(b));
      return (Number.isNaN(numbers) ? order : numbers) * (down ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  });
}
"""
