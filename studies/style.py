"""Style sheet and script of the page."""

from __future__ import annotations

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
