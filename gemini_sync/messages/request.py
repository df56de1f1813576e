"""How a prompt, parts or a history become a request, and the REST body of a request for each service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypedDict, Union
from urllib.parse import quote

from gemini_sync.config import DEFAULT_MODEL, Timeouts
from gemini_sync.errors import BOUND_TO_OTHER_SERVICE, ConfigError
from gemini_sync.messages.rest_json import (
    Content,
    GenerationConfig,
    Part,
    SafetySetting,
    Tool,
    ToolConfig,
    copy_json,
    dict_of,
    list_of,
    text_of,
)
from gemini_sync.messages.signatures import Signatures

if TYPE_CHECKING:
    from typing_extensions import Unpack

# The services that a body can be made for.
GEMINI_API = "gemini_api"
CODE_ASSIST = "code_assist"
_TITLES = {GEMINI_API: "The Gemini API", CODE_ASSIST: "Code Assist"}

Contents = Union[str, Part, Content, Sequence[Union[str, Part, Content]]]
SystemInstruction = Union[str, Part, Content, Sequence[Union[str, Part]]]


class Request(NamedTuple):
    """One request, checked and copied. If the caller changes a dict afterwards, nothing changes here.

    Attributes:
        model: the model's resource name, such as ``"models/gemini-3.8-flash"``.
        fields: the fields of a GenerateContentRequest (REST names).
    """

    model: str
    fields: Mapping[str, Any]

    @property
    def path(self) -> str:
        """The model for a URL path. It is quoted, because a name could otherwise change the URL."""
        return quote(self.model)


def body_for(request: Request, service: str, signatures: Optional[Signatures] = None) -> dict[str, Any]:
    """The GenerateContentRequest for one service. All that differs between the services is changed here.

    Args:
        signatures: which service made which thought signature. The placeholder replaces those of another service.

    Raises:
        ConfigError: a file or a cached content belongs to another service (reason ``"BOUND_TO_OTHER_SERVICE"``).
    """
    fields = dict(request.fields)
    kinds = {kind for content in fields["contents"] for part in content["parts"] for kind in part}
    if signatures is not None and "thoughtSignature" in kinds:
        fields["contents"] = signatures.fitted(fields["contents"], service)
    if not kinds.isdisjoint(_FILE_KINDS) or "systemInstruction" in fields:
        for path, uri in _file_uris(fields):
            _check_file(path, uri, service)
    if "cachedContent" in fields:
        _check_cache(fields["cachedContent"], service)
    return fields


# -- what belongs to another service
#
# Files: https://ai.google.dev/gemini-api/docs/files. Code Assist has neither files nor caches of its own, so that GC
# sends inlineData alone. Any https URL that is not listed here belongs to no service.

_FILE_KINDS = {"fileData", "functionResponse"}  # the kinds of parts that can name files
_GEMINI_FILE = re.compile(r"(https?://generativelanguage[\w.-]*\.googleapis\.com/([\w.-]+/)*)?files/", re.IGNORECASE)
_GEMINI_CACHE = re.compile("cachedContents/")
_VERTEX_CACHE = re.compile(r"(.*/)?projects/.+/cachedContents/")
_BY_KEY = "make an adapter that has the API key alone for it"


def _file_uris(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The path and the value of each ``fileUri`` in a request."""
    contents = [(f"contents[{index}]", content) for index, content in enumerate(fields["contents"])]
    lists = [(f"{path}.parts", content["parts"]) for path, content in contents]
    lists.append(("systemInstruction.parts", dict_of(fields.get("systemInstruction")).get("parts")))
    for path, parts in lists:  # it grows, because the result of a function can have parts as well
        for index, part in enumerate(list_of(parts)):
            uri = text_of(dict_of(dict_of(part).get("fileData")).get("fileUri"))
            if uri is not None:
                yield f"{path}[{index}].fileData.fileUri", uri
            result = dict_of(dict_of(part).get("functionResponse"))
            if "parts" in result:
                lists.append((f"{path}[{index}].functionResponse.parts", result["parts"]))


def _check_file(path: str, uri: str, service: str) -> None:
    if service != CODE_ASSIST:
        return  # the Gemini API reads files of Cloud Storage that were registered
    advice = f"Give the data inline (inlineData), or {_BY_KEY}"
    if _GEMINI_FILE.match(uri):
        raise _bound(path, "a file of the Gemini API", service, advice)
    if uri.lower().startswith("gs://"):
        owner = "a file of Cloud Storage, for Vertex AI or, if it is registered there, for the Gemini API"
        raise _bound(path, owner, service, advice)


