"""A small program that uses gemini_sync: it answers a question, and marks an answer that broke off."""

from __future__ import annotations

from gemini_sync import GeminiDualAdapter, StreamInterrupted


def answer(adapter: GeminiDualAdapter, question: str) -> str:
    """The answer to ``question``; it ends with […] if the connection broke off in the middle."""
    try:
        return adapter.generate(question, generation_config={"temperature": 0}).text
    except StreamInterrupted as exc:
        return f"{exc.partial.text} […]"
