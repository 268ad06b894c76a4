"""The wire: generated message types, and the only code that reads and writes them."""
