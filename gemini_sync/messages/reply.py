"""The reply that a caller holds: one stream as text or as chunks, and all that has come so far."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from gemini_sync.errors import Attempt, GeminiSyncError, StreamInterrupted
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.parts import Blob, FunctionCall, function_calls, inline_data
from gemini_sync.messages.reply_content import ReplyContent
from gemini_sync.messages.reply_errors import verdict
from gemini_sync.messages.usage import Usage, usage
from gemini_sync.redaction import redacted_name


class _Phase(enum.Enum):
    NEW = "new"
    OPEN = "open"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    CLOSED = "closed"


@dataclass(repr=False, eq=False)
class _State:
    """State shared by a Reply and its generators.

    The generators must not refer to the Reply, or dropping it would not close them.
    """

    chunks: Iterator[Chunk]
    record: CallRecord
    cancel: Optional[Callable[[], None]] = None
    require_finish: bool = True
    secrets: Collection[str] = ()
    content: ReplyContent = field(default_factory=ReplyContent)
    phase: _Phase = _Phase.NEW

    def begin(self) -> None:
        """Begin to iterate, or go on in the other way."""
        if self.phase is _Phase.CLOSED:
            raise self.closed()
        if self.phase is _Phase.INTERRUPTED:
            raise self.interrupted("the stream is over, it was interrupted before")
        if self.phase is _Phase.NEW:
            self.phase = _Phase.OPEN

    def end(self) -> None:
        """The chunks ended cleanly. Decide whether the answer is complete."""
        if self.phase is _Phase.CLOSED:
            raise self.closed()
        if self.require_finish and self.content.finish_reason is None and self.content.block_reason is None:
            self.phase = _Phase.INTERRUPTED
            self.record.mark_interrupted("interrupted")
            raise self.interrupted("the connection ended without a finish reason")
        self.phase = _Phase.COMPLETE

    def fail(self, error: BaseException) -> None:
        """The chunks ended with ``error``. Raises another error if the caller must see that one instead."""
        if self.phase is _Phase.CLOSED and isinstance(error, ValueError):  # another thread closes the generator
            raise self.closed() from error
        self.phase = _Phase.INTERRUPTED
        if isinstance(error, StreamInterrupted):
            self.record.label(error).partial = Reply._of(self)
        elif isinstance(error, GeminiSyncError) and self.content.chunks:
            raise self.interrupted(str(error), error) from error

    def closed(self) -> StreamInterrupted:
        error = self.interrupted("the reply was closed")
        error.cancelled = True
        return error

    def interrupted(self, why: str, cause: Optional[GeminiSyncError] = None) -> StreamInterrupted:
        error = StreamInterrupted(
            f"The answer was interrupted after {self.content.chunks} chunks: {why.rstrip('.')}. "
            "What came is in .partial; nothing was sent again.",
            partial=Reply._of(self),
        )
        if cause is not None:
            for name in ("code", "status", "reason", "details", "retry_after", "link", "trace_id"):
                setattr(error, name, getattr(cause, name))
        return self.record.label(error)


def _pieces(state: _State, *, of_text: bool) -> Iterator[Any]:
    """The texts of the stream, and the verdict on them at its end; or its chunks."""
    state.begin()
    state.record.shows_thoughts |= not of_text
    add = state.content.add
    try:
        for chunk in state.chunks:
            piece: Any = add(chunk)
            if not of_text:
                piece = chunk
            del chunk  # a suspended generator would keep a large chunk in memory
            if piece:
                yield piece
            del piece
    except GeneratorExit:
        raise  # the caller dropped this iterator, and may go on with another
    except BaseException as exc:
        state.fail(exc)
        raise
    state.end()
    error = verdict(state.content, Reply._of(state), state.secrets) if of_text else None
    if error is not None:
        try:
            raise state.record.label(error)
        finally:
            del error  # the error and this frame would keep each other in memory


class Reply(Iterator[str]):
    """One answer. Iterate it for its text as it arrives, or iterate ``chunks()`` for everything.

    Both ways share one stream. The properties are right at any moment, while the answer arrives and afterwards. One
    thread uses a reply. Only ``cancel()`` and ``close()`` may be called from any thread.

    If the call fails before the first chunk with content, iterating raises its error. If it fails later, iterating
    raises ``StreamInterrupted``, whose ``partial`` shows what came. At the end of a complete answer, iterating the text
    may raise ``BlockedError``, ``FinishReasonError`` or ``EmptyResponseError``.
    """

    def __init__(
        self,
        chunks: Iterator[Chunk],
        *,
        record: Optional[CallRecord] = None,
        cancel: Optional[Callable[[], None]] = None,
        require_finish: bool = True,
        secrets: Collection[str] = (),
    ) -> None:
        self._state = _State(chunks, record or CallRecord(), cancel, require_finish, secrets)
        self._texts = _pieces(self._state, of_text=True)

    @classmethod
    def _of(cls, state: _State) -> Reply:
        """A reply that shows what ``state`` holds, but has no stream."""
        reply = cls.__new__(cls)
        reply._state, reply._texts = state, iter(())
        return reply

    def __iter__(self) -> Iterator[str]:
        phase = self._state.phase
        # A generator that was dropped or has raised just ends, as if the answer were complete. So make another.
        dropped = phase is _Phase.OPEN and getattr(self._texts, "gi_frame", None) is None
        if dropped or phase in (_Phase.INTERRUPTED, _Phase.CLOSED):
            self._texts = _pieces(self._state, of_text=True)
        return self._texts

    def __next__(self) -> str:
        return next(iter(self))

    def chunks(self) -> Iterator[Chunk]:
        """The rest of the stream as ``Chunk`` objects. It raises failures and interruptions, but no finish reasons."""
        return _pieces(self._state, of_text=False)

    @property
    def text(self) -> str:
        """The answer text so far, without thoughts."""
        return self._state.content.text()

    @property
    def thoughts(self) -> str:
        """The thought summaries so far."""
        return self._state.content.text(thought=True)

    @property
    def content(self) -> dict[str, Any]:
        """The model's turn so far, a Content dict for the history: parts as they came, neighbouring texts joined."""
        return {"role": "model", "parts": self._state.content.parts}

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        """The calls so far. Raises ``ProtocolError`` if one of them is not a JSON object."""
        return function_calls(self._state.content.parts)

    @property
    def inline_data(self) -> tuple[Blob, ...]:
        """The inline data so far, decoded to bytes. Raises ``ProtocolError`` if some of it is not base64."""
        return inline_data(self._state.content.parts)

    @property
    def finish_reason(self) -> Optional[str]:
        """Why the model stopped, as the REST reference spells it: ``"STOP"``, ``"MAX_TOKENS"``, …; None before that."""
        return self._state.content.finish_reason

    @property
    def finish_message(self) -> Optional[str]:
        return self._state.content.finish_message

    @property
    def usage(self) -> Optional[Usage]:
        """The last token counts that came, or None."""
        return usage(self._state.content.usage_metadata)

    @property
    def model_version(self) -> Optional[str]:
        return self._state.content.model_version

    @property
    def response_id(self) -> Optional[str]:
        return self._state.content.response_id

    @property
    def route(self) -> Optional[str]:
        """The route that serves this answer, ``"oauth"`` or ``"api_key"``. None before the first chunk."""
        return self._state.record.route

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What was tried for this answer, in order."""
        return tuple(self._state.record.attempts)

    def close(self) -> None:
        """Release the connection, and give up what was not read.

        Iterating on raises ``StreamInterrupted``. A second ``close()`` does nothing. If another thread is reading, this
        cancels the call.
        """
        if self._state.phase in (_Phase.NEW, _Phase.OPEN):
            self._state.phase = _Phase.CLOSED
        close = getattr(self._state.chunks, "close", None)
        if close is not None:
            try:
                close()
            except ValueError:  # another thread runs the generator: it is reading
                self.cancel()

    def cancel(self) -> None:
        """End the stream from any thread. Its reader wakes at once with ``StreamInterrupted`` (``cancelled``)."""
        if self._state.cancel is not None:
            self._state.cancel()

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        # A copy in another process shows what came. The stream stays here.
        state = self._state
        phase = state.phase if state.phase in (_Phase.COMPLETE, _Phase.INTERRUPTED) else _Phase.CLOSED
        return _restored, (state.content, state.record, phase)

    def __repr__(self) -> str:
        state = self._state
        reason = self.finish_reason and redacted_name(self.finish_reason, state.secrets)
        return (
            f"Reply(route={self.route!r}, state={state.phase.value!r}, chunks={state.content.chunks}, "
            f"characters={len(self.text)}, finish_reason={reason!r})"
        )


def _restored(content: ReplyContent, record: CallRecord, phase: _Phase) -> Reply:
    return Reply._of(_State(iter(()), record, content=content, phase=phase))
