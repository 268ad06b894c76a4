"""The benchmark `documents`: questions about everyday documents, and about what a note and the world say together."""
