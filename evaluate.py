"""Score again: a run folder's checkpoint, or a TREC run.

python evaluate.py runs/starter-sw-ot-seed0
python evaluate.py runs/starter-sw-ot-seed0 --score both --json scores.json
python evaluate.py --run bm25.run --qrels test.qrels --metrics map ndcg@10
"""

from __future__ import annotations

from lightning_modules.front_door import Parser, run_main

DESCRIPTION = "Score a run folder's checkpoint on its test collection, or a TREC run against judgments."


def evaluate(arguments: list[str]) -> None:
    """Evaluate with the given command line arguments."""
    parser = Parser(prog="evaluate.py", description=DESCRIPTION)
    parser.add_argument("folder", nargs="?", help="run folder that train.py wrote")
    parser.add_argument("--checkpoint", help="checkpoint file (default: checkpoints/best.ckpt of the folder)")
    parser.add_argument("--score", choices=["pooled", "maxsim", "both"], help="default: as in training")
    parser.add_argument("--run", help="TREC run to score instead of a checkpoint; needs --qrels")
    parser.add_argument("--qrels", help="TREC judgments")
    parser.add_argument("--metrics", nargs="+", help="such as map ndcg@10 (default: those of the run folder)")
    parser.add_argument("--json", help="write means and per-query values to this file")
    options = parser.parse_args(arguments)
    if (options.folder is None) == (options.run is None) or (options.run is None) != (options.qrels is None):
        parser.error("expected either a run folder, or --run FILE and --qrels FILE")
    from lightning_modules.rescoring import score_checkpoint, score_trec_run

    if options.run is not None:
        score_trec_run(options.run, options.qrels, options.metrics, options.json)
    else:
        score_checkpoint(options.folder, options.checkpoint, options.score, options.metrics, options.json)


def main() -> None:
    """Entry point."""
    run_main("evaluate.py", evaluate)


if __name__ == "__main__":
    main()
