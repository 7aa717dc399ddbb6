#!/usr/bin/env python3
"""Report on runs: tables with intervals and tests, robustness curves, and one HTML page that needs no network.

python report.py runs/noise
python report.py runs/noise --metric rsum --output docs/noise
"""

from __future__ import annotations

from foundations.commands import run_main
from studies.report import report


def main() -> None:
    """Entry point."""
    run_main("report.py", report)


if __name__ == "__main__":
    main()
