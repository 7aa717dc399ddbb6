"""Exact search, TREC metrics, runs and significance: no Lightning, no training."""
