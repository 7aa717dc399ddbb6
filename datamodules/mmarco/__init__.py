"""mMARCO: MS MARCO in 13 languages."""
