"""The benchmark: what reading a Gemini stream costs with gemini_sync and with the alternatives."""
