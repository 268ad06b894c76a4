"""Who may call: keys, callers, certificates, scopes."""
