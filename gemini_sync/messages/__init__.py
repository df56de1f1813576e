"""Gemini's JSON and its event streams as Python values. Nothing here reads from the network or a file."""
