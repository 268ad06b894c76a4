"""Algorithm 1 of the paper and what it takes to run it."""
