"""Several methods on the same rows as one page: tests, curves, slices, users, a verdict."""
