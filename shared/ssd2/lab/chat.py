"""Asks a chat model behind an OpenAI-compatible endpoint: POST …/chat/completions.

The key travels in the Authorization header and nowhere else: whatever the endpoint sends back is
searched for it before anybody reads it.
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

from ssd2.errors import InvalidParameter, JudgeRefused, JudgeReplyInvalid, JudgeUnavailable

if TYPE_CHECKING:
    import httpx2

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Status codes of what may go well a little later."""
LONGEST_BACKOFF_S = 60.0
LONGEST_WAIT_S = 300.0
"""An endpoint that asks for a longer wait is asked again in a later run."""
_PATH = "/chat/completions"


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask, and how patiently.

    Attributes:
        url: base address ("https://api.openai.com/v1"), or the whole one with /chat/completions.
        model: name of the model there.
        limit_field: name of the field with the most tokens of a reply; some models want "max_completion_tokens".
        timeout_s: for one attempt.
        attempts: for one question.
        backoff_s: wait after the first failed attempt; doubles with each, up to `LONGEST_BACKOFF_S`, and is
            drawn from half to one and a half of that. The endpoint's Retry-After goes before.

    Raises:
        InvalidParameter: if the address is none, or holds a password or a key.
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
            raise InvalidParameter("--endpoint is an address without password, ? and #; the key is read from --key-env")
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidParameter(f"--endpoint {self.url!r} is no address; give one like https://api.openai.com/v1")

    @property
    def completions_url(self) -> str:
        """Where questions go."""
        return self.url.rstrip("/").removesuffix(_PATH) + _PATH

    @property
    def host(self) -> str:
        """Who reads them."""
        return str(_parse(self.url).host)

    @property
    def is_private(self) -> bool:
        """Whether what is sent is encrypted, or does not leave this machine."""
        return _parse(self.url).scheme == "https" or _is_loopback(self.host)


@dataclass(frozen=True)
class Reply:
    """What the model said.

    Attributes:
        text: "" if it said nothing.
        prompt_tokens: as the endpoint counted; None if it does not say.
        completion_tokens: likewise.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class _Failure:
    """An attempt that may be made again; `wait_s` is the endpoint's wish."""

    reason: str
    wait_s: float | None = None


class ChatClient:
    """Asks one endpoint; safe to use from many tasks at once."""

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        """Prepare; nothing is sent yet.

        Args:
            endpoint: whom to ask.
            key: None for an endpoint that takes none.

        Raises:
            InvalidParameter: if the key is none, or would travel unencrypted, or the HTTP package is missing.
        """
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise InvalidParameter("the key in the environment is not a single printable word; set it again")
        if key and not endpoint.is_private:
            raise InvalidParameter(
                "the key would travel unencrypted; give an https:// endpoint, reach it over a tunnel to "
                "localhost, or name an empty variable with --key-env if it takes no key"
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
        """Use as `async with`: closes the connections at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, content: str, *, temperature: float, max_tokens: int) -> Reply:
        """Ask one question, again if the endpoint is busy or the connection breaks.

        Args:
            content: of the one user message.
            temperature: 0 is greedy.
            max_tokens: of the reply.

        Raises:
            JudgeRefused: if asking again would not help.
            JudgeUnavailable: after the last attempt.
            JudgeReplyInvalid: if what comes back is not a chat completion.
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
                    "it goes on with what is missing"
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
                f"nothing answers at {self._endpoint.url} ({self._readable(str(error))}); check --endpoint"
            ) from None
        except http.RequestError as error:  # TransportError, or DecodingError: a damaged compressed body
            return _Failure(f"no whole answer came: {type(error).__name__}")
        self._has_answered = True
        return self._reply(response) if response.status_code == 200 else self._failure(response)

    def _failure(self, response: httpx2.Response) -> _Failure:
        """What may be tried again; everything else is an error."""
        status, message = response.status_code, self._message(response)
        if status in RETRIED and "insufficient_quota" not in message:
            return _Failure(f"status {status}: {message}", _retry_after_s(response.headers.get("retry-after")))
        if status in (401, 403):
            advice = "it refuses the key; set another" if self._key else "it wants a key; set one"
            raise JudgeRefused(f"{self._endpoint.host}: status {status}: {message} ({advice} in --key-env's variable)")
        if status == 404:
            raise JudgeRefused(
                f"{self._endpoint.completions_url} knows no model {self._endpoint.model!r}, or is no chat endpoint: "
                f"{message}; check --model and --endpoint"
            )
        raise JudgeRefused(
            f"{self._endpoint.host}: status {status}: {message}; check --endpoint, --model and the items"
        )

    def _message(self, response: httpx2.Response) -> str:
        """What an endpoint says of its refusal, in one line."""
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
                f"{self._endpoint.completions_url} sent no chat completion but: {self._readable(response.text)[:200]}; "
                "check --endpoint"
            ) from error
        return Reply(self._without_key(said or ""), *counts)

    def _readable(self, text: str) -> str:
        """One line without control characters and without the key."""
        return "".join(c if c.isprintable() else " " for c in self._without_key(text)).strip()

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _httpx2() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise InvalidParameter(
            "asking a judge takes the httpx2 package; install it with: pip install 'slingshot[train]'"
        ) from error
    return httpx2


def _parse(url: str) -> httpx2.URL:
    http = _httpx2()
    try:
        parsed: httpx2.URL = http.URL(url)
    except http.InvalidURL as error:
        raise InvalidParameter("--endpoint is no address; give one like https://api.openai.com/v1") from error
    return parsed


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3)."""
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
