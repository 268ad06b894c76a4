"""The process that computes: models, batches, ranks."""
