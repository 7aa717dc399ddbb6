"""Many runs: sweeps over strategies, noise, languages and seeds, and the report on them."""
