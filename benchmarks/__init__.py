"""Quality and speed, measured; the numbers in the docs are written by these commands."""
