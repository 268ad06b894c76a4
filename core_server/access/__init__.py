"""Access control: keys, callers, certificates, scopes."""
