"""Choosing λ_user and α for a user's own documents: what is asked, what crosses for it, how the answers are judged."""
