"""Flickr30k Entities: phrases, and the regions of photographs that they name."""
