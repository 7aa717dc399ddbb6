"""Human-made data in more than 100 languages, from package registries alone."""
