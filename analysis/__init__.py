"""What to learn from finished trials: one module a question, compute → tidy table → figure, read from the record."""
