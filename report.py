#!/usr/bin/env python3
"""Report on runs: tables with intervals and tests, robustness curves, and one HTML page that needs no network.

python report.py runs/noise
python report.py runs/noise --metric rsum --output docs/noise
"""

from __future__ import annotations

from foundations.commands import Parser, run_main

DESCRIPTION = (
    "Write tables (CSV, Markdown, LaTeX), robustness curves and an HTML page about the finished runs of a study."
)


def report(arguments: list[str]) -> None:
    """Report with the given command line arguments."""
    parser = Parser(prog="report.py", description=DESCRIPTION)
    parser.add_argument("runs", nargs="+", help="run folders, or folders that hold them")
    parser.add_argument("--output", help="folder to write into (default: report in the first of the runs)")
    parser.add_argument("--metric", help="the metric to report (default: rsum if there is one, or the run's first)")
    parser.add_argument("--title", default="Robustness to noise", help="heading of the page")
    parser.add_argument("--question", help="the question that the study answers, below the heading")
    parser.add_argument("--command", default="", help="the command that made the runs, to be shown")
    options = parser.parse_args(arguments)
    from studies.report import QUESTION, write_report

    question = QUESTION if options.question is None else options.question
    page = write_report(options.runs, options.output, options.metric, options.title, question, options.command)
    print(f"page     {page}")
    print(f"tables   {page.parent / 'tables'}    figures  {page.parent / 'figures'}")


def main() -> None:
    """Entry point."""
    run_main("report.py", report)


if __name__ == "__main__":
    main()
