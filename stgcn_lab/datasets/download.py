"""Files and answers from servers that may be slow, busy, wrong or away: ask again, check, keep only what is whole."""

import contextlib
import errno
import glob
import hashlib
import itertools
import json
import logging
import os
import random
import re
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, unquote, urlsplit

import requests
from tqdm import tqdm

from .._checks import number, whole_number

LONGEST_WAIT = 60.0  # seconds: a server that asks for more has a quota, not a busy minute
_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better the next time
_CLOCKS = 60.0  # seconds by which clocks may differ: a copy from further in the future is of unknown age
_CHANCE = random.Random()  # not the random numbers of the reader's experiment

T = TypeVar("T")


class _TryAgain(Exception):
    """What came is not what was promised; the next answer may be."""


def cache_dir() -> Path:
    """The folder that downloads are kept in: STGCN_LAB_CACHE, or "stgcn-lab" in the user's folder for caches.

    Returns:
        The path; the folder need not exist yet, and may be deleted at any time.
    """
    if named := os.environ.get("STGCN_LAB_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "stgcn-lab"


def fetch(
    url: str,
    name: str | None = None,
    *,
    sha256: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    max_age: float | None = None,
    retries: int = 4,
    backoff: float = 0.5,
    timeout: float = 30.0,
    progress: bool = False,
    params: Mapping[str, Any] | None = None,
) -> Path:
    """A file from the web, downloaded once.

    It is written beside its place under another name, its length and SHA-256 are checked, and only then is it given its
    name: what is in the cache is whole. A copy that is already there, of the right digest and no older than
    ``max_age``, is returned without a request. Refused and broken connections, time-outs, truncated answers and the
    statuses 408, 425, 429 and 5xx are tried again, after ``backoff * 2^k`` seconds (less a random part, so that a class
    of thirty does not come back all at once) or after what the header Retry-After asks for.

    Args:
        url: http or https.
        name: the file in ``folder``, which may hold folders, "ncep/air.nc"; else the last part of the address if
            ``folder`` is given, and the host and path of the address in the cache.
        sha256: expected digest, in hexadecimal.
        folder: where the file is kept; else `cache_dir`.
        max_age: seconds after which a copy is fetched anew. If that fails for want of a connection, the old copy is
            returned with a warning.
        retries: how often to ask again.
        backoff: seconds before the first repetition, doubled each time.
        timeout: seconds without a byte after which an attempt is given up.
        progress: show a bar on the error stream.
        params: what is asked for behind the "?" of the address; ``name`` is then needed.
    Returns:
        Path of the file.
    Raises:
        FileNotFoundError: the server has no such file (404, 410).
        PermissionError: it does not give it (401, 403); or the folder may not be written to.
        ConnectionError: no whole answer, however often it was tried.
        ValueError: another SHA-256 than expected; the server does not understand (other 4xx); bad arguments.
        OSError: the file could not be written, on a full disk for instance; nothing is left of it.
    """
    place = _name_of(url, folder) if name is None else name
    if name is None and (params or urlsplit(url).query):  # else all that is asked for there would be one file
        raise ValueError("name: expected a name for the file of an address with params or a query, found None")
    if not isinstance(place, str) or not _is_inside(place):
        raise ValueError(f"name: expected the name of a file inside the folder, found {place!r}")
    if sha256 is not None and (not isinstance(sha256, str) or len(sha256) != 64):
        raise ValueError(f"sha256: expected 64 hexadecimal digits, found {sha256!r}")
    oldest = None if max_age is None else time.time() - number(max_age, "max_age", 0.0)
    target = (cache_dir() if folder is None else Path(folder).expanduser()) / place
    there = target.is_file() and (sha256 is None or _sha256(target) == sha256.lower())
    if there and (oldest is None or oldest <= target.stat().st_mtime <= time.time() + _CLOCKS):
        return target

    def read(response: requests.Response) -> None:
        file.seek(0)
        file.truncate()
        digest = hashlib.sha256()
        total = _length(response)
        with tqdm(total=total, desc=target.name, unit="B", unit_scale=True, disable=not progress) as bar:
            for block in response.iter_content(1 << 16):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
        if total is not None and file.tell() != total:
            raise _TryAgain(f"it broke off after {file.tell()} of {total} bytes")
        if sha256 is not None and digest.hexdigest() != sha256.lower():
            raise ValueError(
                f"sha256: expected {sha256.lower()}, found {digest.hexdigest()} ({file.tell()} bytes) "
                f"at {_shown(url)}; the file was changed there, or something in between answers in its place "
                "(a sign-in page, a proxy)"
            )

    for left in target.parent.glob(f".{glob.escape(target.name)}.*.part"):  # of a process that was killed, days ago
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * 86400:
                left.unlink()
    try:
        with _replacing(target) as file:
            ask(url, read, params=params, retries=retries, backoff=backoff, timeout=timeout)
    except ConnectionError as error:
        if there:
            age = (time.time() - target.stat().st_mtime) / 3600
            warnings.warn(f"the copy of {age:.1f} hours ago is used, {target}: {error}", UserWarning, stacklevel=2)
            return target
        raise ConnectionError(f"{error} Or get the file elsewhere and save it as {target}") from None
    return target


def get_json(
    url: str,
    params: Mapping[str, Any] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    secret: str | None = None,
    retries: int = 4,
    backoff: float = 0.5,
    timeout: float = 30.0,
) -> Any:
    """The JSON that a web service answers with; asked for again where `fetch` would, and not kept.

    Args:
        url: http or https.
        params: what is asked for behind the "?".
        headers: added to the request.
        secret: a key that stands in ``params`` or ``headers``. It appears in no error, warning or log, whether from the
            address or from what the server says; and no redirection is followed, which might carry it elsewhere.
        retries, backoff, timeout: see `fetch`.
    Returns:
        Dicts, lists, text, numbers, True, False or None.
    Raises:
        FileNotFoundError, PermissionError, ConnectionError, ValueError: see `fetch`; the message repeats what the
            service said of it.
    """

    def read(response: requests.Response) -> Any:
        content = response.content
        total = _length(response)
        if total is not None and len(content) != total:
            raise _TryAgain(f"it broke off after {len(content)} of {total} bytes")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):  # also what is no text
            begin = _hidden(content[:2000].decode("utf-8", "replace"), secret)[:60]
            raise _TryAgain(f"expected JSON, found {begin!r}") from None

    settings = {"retries": retries, "backoff": backoff, "timeout": timeout}
    return ask(url, read, params=params, headers=headers, secret=secret, **settings)  # type: ignore[arg-type]


