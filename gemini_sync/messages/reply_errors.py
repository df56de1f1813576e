"""Which complete reply becomes which error: finish reasons, block reasons, and replies that are empty."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Optional

from gemini_sync.errors import BlockedError, EmptyResponseError, FinishReasonError, GeminiSyncError
from gemini_sync.redaction import redacted_excerpt

if TYPE_CHECKING:
    from gemini_sync.messages.reply import Reply
    from gemini_sync.messages.reply_content import ReplyContent

# From the REST reference and GG types.FinishReason. A reason that is in neither set is no error.
_REFUSED = frozenset(
    "SAFETY RECITATION LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII ESCALATION MODEL_ARMOR IMAGE_SAFETY "
    "IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION PUP_LIMITED_DISABLED".split()
)
_FAILED = frozenset(
    "OTHER IMAGE_OTHER NO_IMAGE MALFORMED_FUNCTION_CALL MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS "
    "MISSING_THOUGHT_SIGNATURE".split()
)


def verdict(content: ReplyContent, partial: Reply, secrets: Collection[str]) -> Optional[GeminiSyncError]:
    """What is wrong with the complete answer ``content``, or None. The error gets ``partial`` as an attribute."""
    if content.block_reason is not None:
        said = str((content.prompt_feedback or {}).get("blockReasonMessage") or "Change the prompt.")
        why = f"The prompt was refused ({content.block_reason}): {redacted_excerpt(said, secrets)}"
        return BlockedError(why, reason=content.block_reason, partial=partial)
    reason = content.finish_reason
    if reason in _REFUSED or reason in _FAILED:
        cls, what = (BlockedError, "refused") if reason in _REFUSED else (FinishReasonError, "not finished")
        message = content.finish_message and redacted_excerpt(content.finish_message, secrets)
        return cls(
            f"The answer was {what} ({reason}): {message or 'the server gave no explanation.'} "
            "The text that came is in .partial.",
            reason=reason,
            partial=partial,
            finish_message=message,
        )
    # Before CONTINUATION the model may have only thought. The text comes in the next response (WIRE: long decode).
    if not content.empty or reason == "CONTINUATION":
        return None
    why = f"The answer is empty: it ended with {reason or 'no finish reason'} and no text, call, data or code."
    if reason == "MAX_TOKENS":
        count = partial.usage and partial.usage.thoughts_token_count
        why += (
            f" Thinking used up maxOutputTokens ({count if count is not None else 'an unknown number of'} thought "
            "tokens): raise it, or lower thinkingConfig."
        )
    return EmptyResponseError(why, reason=reason, partial=partial)
