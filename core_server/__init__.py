"""The provider's side: serves the logits of a core model over gRPC, one timestep at a time."""
