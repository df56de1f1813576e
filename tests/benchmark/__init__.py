"""Knows what reading a Gemini stream costs, here and with what people would pick instead; knows no correctness."""