def ask(
    url: str,
    read: Callable[[requests.Response], T],
    *,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    secret: str | None = None,
    retries: int = 4,
    backoff: float = 0.5,
    timeout: float = 30.0,
    session: requests.Session | None = None,
) -> T:
    """What ``read`` makes of the first good answer. It may raise `_TryAgain`, and is then given another answer."""
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise ValueError(
            "url: expected an address that begins with http:// or https://, "
            f"found {_shown(url) if isinstance(url, str) else url!r}"
        )
    if secret is not None and not isinstance(secret, str):
        raise TypeError(f"secret: expected text, found {type(secret).__name__}")
    tries = 1 + whole_number(retries, "retries", 0)
    backoff, timeout = number(backoff, "backoff", 0.0), number(timeout, "timeout", 0.0, open_end=True)
    sent = {"User-Agent": "stgcn-lab", "Accept-Encoding": "identity"} | dict(headers or {})
    problem, shown = "", _shown(url)
    for attempt in range(tries):
        # Errors are raised outside of "except": those of requests, with the whole address in them, are left behind.
        error: Exception | None = None
        wait = 0.0
        try:
            with (
                _discreet_log(secret),
                (session or requests).get(
                    url, params=params, headers=sent, timeout=timeout, stream=True, allow_redirects=secret is None
                ) as response,
            ):
                code = response.status_code
                if code in _AGAIN:
                    problem, wait = _said(response, secret), _retry_after(response)
                elif code in (200, 203) or (code == 206 and "Range" in sent):
                    return read(response)
                elif code < 300:  # a part that was not asked for, "accepted, come back later", nothing at all
                    problem = f"{code} {response.reason}, which is not the whole"
                else:
                    kinds = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 410: FileNotFoundError}
                    said = f"{shown} answered {_said(response, secret)}"
                    error = kinds.get(code, ValueError)(_hidden(said, secret))
        except _TryAgain as again:
            problem = str(again)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as invalid:
            error = ValueError(_hidden(f"url: {invalid}".replace(url, shown), secret))
        except requests.TooManyRedirects:
            error = ConnectionError(_hidden(f"{shown} leads round in circles", secret))
        except requests.Timeout:
            problem = f"no answer within {timeout:g} s"
        except requests.RequestException as failed:
            problem = _cause(failed)
        if error is not None:
            raise error
        if wait > LONGEST_WAIT:
            problem += f"; it asks to wait for {wait:g} s: try again then"
            tries = attempt + 1
            break
        if attempt + 1 < tries:
            time.sleep(max(wait, min(backoff * 2**attempt, LONGEST_WAIT) * _CHANCE.uniform(0.5, 1.0)))
    times = "once" if tries == 1 else f"{tries} times"
    raise ConnectionError(
        _hidden(f"could not read {shown}, tried {times}: {problem}. Is there a network? Is the server up?", secret)
    )


