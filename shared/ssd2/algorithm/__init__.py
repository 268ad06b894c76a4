"""Algorithm 2 of the paper and what it is made of: noise, simplex, projection, ensemble, stopping."""
