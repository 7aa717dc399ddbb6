"""Score again: a run folder's checkpoint, or a TREC run.

python evaluate.py runs/starter-sw-ot-seed0
python evaluate.py runs/starter-sw-ot-seed0 --score both --json scores.json
python evaluate.py runs/starter-sw-ot-seed0 --text_noise keyboard --severity 3
python evaluate.py runs/flickr30k --data flickr30k_entities --data.root entities/ --metrics success@1 upper_bound
python evaluate.py --run bm25.run --qrels test.qrels --metrics map ndcg@10
"""

from __future__ import annotations

from foundations.commands import Parser, run_main
from lightning_modules.commands.evaluate import take_data_options

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
    parser.add_argument("--text_noise", help="noise in what the student reads of the test, such as keyboard")
    parser.add_argument("--image_noise", help="noise in the images of the test, such as jpeg")
    parser.add_argument("--severity", type=int, help="of the noise, 0 (none) to 5")
    parser.add_argument("--noise_seed", type=int, default=0, help="seed of the noise (default: 0)")
    parser.add_argument("--lexicon", help="word<TAB>translation, for --text_noise code_switch")
    parser.add_argument("--translations", help="text<TAB>machine translation, for --text_noise mt")
    parser.add_argument("--data", metavar="NAME", help="test on another dataset; its options follow as --data.OPTION")
    arguments, data = take_data_options(arguments)
    options = parser.parse_args(arguments)
    if (options.folder is None) == (options.run is None) or (options.run is None) != (options.qrels is None):
        parser.error("expected either a run folder, or --run FILE and --qrels FILE")
    kinds = options.text_noise or options.image_noise
    if options.run is not None and data:
        parser.error("--data needs a run folder")
    if (kinds is None) != (options.severity is None) or (options.run is not None and kinds is not None):
        parser.error("noise needs a run folder, --severity, and --text_noise or --image_noise")
    from lightning_modules.commands.evaluate import noise_options, score_checkpoint, score_trec_run

    if options.run is not None:
        score_trec_run(options.run, options.qrels, options.metrics, options.json)
    else:
        files = (options.lexicon, options.translations)
        noise = noise_options(options.text_noise, options.image_noise, options.severity, options.noise_seed, *files)
        score_checkpoint(options.folder, options.checkpoint, options.score, options.metrics, options.json, noise, data)


def main() -> None:
    """Entry point."""
    run_main("evaluate.py", evaluate)


if __name__ == "__main__":
    main()
