"""Potstill: distil a strong retriever into a student for a low-resource language."""

__version__ = "0.1.0"
