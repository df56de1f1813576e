"""Makes a request of a prompt, parts or a history, and its REST body for each service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypedDict, Union
from urllib.parse import quote

from gemini_sync.config import DEFAULT_MODEL, Timeouts
from gemini_sync.errors import ConfigError
from gemini_sync.messages.rest_json import Content, GenerationConfig, Part, SafetySetting, Tool, ToolConfig, copy_json

if TYPE_CHECKING:
    from typing_extensions import Unpack

# The services that a body can be made for.
GEMINI_API = "gemini_api"
CODE_ASSIST = "code_assist"

Contents = Union[str, Part, Content, Sequence[Union[str, Part, Content]]]
SystemInstruction = Union[str, Part, Content, Sequence[Union[str, Part]]]


class Request(NamedTuple):
    """One request, checked and copied: changing the caller's dicts afterwards changes nothing here.

    Attributes:
        model: the model's resource name, such as ``"models/gemini-3.5-flash"``.
        fields: the fields of a GenerateContentRequest (REST names).
    """

    model: str
    fields: Mapping[str, Any]

    @property
    def path(self) -> str:
        """The model as it stands in a URL path; quoted, because a name could otherwise rewrite the URL."""
        collection, name = self.model.split("/")
        return f"{collection}/{quote(name, safe='')}"


def body_for(request: Request, service: str) -> dict[str, Any]:
    """The GenerateContentRequest for one service. Whatever differs from service to service is changed here."""
    return dict(request.fields)


class RequestOptions(TypedDict, total=False):
    """What a request can hold besides its contents and its model; None means that an option is not given."""

    system_instruction: Optional[SystemInstruction]
    tools: Optional[Sequence[Tool]]
    tool_config: Optional[ToolConfig]
    safety_settings: Optional[Sequence[SafetySetting]]
    generation_config: Optional[GenerationConfig]
    cached_content: Optional[str]
    labels: Optional[Mapping[str, str]]


class CallOptions(RequestOptions, total=False):
    """What ``GeminiDualAdapter.stream`` and ``generate`` take besides the contents."""

    model: Optional[str]
    timeouts: Optional[Timeouts]


# The REST field of each option, and the type of its value.
_FIELDS: Mapping[str, tuple[str, Any, str]] = {
    "system_instruction": ("systemInstruction", object, ""),
    "tools": ("tools", Sequence, "a list of dicts with REST field names"),
    "tool_config": ("toolConfig", Mapping, "a dict with REST field names"),
    "safety_settings": ("safetySettings", Sequence, "a list of dicts with REST field names"),
    "generation_config": ("generationConfig", Mapping, "a dict with REST field names"),
    "cached_content": ("cachedContent", str, "a name such as 'cachedContents/123'"),
    "labels": ("labels", Mapping, "a dict"),
}


def build(contents: Contents, *, model: str = DEFAULT_MODEL, **options: Unpack[RequestOptions]) -> Request:
    """The request for ``contents``.

    Raises:
        ConfigError: something is empty, of the wrong type, or cannot be written as JSON.
        TypeError: there is no such option.
    """
    model = check_model(model)
    fields: dict[str, Any] = {"contents": copy_json(_turns(contents), "contents")}
    value: Any
    for option, value in options.items():
        if option not in _FIELDS:
            raise TypeError(f"There is no option {option!r}. The options of a request are: {', '.join(_FIELDS)}.")
        if value is None:
            continue
        name, kind, expected = _FIELDS[option]
        if name == "systemInstruction":
            value = _system(value)
        elif not isinstance(value, kind) or (kind is Sequence and isinstance(value, (str, bytes))):
            raise ConfigError(f"{name} must be {expected}, not {type(value).__name__}.")
        fields[name] = copy_json(list(value) if kind is Sequence else value, name)
    return Request(model, fields)


def check_model(model: object) -> str:
    """The resource name of ``model``: ``models/…`` unless it says ``tunedModels/…``.

    Raises:
        ConfigError: it is no model name (another type, empty, white space, a path).
    """
    if not isinstance(model, str):
        raise ConfigError(f"model must be a string such as {DEFAULT_MODEL!r}, not {type(model).__name__}.")
    collection, _, name = model.rpartition("/")
    printable = name.isprintable() and not any(character.isspace() for character in name)
    if collection not in ("", "models", "tunedModels") or name in ("", ".", "..") or not printable:
        raise ConfigError(
            f"model must be a name such as {DEFAULT_MODEL!r}, perhaps after 'models/' or 'tunedModels/', not {model!r}."
        )
    return f"{collection or 'models'}/{name}"


def _turns(contents: Any) -> list[Any]:
    """``contents`` as a list of Content; neighbouring strings and parts make one user turn."""
    items = contents if isinstance(contents, (list, tuple)) else [contents]
    if not items:
        raise ConfigError("contents is empty. Give a prompt: a string, a part, a content, or a list of these.")
    turns: list[dict[str, Any]] = []
    loose: list[Any] = []
    for item in items:
        if isinstance(item, Mapping) and ("parts" in item or "role" in item):
            _flush(loose, turns)
            turns.append({**item, "parts": _parts(item.get("parts"), "a Content's parts")})
        else:
            loose.append(_part(item, "contents"))
    _flush(loose, turns)
    if all(_is_blank(part) for turn in turns for part in turn["parts"]):
        raise ConfigError("The prompt is empty: there is no text and no data in it.")
    return turns


def _flush(loose: list[Any], turns: list[dict[str, Any]]) -> None:
    if loose:
        turns.append({"role": "user", "parts": list(loose)})
        loose.clear()


def _part(item: Any, where: str) -> Any:
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, Mapping):
        if not item:
            raise ConfigError(f"An empty dict in {where} is no part. Give it one kind of data, such as 'text'.")
        return dict(item)
    raise ConfigError(
        f"{where} must be a string, a part or content dict with REST field names, or a list of these, "
        f"not {type(item).__name__}."
    )


def _parts(parts: Any, where: str) -> list[Any]:
    if not isinstance(parts, (list, tuple)) or not parts:
        came = "an empty one" if isinstance(parts, (list, tuple)) else type(parts).__name__
        raise ConfigError(f"{where} must be a list of at least one part, not {came}.")
    return [_part(part, where) for part in parts]


def _is_blank(part: Mapping[str, Any]) -> bool:
    text = part.get("text", "")
    return isinstance(text, str) and not text.strip() and not (set(part) - {"text", "thought"})


def _system(instruction: Any) -> dict[str, Any]:
    if isinstance(instruction, Mapping) and "parts" in instruction:
        return {**instruction, "parts": _parts(instruction["parts"], "system_instruction's parts")}
    items: Iterable[Any] = instruction if isinstance(instruction, (list, tuple)) else [instruction]
    return {"parts": _parts([_part(item, "system_instruction") for item in items], "system_instruction")}
