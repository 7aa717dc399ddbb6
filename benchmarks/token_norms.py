"""Why a token loss alone is poor under pooled search: how long the static student's tokens become, and what cures it.

python -m benchmarks.token_norms --data afriqa --data.root FOLDER --data.language hau --write-docs

Trains a student by each strategy, and pools its queries in three ways. Options that are not its own are train.py's.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pages import add_output_options, machine, versions, write_results
from foundations.files import read_json
from lightning_modules.cli.cli import PotstillCLI
from lightning_modules.cli.front_door import parse
from lightning_modules.evaluation.encoding import EncodedTexts, encode
from lightning_modules.evaluation.ranking import rank
from strategies.base import Embeddings
from strategies.functional import unit_tokens

STRATEGIES = {
    "`ot`, `pooled_weight` 0": ["ot", "--strategy.pooled_weight", "0"],
    "`ot_contrastive`, `pooled_weight` 0": ["ot_contrastive", "--strategy.pooled_weight", "0"],
    "`ot`": ["ot"],
    "`ot_contrastive`": ["ot_contrastive"],
    "`mse`": ["mse"],
}
POOLINGS = ("as it is", "unit tokens", "unit tokens times IDF")
PAGE = Path(__file__).parent.parent / "docs" / "strategies.md"
DATA = ["--data", "starter", "--data.language", "ha"]
FIXED = ["--logger", "none", "--plots", "false", "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "0"]
BATCH = 256


def poolings(side: Embeddings) -> dict[str, Tensor]:
    """The pooled vectors of texts: as the student has them, and by means of its tokens' directions."""
    unit, mask = unit_tokens(side), side.require_tokens()[1]
    assert side.weights is not None
    weights = torch.where(mask, side.weights, 0.0)
    means = (side.pooled, unit.sum(1), (unit * weights[..., None]).sum(1))
    return {name: F.normalize(mean, dim=-1) for name, mean in zip(POOLINGS, means, strict=True)}


@torch.no_grad()
def norm_and_idf(student: Any, texts: list[str]) -> Tensor:
    """Log norm and IDF of each piece that occurs in the texts; (2, pieces)."""
    norms = torch.zeros_like(student.idf)
    for start in range(0, len(texts), BATCH):
        side = student(student.tokenize(texts[start : start + BATCH]), tokens=True)
        norms[side.types[side.mask]] = side.tokens[side.mask].norm(dim=-1)
    seen = norms > 0
    return torch.stack([norms[seen].log(), student.idf[seen]])


def run_strategy(name: str, arguments: list[str]) -> dict[str, Any]:
    """Train with one strategy, and measure.

    Returns:
        Correlation of log norm with IDF over the pieces of the training texts, and pooled MAP on the test queries by
        the way of pooling.
    """
    with tempfile.TemporaryDirectory() as folder:
        cli = PotstillCLI(parse(["--strategy", *STRATEGIES[name], *FIXED, "--output", folder, *arguments]))
        data: Any = cli.datamodule
        cli.trainer.fit(cli.model, datamodule=data)
        module = cli.model.eval()
        data.setup("test")
    test, texts = data.collections["test"], [pair.target for pair in data.sample_pairs()]
    module.student.fit_idf(texts)
    documents = encode(module.teacher, test.documents, "documents", tokens=False)
    names = list(test.queries)
    with torch.no_grad():
        blocks = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
        parts = [poolings(module([test.queries[query] for query in block], tokens=True)) for block in blocks]
    maps = {}
    for pooling in POOLINGS:
        queries = EncodedTexts(names, torch.cat([part[pooling] for part in parts]), None)
        maps[pooling] = rank(queries, documents, test, ["map"], "pooled", 1000).means["map"]
    correlation = torch.corrcoef(norm_and_idf(module.student, texts))[0, 1].item()
    size = {"pairs": len(data.pairs), "queries": len(names), "documents": len(test.documents)}
    return {"strategy": name, "correlation": correlation, "map": maps} | size


def described(arguments: list[str]) -> str:
    """The options of the data, without folders."""
    options = zip(arguments[::2], arguments[1::2], strict=True)
    data = [(name, value) for name, value in options if name.startswith("--data") and name != "--data.root"]
    return "`" + " ".join(f"{name} {re.sub(':[^,]*', '', value)}" for name, value in data) + "`"


def report(record: dict[str, Any]) -> str:
    """The section of the page."""
    rows, first = record["rows"], record["rows"][0]
    lines = [
        f"{record['data']}: {first['pairs']:,} pairs, {first['queries']:,} test queries, {first['documents']:,} "
        f"documents; {record['epochs']} epochs, one seed, static student ({record['machine']}, {record['versions']}). "
        "MAP under pooled search, by how the query's vector is made of its tokens.",
        "",
        f"| trained with | correlation of log norm with IDF | {' | '.join(POOLINGS)} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        maps = " | ".join(f"{row['map'][pooling]:.3f}" for pooling in POOLINGS)
        lines.append(f"| {row['strategy']} | {row['correlation']:+.2f} | {maps} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, train, measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.token_norms", description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    add_output_options(parser, PAGE)
    options, rest = parser.parse_known_args()
    arguments = rest or DATA
    if options.render:
        record, options.write_docs = read_json(options.render), True
    else:
        arguments += ["--trainer.max_epochs", str(options.epochs)]
        record = {
            "data": described(arguments),
            "epochs": options.epochs,
            "machine": machine(),
            "versions": versions("torch"),
            "rows": [run_strategy(name, arguments) for name in STRATEGIES],
        }
    write_results(options, record["rows"], record, report(record), PAGE, "python -m benchmarks.token_norms")


if __name__ == "__main__":
    main()
