"""Pretrained models: names, folders and formats."""
