"""The order-free relation: a small text in which the order of two values is drawn, and stands in one block."""
