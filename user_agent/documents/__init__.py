"""D_user: reading the user's documents and finding the passages for a question. Nothing here can send."""
