"""Block logits as they are packed for the wire, with the proof that packing changed no token."""
