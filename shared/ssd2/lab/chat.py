"""Client of an OpenAI-compatible chat endpoint: POST …/chat/completions.

The key travels in the Authorization header only, and is removed from every reply and error of the endpoint.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import random
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ssd2.errors import InvalidParameter
from ssd2.lab.errors import JudgeRefused, JudgeReplyInvalid, JudgeUnavailable

if TYPE_CHECKING:
    import httpx2

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Status codes that are retried."""
LONGEST_BACKOFF_S = 60.0
LONGEST_WAIT_S = 300.0
"""Longest Retry-After that is waited for; beyond it, the run ends and can be resumed."""
_PATH = "/chat/completions"


@dataclass(frozen=True)
class Endpoint:
    """Endpoint, and the limits of a request to it.

    Attributes:
        url: base address ("https://api.openai.com/v1"), or the whole one with /chat/completions.
        model: name of the model there.
        limit_field: field that limits the tokens of a reply; some models expect "max_completion_tokens".
        timeout_s: of one attempt.
        attempts: of one question.
        backoff_s: wait after the first failed attempt; doubles with each, up to `LONGEST_BACKOFF_S`, with a jitter
            of ±50%. The endpoint's Retry-After has precedence.

    Raises:
        InvalidParameter: if the URL is invalid, or holds a password or a key.
    """

    url: str
    model: str
    limit_field: str = "max_tokens"
    timeout_s: float = 120.0
    attempts: int = 6
    backoff_s: float = 1.0

    def __post_init__(self) -> None:
        url = _parse(self.url)
        if url.userinfo or url.query or url.fragment:
            raise InvalidParameter(
                "the judge's address contains a password, a ? or a #; leave it out and set the key in the environment",
                parameter="endpoint",
            )
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidParameter(
                f"the judge's address {self.url!r} is not a URL; use one such as https://api.openai.com/v1",
                parameter="endpoint",
            )

    @property
    def completions_url(self) -> str:
        """URL that questions are posted to."""
        return self.url.rstrip("/").removesuffix(_PATH) + _PATH

    @property
    def host(self) -> str:
        """Host that receives them."""
        return str(_parse(self.url).host)

    @property
    def is_private(self) -> bool:
        """True if the connection is encrypted, or stays on this machine."""
        return _parse(self.url).scheme == "https" or _is_loopback(self.host)


@dataclass(frozen=True)
class Reply:
    """Reply of the model.

    Attributes:
        text: "" if it is empty.
        prompt_tokens: as counted by the endpoint; None if it does not report them.
        completion_tokens: likewise.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class _Failure:
    """Failed attempt that may be retried; `wait_s` is the endpoint's Retry-After."""

    reason: str
    wait_s: float | None = None


