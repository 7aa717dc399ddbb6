"""Bitext from other people's files."""
