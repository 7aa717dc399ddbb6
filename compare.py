"""Compare runs: means with intervals, differences to a baseline, paired significance tests.

python compare.py runs/mse runs/ot                               # the test rows of two run folders
python compare.py runs/ot:undistilled runs/ot                    # another row of the same folder
python compare.py runs/sw-ot runs/sw+so-ot:test/sw               # one language of a run on several
python compare.py a.run b.run --qrels test.qrels --metrics map   # TREC run files
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from foundations.commands import Parser


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    options = Parser("compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, FOLDER:ROW[/LANGUAGE], or a TREC run")
    options.add_argument("--metrics", nargs="+", metavar="NAME", help="e.g. map ndcg@10 (default: all in common)")
    options.add_argument("--baseline", metavar="RUN", help="which of the runs the others are compared with (the first)")
    options.add_argument("--qrels", metavar="FILE", help="relevance judgments, for TREC run files")
    options.add_argument("--json", metavar="FILE", help="write all numbers to this file as well")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; exit status 2, and one line on stderr, where the input is wrong."""
    from retrieval.compare import print_comparison

    try:
        options = parser().parse_args(arguments)
        print_comparison(options.runs, options.baseline, options.qrels, options.metrics, options.json)
    except (ValueError, OSError) as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
