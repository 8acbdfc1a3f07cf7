"""Output formats: each renders an `Outcome`."""
