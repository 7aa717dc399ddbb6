"""Faults put into real processes: a matrix of them, and a long run."""
