"""What to train: one module a sweep, with a function `trials(overrides)` that returns its trials."""