def _said(response: requests.Response, secret: str | None) -> str:
    """Status and, if the server gave a reason in JSON or a line of text, that reason."""
    words = ""
    with contextlib.suppress(requests.RequestException, ValueError):
        blocks = itertools.islice(response.iter_content(500), 4)  # as they come, and that may be a few bytes
        content = _hidden(b"".join(blocks).decode("utf-8", "replace"), secret)
        words = content if len(content) < 200 and "<" not in content else ""
        with contextlib.suppress(RecursionError):
            answer = json.loads(content)
            if isinstance(answer, dict):
                words = str(answer.get("reason") or answer.get("message") or words)
    return f"{response.status_code} {response.reason}" + (f": {words.strip()}" if words.strip() else "")


def _cause(error: BaseException) -> str:
    """The innermost reason, without the address, which may hold a key."""
    seen: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in seen:
        seen.append(inner)
        inner = inner.__cause__ or inner.__context__
        if inner is None:
            later = [arg for arg in seen[-1].args if isinstance(arg, BaseException)]
            inner = getattr(seen[-1], "reason", None) or (later[0] if later else None)
            inner = inner if isinstance(inner, BaseException) else None
    return f"{type(seen[-1]).__name__}: {seen[-1]}"


def _retry_after(response: requests.Response) -> float:
    """Seconds to wait by the header Retry-After, a number or a date; 0 without one that can be understood."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


def _length(response: requests.Response) -> int | None:
    """Bytes that the server promised; None if it did not, or if they are compressed on the way."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() and "Content-Encoding" not in response.headers else None


def _hidden(text: str, secret: str | None) -> str:
    """Without the secret, as it is or as it stands in an address, and without pieces of it.

    A text may be cut in the middle of the secret, and a server may write some of its characters in another way.
    """
    for form in {secret, quote(secret, safe=""), quote_plus(secret)} if secret else ():
        size = min(len(form), 8)
        pieces = {form[k : k + size] for k in range(len(form) - size + 1)}
        shown, end = "", 0
        for k in range(len(text) - size + 1):
            if text[k : k + size] in pieces:
                shown += (text[end:k] + "***") if k > end or not end else ""
                end = k + size
        text = shown + text[end:]
    return text


def _shown(url: str) -> str:
    """An address without the name and password that may stand before its host."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


@contextlib.contextmanager
def _discreet_log(secret: str | None) -> Iterator[None]:
    """The debug messages of urllib3 hold whole addresses: without the key, while a request with one runs."""

    def without_secret(record: logging.LogRecord) -> bool:
        record.msg, record.args = _hidden(record.getMessage(), secret), ()
        return True

    loggers = [logging.getLogger(f"urllib3.{part}") for part in ("connectionpool", "util.retry", "connection")]
    for logger in loggers if secret else []:
        logger.addFilter(without_secret)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(without_secret)


def _name_of(url: str, folder: Any) -> str:
    """The last part of an address, or in the cache, where files of many addresses meet, its host and path."""
    parts = urlsplit(_shown(url)) if isinstance(url, str) else urlsplit("")
    path = [_tame(unquote(part)) for part in parts.path.split("/") if part and unquote(part) not in (".", "..")]
    if not path:
        raise ValueError(f"name: expected the name of the file, as {url!r} has none")
    return path[-1] if folder is not None else "/".join([_tame(parts.netloc), *path])


def _tame(part: str) -> str:
    """A part of an address as the name of a file on any system."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*]|[. ]$', "_", part)
    if re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name, re.IGNORECASE):  # devices of Windows
        name = f"_{name}"
    return name if len(name.encode()) <= 150 else f"{hashlib.sha256(part.encode()).hexdigest()[:16]}_{name[-30:]}"


def _is_inside(place: str) -> bool:
    """Is it the name of a file in a folder, or in one of its folders, here and where paths are written otherwise?"""
    paths = PurePosixPath(place), PureWindowsPath(place)
    return (
        bool(paths[0].name)
        and "\0" not in place
        and not any(path.anchor or ".." in path.parts for path in paths)
        and all(len(part.encode()) <= 200 for part in paths[0].parts)  # as a temporary name is longer
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Any]:
    """A new file that takes the place of ``target`` if all goes well, and is taken away if not."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            yield file
        os.replace(part, target)
    except OSError as error:
        if isinstance(error, ConnectionError) or error.errno is None:  # of the line, not of the disk
            raise
        advice = "free some space" if error.errno == errno.ENOSPC else "choose a folder that you may write to"
        words = f"{error.strerror}: could not write {target.name}; {advice}, or set STGCN_LAB_CACHE"
        raise type(error)(error.errno, words, str(target.parent)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
