"""What the scripts do."""
