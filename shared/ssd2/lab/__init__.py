"""Laboratory: measurements for studies. Nothing here is needed to train, serve or use a model."""
