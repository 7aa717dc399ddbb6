"""Encoding, ranking and scoring of collections during a run."""
