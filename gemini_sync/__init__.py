"""Stream Gemini from plain synchronous Python: two ways to authenticate, a fallback that is sticky and never silent."""

from gemini_sync.adapter import GeminiDualAdapter
from gemini_sync.auth.credentials import TokenSource, get_access_token
from gemini_sync.config import DEFAULT_MODEL, Endpoints, OAuthClient, Retry, Timeouts
from gemini_sync.errors import (
    ApiError,
    Attempt,
    AuthError,
    BlockedError,
    ConfigError,
    CredentialsError,
    DeadlineExceeded,
    EmptyResponseError,
    FinishReasonError,
    GeminiSyncError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaError,
    RefreshError,
    ServerError,
    StreamInterrupted,
    TransportError,
)
from gemini_sync.functions import stream_gemini_api_key, stream_gemini_oauth
from gemini_sync.messages.chunks import Chunk
from gemini_sync.messages.parts import Blob, FunctionCall
from gemini_sync.messages.reply import Reply
from gemini_sync.messages.rest_json import Content, GenerationConfig, Part, SafetySetting, Tool, ToolConfig
from gemini_sync.messages.usage import Usage
from gemini_sync.routing.events import FallbackEvent, notify_stderr
from gemini_sync.routing.policy import Decision, Explanation, decide, explain
from gemini_sync.routing.snapshot import RouteStatus
from gemini_sync.services.code_assist import CODE_ASSIST_MODELS, CodeAssist
from gemini_sync.services.project import load_code_assist
from gemini_sync.version import VERSION as __version__

__all__ = [
    "CODE_ASSIST_MODELS",
    "DEFAULT_MODEL",
    "ApiError",
    "Attempt",
    "AuthError",
    "Blob",
    "BlockedError",
    "Chunk",
    "CodeAssist",
    "ConfigError",
    "Content",
    "CredentialsError",
    "DeadlineExceeded",
    "Decision",
    "EmptyResponseError",
    "Endpoints",
    "Explanation",
    "FallbackEvent",
    "FinishReasonError",
    "FunctionCall",
    "GeminiDualAdapter",
    "GeminiSyncError",
    "GenerationConfig",
    "InvalidRequestError",
    "NotFoundError",
    "OAuthClient",
    "Part",
    "PermissionDeniedError",
    "ProtocolError",
    "QuotaError",
    "RefreshError",
    "Reply",
    "Retry",
    "RouteStatus",
    "SafetySetting",
    "ServerError",
    "StreamInterrupted",
    "Timeouts",
    "TokenSource",
    "Tool",
    "ToolConfig",
    "TransportError",
    "Usage",
    "__version__",
    "decide",
    "explain",
    "get_access_token",
    "load_code_assist",
    "notify_stderr",
    "stream_gemini_api_key",
    "stream_gemini_oauth",
]
