"""Files of the agent: database, conversations, ledger, encryption key, tuned settings."""
