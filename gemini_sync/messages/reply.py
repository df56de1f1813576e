"""Knows the reply a caller holds: one stream as text or as chunks, and the verdict at its end; knows no network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, Optional, TypeVar

from gemini_sync.errors import (
    Attempt,
    BlockedError,
    EmptyResponseError,
    FinishReasonError,
    GeminiSyncError,
    StreamInterrupted,
)
from gemini_sync.messages.response import Blob, Chunk, FunctionCall, Usage, function_calls, inline_data, usage
from gemini_sync.messages.turn import Turn
from gemini_sync.redaction import redacted_excerpt

_Error = TypeVar("_Error", bound=GeminiSyncError)

# What a finish reason means (REST reference, GG types.FinishReason); those in none of the sets are no error.
_REFUSED = frozenset(
    "SAFETY RECITATION LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII ESCALATION MODEL_ARMOR IMAGE_SAFETY "
    "IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION".split()
)
_FAILED = frozenset(
    "OTHER IMAGE_OTHER NO_IMAGE MALFORMED_FUNCTION_CALL MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS "
    "MISSING_THOUGHT_SIGNATURE".split()
)


class Journey:
    """What is known of the way a reply took; written by the adapter, read through the reply."""

    def __init__(self, route: Optional[str] = None, attempts: Iterable[Attempt] = ()) -> None:
        self.route = route
        self.attempts = list(attempts)

    def broke(self, outcome: str, error: Optional[GeminiSyncError] = None) -> None:
        """The answer of the last attempt ended before it was complete."""
        if self.attempts:
            hint = error.retry_after if error is not None else None
            self.attempts[-1] = replace(self.attempts[-1], outcome=outcome, error=error, retry_after=hint)


class _State:
    """What a reply shares with its generators: those must not name the reply, or dropping it would not end them."""

    def __init__(
        self,
        chunks: Iterator[Chunk],
        journey: Journey,
        cancel: Optional[Callable[[], None]] = None,
        require_finish: bool = True,
        secrets: Collection[str] = (),
        phase: str = "new",
    ) -> None:
        self.chunks, self.journey, self.cancel, self.require_finish = chunks, journey, cancel, require_finish
        self.secrets = secrets
        self.turn = Turn()
        self.phase = phase  # new, open, complete, interrupted or closed

    def __enter__(self) -> None:
        if self.phase == "closed":
            raise self.closed()
        if self.phase == "interrupted":
            raise self.interrupted("the stream is over, it was interrupted before")
        if self.phase == "new":
            self.phase = "open"

    def __exit__(self, kind: Optional[type[BaseException]], exc: Optional[BaseException], traceback: object) -> None:
        """Where the chunks ended, whatever the way: decide what that means."""
        if kind is GeneratorExit:
            return  # one way of iterating was dropped; the reply may go on another
        if exc is None:
            if self.phase == "closed":
                raise self.closed()
            if self.require_finish and self.turn.finish_reason is None and self.turn.block_reason is None:
                self.phase = "interrupted"
                self.journey.broke("interrupted")
                raise self.interrupted("the connection ended without a finish reason")
            self.phase = "complete"
            return
        if self.phase == "closed" and isinstance(exc, ValueError):  # another thread is in the generator, closing it
            raise self.closed() from exc
        self.phase = "interrupted"
        if isinstance(exc, StreamInterrupted):
            self.label(exc).partial = Reply._of(self)
        elif isinstance(exc, GeminiSyncError) and self.turn.chunks:
            raise self.interrupted(str(exc), exc) from exc

    def closed(self) -> StreamInterrupted:
        error = self.interrupted("the reply was closed")
        error.cancelled = True
        return error

    def interrupted(self, why: str, cause: Optional[GeminiSyncError] = None) -> StreamInterrupted:
        error = StreamInterrupted(
            f"The answer was interrupted after {self.turn.chunks} chunks: {why.rstrip('.')}. "
            "What came is in .partial; nothing was sent again.",
            partial=Reply._of(self),
        )
        if cause is not None:
            for name in ("code", "status", "reason", "details", "retry_after", "link", "trace_id"):
                setattr(error, name, getattr(cause, name))
        return self.label(error)

    def label(self, error: _Error) -> _Error:
        error.route, error.attempts = self.journey.route or error.route, tuple(self.journey.attempts)
        return error

    def verdict(self) -> Optional[GeminiSyncError]:
        """What is wrong with a complete answer, or None."""
        turn, partial = self.turn, Reply._of(self)
        if turn.block_reason is not None:
            said = str((turn.prompt_feedback or {}).get("blockReasonMessage") or "Change the prompt.")
            why = redacted_excerpt(said, self.secrets)
            return BlockedError(
                f"The prompt was refused ({turn.block_reason}): {why}", reason=turn.block_reason, partial=partial
            )
        reason, message = (
            turn.finish_reason,
            turn.finish_message and redacted_excerpt(turn.finish_message, self.secrets),
        )
        if reason in _REFUSED or reason in _FAILED:
            cls, what = (BlockedError, "refused") if reason in _REFUSED else (FinishReasonError, "not finished")
            return cls(
                f"The answer was {what} ({reason}): {message or 'the server gave no explanation.'} "
                "The text that came is in .partial.",
                reason=reason,
                partial=partial,
                finish_message=message,
            )
        if not turn.empty:
            return None
        why = f"The answer is empty: it ended with {reason or 'no finish reason'} and no text, call, data or code."
        if reason == "MAX_TOKENS":
            count = partial.usage and partial.usage.thoughts_token_count
            why += (
                f" Thinking used up maxOutputTokens ({count if count is not None else 'an unknown number of'} thought "
                "tokens): raise it, or lower thinkingConfig."
            )
        return EmptyResponseError(why, reason=reason, partial=partial)


def _texts(state: _State) -> Iterator[str]:
    add = state.turn.add
    with state:
        for chunk in state.chunks:
            text = add(chunk)
            del chunk  # while this generator waits, it must not keep a large chunk alive
            if text:
                yield text
    error = state.verdict()
    if error is not None:
        try:
            raise state.label(error)
        finally:
            del error  # or the error and this frame would keep each other alive


def _chunks(state: _State) -> Iterator[Chunk]:
    add = state.turn.add
    with state:
        for chunk in state.chunks:
            add(chunk)
            yield chunk
            del chunk


class Reply(Iterator[str]):
    """One answer: iterate it for its text as it arrives, or ``chunks()`` for everything; both share one stream.

    The properties are right at any moment, while the answer arrives and after. Used by one thread, except ``cancel()``
    and ``close()``, which any thread may call. Iterating raises, before anything came, the error of the call; later
    ``StreamInterrupted`` (with ``partial``, what came so far). Iterating the text raises besides, at the end,
    ``BlockedError``, ``FinishReasonError`` or ``EmptyResponseError``.
    """

    def __init__(
        self,
        chunks: Iterator[Chunk],
        *,
        journey: Optional[Journey] = None,
        cancel: Optional[Callable[[], None]] = None,
        require_finish: bool = True,
        secrets: Collection[str] = (),
    ) -> None:
        self._state = _State(chunks, journey or Journey(), cancel, require_finish, secrets)
        self._texts = _texts(self._state)

    @classmethod
    def _of(cls, state: _State) -> Reply:
        """A reply that shows what ``state`` holds and has no stream any more."""
        reply = cls.__new__(cls)
        reply._state, reply._texts = state, iter(())
        return reply

    def __iter__(self) -> Iterator[str]:
        phase = self._state.phase
        # A generator that was dropped, or has raised, would just end: nobody would see that the answer did not.
        dropped = phase == "open" and getattr(self._texts, "gi_frame", None) is None
        if dropped or phase in ("interrupted", "closed"):
            self._texts = _texts(self._state)
        return self._texts

    def __next__(self) -> str:
        return next(iter(self))

    def chunks(self) -> Iterator[Chunk]:
        """The rest of the stream as ``Chunk`` objects; raises for failures and interruptions only, not for verdicts."""
        return _chunks(self._state)

    @property
    def text(self) -> str:
        """The answer text so far, without thoughts."""
        return self._state.turn.text()

    @property
    def thoughts(self) -> str:
        """The thought summaries so far."""
        return self._state.turn.text(thought=True)

    @property
    def content(self) -> dict[str, Any]:
        """The model's turn so far as a Content dict, for the history: parts verbatim, adjacent text joined."""
        return {"role": "model", "parts": self._state.turn.parts}

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        return function_calls(self._state.turn.parts)

    @property
    def inline_data(self) -> tuple[Blob, ...]:
        """The inline data so far, decoded; raises ``ProtocolError`` where that is not base64."""
        return inline_data(self._state.turn.parts)

    @property
    def finish_reason(self) -> Optional[str]:
        """Why the model stopped (``"STOP"``, ``"MAX_TOKENS"``, …), as the server spells it; None before that."""
        return self._state.turn.finish_reason

    @property
    def finish_message(self) -> Optional[str]:
        return self._state.turn.finish_message

    @property
    def usage(self) -> Optional[Usage]:
        """The last token counts that came, or None."""
        return usage(self._state.turn.usage_metadata)

    @property
    def model_version(self) -> Optional[str]:
        return self._state.turn.model_version

    @property
    def response_id(self) -> Optional[str]:
        return self._state.turn.response_id

    @property
    def route(self) -> Optional[str]:
        """``"oauth"`` or ``"api_key"``: the route that serves this answer; None before the first chunk."""
        return self._state.journey.route

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What was tried for this answer, in order."""
        return tuple(self._state.journey.attempts)

    def close(self) -> None:
        """Release the connection; an unread rest is given up: whoever goes on iterating gets ``StreamInterrupted``.

        Idempotent. From another thread than the one that reads it cancels.
        """
        if self._state.phase in ("new", "open"):
            self._state.phase = "closed"
        close = getattr(self._state.chunks, "close", None)
        if close is not None:
            try:
                close()
            except ValueError:  # the generator is running, in the thread that reads
                self.cancel()

    def cancel(self) -> None:
        """End the stream from any thread: its reader wakes at once with ``StreamInterrupted`` (``cancelled``)."""
        if self._state.cancel is not None:
            self._state.cancel()

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        # A copy in another process shows what came; the stream stays here.
        state = self._state
        phase = state.phase if state.phase in ("complete", "interrupted") else "closed"
        return _restored, (state.turn, state.journey, phase)

    def __repr__(self) -> str:
        state = self._state
        return (
            f"Reply(route={self.route!r}, state={state.phase!r}, chunks={state.turn.chunks}, "
            f"characters={len(self.text)}, finish_reason={self.finish_reason!r})"
        )


def _restored(turn: Turn, journey: Journey, phase: str) -> Reply:
    state = _State(iter(()), journey, phase=phase)
    state.turn = turn
    return Reply._of(state)
