"""Rules that the source and its documents keep to: names, references, what is documented. No engine is run."""
