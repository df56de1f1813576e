"""Which route serves a call: retries, the fallback, and telling people about it."""
