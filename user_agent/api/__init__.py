"""The REST endpoint: OpenAI's routes, to the letter where a client reads them, and our own. Nothing here can send."""