def _check_cache(name: str, service: str) -> None:
    advice = "Send what it holds with the request"
    if _VERTEX_CACHE.match(name):
        raise _bound("cachedContent", "a cached content of Vertex AI", service, advice)
    if service == CODE_ASSIST and _GEMINI_CACHE.match(name):
        raise _bound("cachedContent", "a cached content of the Gemini API", service, f"{advice}, or {_BY_KEY}")


def _bound(path: str, what: str, service: str, advice: str) -> ConfigError:
    why = f"{path} is {what}. {_TITLES[service]} cannot use it, so nothing was sent. {advice}."
    return ConfigError(why, reason=BOUND_TO_OTHER_SERVICE)


# -- how a request is made


class RequestOptions(TypedDict, total=False):
    """What a request can hold besides its contents and its model. None means that an option is not given."""

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


# The REST field of each option, the type of its value, and how messages describe that type.
_FIELDS: Mapping[str, tuple[str, Any, str]] = {
    "system_instruction": ("systemInstruction", Mapping, "a dict with REST field names"),
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
        ConfigError: something is empty, has the wrong type, or cannot be written as JSON.
        TypeError: there is no such option.
    """
    model = check_model(model)
    fields = {"contents": copy_json(_turns(contents), "contents")}
    value: Any
    for option, value in options.items():
        if option not in _FIELDS:
            raise TypeError(f"There is no option {option!r}. The options of a request are: {', '.join(_FIELDS)}.")
        if value is None:
            continue
        name, kind, expected = _FIELDS[option]
        if option == "system_instruction":
            value = _system(value)
        if not isinstance(value, kind) or (kind is Sequence and isinstance(value, (str, bytes))):
            raise ConfigError(f"{name} must be {expected}, not {type(value).__name__}.")
        fields[name] = copy_json(list(value) if kind is Sequence else value, name)
    return Request(model, fields)


def check_model(model: object) -> str:
    """The resource name of ``model``. It begins with ``models/`` unless ``model`` begins with ``tunedModels/``.

    Raises:
        ConfigError: it is no model name. It has another type, is empty, or holds white space or a path.
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
    """``contents`` as a list of Content. Neighbouring strings and parts make one user turn."""
    turns: list[Any] = []
    user_parts: list[Any] = []  # of the last turn, if more may join it
    for item in _listed(contents):
        if _is_content(item):
            turns.append(_content(item, "a Content's parts"))
            user_parts = []
        else:
            user_parts.append(_part(item, "contents"))
            if len(user_parts) == 1:
                turns.append({"role": "user", "parts": user_parts})
    if not turns:
        raise ConfigError("contents is empty. Give a prompt: a string, a part, a content, or a list of these.")
    if all(_is_blank(part) for turn in turns for part in turn["parts"]):
        raise ConfigError("The prompt is empty: there is no text and no data in it.")
    return turns


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _is_content(item: Any) -> bool:
    return isinstance(item, Mapping) and ("parts" in item or "role" in item)


def _content(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    parts = item.get("parts")
    if not isinstance(parts, (list, tuple)) or not parts:
        came = "an empty one" if isinstance(parts, (list, tuple)) else type(parts).__name__
        raise ConfigError(f"{where} must be a list of at least one part, not {came}.")
    return {**item, "parts": [_part(part, where) for part in parts]}


def _system(instruction: Any) -> dict[str, Any]:
    if _is_content(instruction):
        return _content(instruction, "system_instruction's parts")
    return _content({"parts": _listed(instruction)}, "system_instruction")


def _part(item: Any, where: str) -> Mapping[str, Any]:
    if isinstance(item, str):
        return {"text": item}
    if not isinstance(item, Mapping):
        raise ConfigError(
            f"{where} must be a string, a part or content dict with REST field names, or a list of these, "
            f"not {type(item).__name__}."
        )
    if not item:
        raise ConfigError(f"An empty dict in {where} is no part. Give it one kind of data, such as 'text'.")
    return item


def _is_blank(part: Mapping[str, Any]) -> bool:
    text = part.get("text", "")
    return isinstance(text, str) and not text.strip() and not (set(part) - {"text", "thought"})
