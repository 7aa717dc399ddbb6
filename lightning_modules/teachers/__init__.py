"""The frozen encoders that are learned from."""
