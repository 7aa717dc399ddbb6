"""Search: exact, by FAISS and by words; vectors on disk."""
