"""Public retrieval collections, read from their official files."""
