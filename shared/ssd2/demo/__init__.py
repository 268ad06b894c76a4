"""The demo pair: an assistant for one invented town, its text, its recipes and its weights."""
