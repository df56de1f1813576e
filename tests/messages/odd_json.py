"""Hypothesis strategies for JSON that is nearly right: known fields, but any value in any place."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ODD = _LEAVES | st.sampled_from(
    ["", "²", "9" * 400, 10**400, [], {}, [None], [[]], [{}], {"error": {}}, [5], ["x"], {"text": "x"}, -1, 0, 1, True]
)


def objects(**fields: Any) -> Any:
    """Dicts with some of ``fields``. A value comes from the field's strategy, or is anything else."""
    return st.fixed_dictionaries({}, optional={name: ODD | shape for name, shape in fields.items()})


def arrays(items: Any) -> Any:
    """Short lists of ``items`` and of any other values."""
    return st.lists(items | ODD, max_size=3)


_TEXT = st.sampled_from(["", "a", "b", " "])
PARTS = arrays(
    objects(
        text=_TEXT,
        thought=st.booleans(),
        thoughtSignature=st.just("c2ln"),
        functionCall=objects(name=_TEXT, args=objects(x=ODD), id=_TEXT),
        inlineData=objects(mimeType=_TEXT, data=st.sampled_from(["", "aGk=", "aGk", "-_-_", "a", "é", "a b"])),
        executableCode=objects(code=_TEXT),
        unknownKind=ODD,
    )
)
# Nearly a GenerateContentResponse.
RESPONSES = objects(
    candidates=arrays(
        objects(
            content=objects(parts=PARTS, role=_TEXT),
            index=st.sampled_from([0, 1]),
            finishReason=st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", "OTHER", "NEW"]),
            finishMessage=_TEXT,
            groundingMetadata=objects(x=ODD),
            citationMetadata=objects(citationSources=arrays(ODD), citations=arrays(ODD)),
            safetyRatings=arrays(ODD),
        )
    ),
    usageMetadata=objects(promptTokenCount=ODD, thoughtsTokenCount=ODD, totalTokenCount=ODD),
    promptFeedback=objects(blockReason=_TEXT, blockReasonMessage=_TEXT),
    modelVersion=_TEXT,
    responseId=_TEXT,
    traceId=_TEXT,
)
