"""The reply a caller holds: one stream as text or as chunks, and all that has come so far."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator
from typing import Any, Optional

from gemini_sync.errors import Attempt, GeminiSyncError, StreamInterrupted
from gemini_sync.messages.call_record import CallRecord
from gemini_sync.messages.finish_reasons import verdict
from gemini_sync.messages.response import Blob, Chunk, FunctionCall, Usage, function_calls, inline_data, usage
from gemini_sync.messages.turn import Turn


class _Phase(enum.Enum):
    NEW = "new"
    OPEN = "open"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    CLOSED = "closed"


class _State:
    """State shared by a Reply and its generators.

    The generators must not refer to the Reply, or dropping it would not close them.
    """

    def __init__(
        self,
        chunks: Iterator[Chunk],
        record: CallRecord,
        cancel: Optional[Callable[[], None]] = None,
        require_finish: bool = True,
        secrets: Collection[str] = (),
        phase: _Phase = _Phase.NEW,
    ) -> None:
        self.chunks, self.record, self.cancel, self.require_finish = chunks, record, cancel, require_finish
        self.secrets = secrets
        self.turn = Turn()
        self.phase = phase

    def begin(self) -> None:
        """Iterating begins, or goes on in another way."""
        if self.phase is _Phase.CLOSED:
            raise self.closed()
        if self.phase is _Phase.INTERRUPTED:
            raise self.interrupted("the stream is over, it was interrupted before")
        if self.phase is _Phase.NEW:
            self.phase = _Phase.OPEN

    def end(self) -> None:
        """The chunks ended cleanly: decide whether the answer is complete."""
        if self.phase is _Phase.CLOSED:
            raise self.closed()
        if self.require_finish and self.turn.finish_reason is None and self.turn.block_reason is None:
            self.phase = _Phase.INTERRUPTED
            self.record.mark_interrupted("interrupted")
            raise self.interrupted("the connection ended without a finish reason")
        self.phase = _Phase.COMPLETE

    def fail(self, error: BaseException) -> None:
        """The chunks ended with ``error``: raises what the caller sees instead, if that is another error."""
        if self.phase is _Phase.CLOSED and isinstance(error, ValueError):  # another thread runs the generator: close()
            raise self.closed() from error
        self.phase = _Phase.INTERRUPTED
        if isinstance(error, StreamInterrupted):
            self.record.label(error).partial = Reply._of(self)
        elif isinstance(error, GeminiSyncError) and self.turn.chunks:
            raise self.interrupted(str(error), error) from error

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
        return self.record.label(error)


def _texts(state: _State) -> Iterator[str]:
    state.begin()
    add = state.turn.add
    try:
        for chunk in state.chunks:
            text = add(chunk)
            del chunk  # while this generator waits, it must not keep a large chunk alive
            if text:
                yield text
    except GeneratorExit:
        raise  # this way of iterating was dropped; the reply may go on another way
    except BaseException as exc:
        state.fail(exc)
        raise
    state.end()
    error = verdict(state.turn, Reply._of(state), state.secrets)
    if error is not None:
        try:
            raise state.record.label(error)
        finally:
            del error  # or the error and this frame would keep each other alive


def _chunks(state: _State) -> Iterator[Chunk]:
    state.begin()
    add = state.turn.add
    try:
        for chunk in state.chunks:
            add(chunk)
            yield chunk
            del chunk
    except GeneratorExit:
        raise
    except BaseException as exc:
        state.fail(exc)
        raise
    state.end()


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
        record: Optional[CallRecord] = None,
        cancel: Optional[Callable[[], None]] = None,
        require_finish: bool = True,
        secrets: Collection[str] = (),
    ) -> None:
        self._state = _State(chunks, record or CallRecord(), cancel, require_finish, secrets)
        self._texts = _texts(self._state)

    @classmethod
    def _of(cls, state: _State) -> Reply:
        """A reply that shows what ``state`` holds and has no stream any more."""
        reply = cls.__new__(cls)
        reply._state, reply._texts = state, iter(())
        return reply

    def __iter__(self) -> Iterator[str]:
        phase = self._state.phase
        # A generator that was dropped, or has raised, would just end as if the answer were complete.
        dropped = phase is _Phase.OPEN and getattr(self._texts, "gi_frame", None) is None
        if dropped or phase in (_Phase.INTERRUPTED, _Phase.CLOSED):
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
        return self._state.record.route

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What was tried for this answer, in order."""
        return tuple(self._state.record.attempts)

    def close(self) -> None:
        """Release the connection; an unread rest is given up: whoever goes on iterating gets ``StreamInterrupted``.

        Idempotent. From another thread than the one that reads it cancels.
        """
        if self._state.phase in (_Phase.NEW, _Phase.OPEN):
            self._state.phase = _Phase.CLOSED
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
        phase = state.phase if state.phase in (_Phase.COMPLETE, _Phase.INTERRUPTED) else _Phase.CLOSED
        return _restored, (state.turn, state.record, phase)

    def __repr__(self) -> str:
        state = self._state
        return (
            f"Reply(route={self.route!r}, state={state.phase.value!r}, chunks={state.turn.chunks}, "
            f"characters={len(self.text)}, finish_reason={self.finish_reason!r})"
        )


def _restored(turn: Turn, record: CallRecord, phase: _Phase) -> Reply:
    state = _State(iter(()), record, phase=phase)
    state.turn = turn
    return Reply._of(state)
