"""The user's side: documents, the small model, the loop, and the only line to the core."""
