"""Distillation losses, each in its own file. This module imports nothing, so that it costs nothing."""

from __future__ import annotations

STRATEGIES: dict[str, str] = {
    "ot": "strategies.ot.OptimalTransport",
    "ot_contrastive": "strategies.ot_contrastive.OTContrastive",
    "ot_match": "strategies.ot_match.OTMatch",
    "mse": "strategies.mse.MSE",
    "contrastive": "strategies.contrastive.Contrastive",
    "kl": "strategies.kl.KL",
    "margin_mse": "strategies.margin_mse.MarginMSE",
    "relational": "strategies.relational.Relational",
    "cosine": "strategies.cosine.Cosine",
    "weighted_sum": "strategies.weighted_sum.WeightedSum",
}
"""Short name, as in ``--strategy ot``, -> class path."""