class ChatClient:
    """Client of one endpoint; may be used by many tasks at once."""

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            endpoint: to ask.
            key: API key; None for an endpoint without keys.

        Raises:
            InvalidParameter: if the key is malformed or would travel unencrypted, or the HTTP package is missing.
        """
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise InvalidParameter(
                "the judge's key in the environment is not a single printable word; set it again", parameter="key_env"
            )
        if key and not endpoint.is_private:
            raise InvalidParameter(
                "the judge's key would travel unencrypted; use an https:// address or a tunnel to localhost, or name "
                "an empty variable if the judge takes no key",
                parameter="key_env",
            )
        self._endpoint, self._key = endpoint, key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = _httpx2().AsyncClient(
            headers=headers,
            timeout=endpoint.timeout_s,
            follow_redirects=False,
            trust_env=not _is_loopback(endpoint.host),  # a proxy would read what is to stay on this machine
        )
        self._has_answered = False

    async def __aenter__(self) -> Self:
        """Return this client; its connections are closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, content: str, *, temperature: float, max_tokens: int) -> Reply:
        """Ask one question, retrying if the endpoint is busy or the connection breaks.

        Args:
            content: of the user message.
            temperature: of the model; 0 is greedy.
            max_tokens: longest reply.

        Raises:
            JudgeRefused: if a retry would not help.
            JudgeUnavailable: after the last attempt.
            JudgeReplyInvalid: if the reply is not a chat completion.
        """
        body = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": temperature,
            self._endpoint.limit_field: max_tokens,
        }
        attempt = 1
        while isinstance(outcome := await self._attempt(body), _Failure):
            wait_s = self._backoff(attempt) if outcome.wait_s is None else outcome.wait_s
            if attempt == self._endpoint.attempts or wait_s > LONGEST_WAIT_S:
                raise JudgeUnavailable(
                    f"{self._endpoint.host} does not answer ({outcome.reason}); run the same command later: "
                    "it resumes with what is missing"
                )
            await asyncio.sleep(wait_s)
            attempt += 1
        return outcome

    def _backoff(self, attempt: int) -> float:
        longest = min(LONGEST_BACKOFF_S, self._endpoint.backoff_s * 2.0 ** (attempt - 1))
        return longest * random.uniform(0.5, 1.5)

    async def _attempt(self, body: dict[str, Any]) -> Reply | _Failure:
        http = _httpx2()
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):  # of the whole attempt, not of each read
                response = await self._http.post(self._endpoint.completions_url, json=body)
        except (TimeoutError, http.TimeoutException):
            return _Failure(f"no answer within {self._endpoint.timeout_s:g} s")
        except http.ConnectError as error:
            if self._has_answered:
                return _Failure("no connection")
            raise JudgeUnavailable(
                f"nothing answers at {self._endpoint.url} ({self._readable(str(error))}); check the address",
                parameter="endpoint",
            ) from None
        except http.RequestError as error:  # TransportError, or DecodingError: a damaged compressed body
            return _Failure(f"the answer was incomplete: {type(error).__name__}")
        self._has_answered = True
        return self._reply(response) if response.status_code == 200 else self._failure(response)

    def _failure(self, response: httpx2.Response) -> _Failure:
        """Return a failure that may be retried, or raise."""
        status, message = response.status_code, self._message(response)
        if status in RETRIED and "insufficient_quota" not in message:
            return _Failure(f"status {status}: {message}", _retry_after_s(response.headers.get("retry-after")))
        if status in (401, 403):
            advice = "it refuses the key; set another" if self._key else "it requires a key; set one"
            raise JudgeRefused(f"{self._endpoint.host}: status {status}: {message}; {advice}", parameter="key_env")
        if status == 404:
            raise JudgeRefused(
                f"{self._endpoint.completions_url} has no model {self._endpoint.model!r}, or is not a chat endpoint: "
                f"{message}; check the model's name and the address",
                parameter="endpoint",
            )
        raise JudgeRefused(
            f"{self._endpoint.host}: status {status}: {message}; check the address, the model's name and the items",
            parameter="endpoint",
        )

    def _message(self, response: httpx2.Response) -> str:
        """Return the endpoint's reason for refusing, in one line."""
        try:
            error = response.json()["error"]
            said = f"{error['message']} [{error.get('code')}]" if isinstance(error, dict) else str(error)
        except (ValueError, KeyError, TypeError):
            said = response.text
        return self._readable(said)[:300] or "no reason given"

    def _reply(self, response: httpx2.Response) -> Reply:
        try:
            answer = response.json()
            said, usage = answer["choices"][0]["message"]["content"], answer.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            if not isinstance(said, str | None) or not all(isinstance(count, int | None) for count in counts):
                raise TypeError
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise JudgeReplyInvalid(
                f"{self._endpoint.completions_url} sent something other than a chat completion: "
                f"{self._readable(response.text)[:200]}; check the address",
                parameter="endpoint",
            ) from error
        return Reply(self._without_key(said or ""), *counts)

    def _readable(self, text: str) -> str:
        """Return the text as one line, without control characters and without the key."""
        return "".join(c if c.isprintable() else " " for c in self._without_key(text)).strip()

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _httpx2() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise InvalidParameter(
            "asking a judge requires the httpx2 package; install it with: pip install 'slingshot[train]'"
        ) from error
    return httpx2


def _parse(url: str) -> httpx2.URL:
    http = _httpx2()
    try:
        parsed: httpx2.URL = http.URL(url)
    except http.InvalidURL as error:
        raise InvalidParameter(
            "the judge's address is not a URL; use one such as https://api.openai.com/v1", parameter="endpoint"
        ) from error
    return parsed


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after_s(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        return max(0.0, float(int(value)))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
