"""A trained student as a folder that other libraries open."""
