"""Gemini's JSON and event streams as values; no input or output happens here."""
