"""The command ``python -m gemini_sync.testing.emulator``."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
import urllib.parse
from pathlib import Path
from types import SimpleNamespace

import pytest

from gemini_sync.testing.emulator import __main__

COUNT = "/v1beta/models/m:countTokens"
BODY = b'{"contents": [{"parts": [{"text": "Why?"}]}]}'
TIMEOUT = 10


def test_main__serves_until_interrupted(monkeypatch, capsys, tmp_path):
    seen = []

    def interrupted(seconds):
        lines = capsys.readouterr().out.splitlines()
        exported = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
        origin = urllib.parse.urlsplit(exported["GOOGLE_GEMINI_BASE_URL"])
        with contextlib.closing(http.client.HTTPConnection(origin.netloc, timeout=TIMEOUT)) as client:
            client.request("POST", COUNT, BODY, {"x-goog-api-key": exported["GEMINI_API_KEY"]})
            seen.append((exported, client.getresponse().status))
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "time", SimpleNamespace(sleep=interrupted))
    path = tmp_path / "creds.json"
    assert __main__.main(["--credentials", str(path)]) == 0
    assert __main__.main([]) == 0
    assert [status for _, status in seen] == [200, 200]
    assert Path(seen[0][0]["GOOGLE_APPLICATION_CREDENTIALS"]) == path
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in seen[1][0]


def test_main__as_a_program():
    command = [sys.executable, "-m", "gemini_sync.testing.emulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        lines = iter(program.stdout.readline, "")
        assert any(line.startswith("# The token endpoint") for line in lines)
        program.send_signal(signal.SIGINT)
        assert program.wait(TIMEOUT) == 0


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_main__no_port(port, capsys):
    with pytest.raises(SystemExit) as caught:
        __main__.main(["--port", port])
    assert caught.value.code == 2
    assert "--port" in capsys.readouterr().err
