"""Score again: a run folder's checkpoint, or a TREC run.

python evaluate.py runs/starter-sw-ot-seed0
python evaluate.py runs/starter-sw-ot-seed0 --score both --json scores.json
python evaluate.py runs/starter-sw-ot-seed0 --text_noise keyboard --severity 3
python evaluate.py runs/flickr30k --data flickr30k_entities --data.root entities/ --metrics success@1 upper_bound
python evaluate.py --run bm25.run --qrels test.qrels --metrics map ndcg@10
"""

from __future__ import annotations

from foundations.commands import run_main
from lightning_modules.commands.arguments import evaluate


def main() -> None:
    """Entry point."""
    run_main("evaluate.py", evaluate)


if __name__ == "__main__":
    main()
