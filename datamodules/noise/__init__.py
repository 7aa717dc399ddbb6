"""What can go wrong with a pair, on purpose."""
