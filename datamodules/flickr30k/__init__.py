"""Flickr30k: photographs with captions in many languages."""
