"""A zarr store behind a web address, for the zarr library: asks again as `fetch` does, and may keep what it read.

Imported by the function that needs it, as zarr comes with the extra "scale".
"""

import asyncio
import contextlib
import functools
import json
import math
import os
import struct
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import requests
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from .download import _length, _name_of, _replacing, _TryAgain, ask

AT_ONCE = 16  # requests under way; what waits for a distant server costs no processor
METADATA = (".zmetadata", ".zarray", ".zattrs", ".zgroup", "zarr.json")
COMPRESSORS = (
    "blosc",
    "bz2",
    "gzip",
    "lz4",
    "lzma",
    "zlib",
    "zstd",
)  # what a chunk may end with, and can be checked by


class RemoteStore(Store):
    """What lies at ``url``, read-only, with zarr's keys as the rest of the address.

    With ``folder``, each object is kept there under its key, whole or not at all, and an object that the server does
    not have as an empty file with ".none" behind the key. What is in the folder is not asked for again.

    A chunk that arrives must be one: of the promised length, and whole to the codec that the metadata name. Else it is
    asked for again, and at last a ConnectionError names it. A page that a hotel's network answers with is no chunk.
    """

    supports_writes = False
    supports_deletes = False
    supports_partial_writes = False
    supports_listing = False  # the web has no way to; what there is stands in the consolidated metadata

    def __init__(self, url: str, folder: Path | None, retries: int, backoff: float, timeout: float):
        super().__init__(read_only=True)
        self.url = url.rstrip("/")
        self.folder = None if folder is None else folder / Path(_name_of(f"{self.url}/.zmetadata", None)).parent
        self.settings: dict[str, Any] = {"retries": retries, "backoff": backoff, "timeout": timeout}
        self._codecs: dict[str, str | int] = {}  # of each array; of one that is not compressed, the bytes of a chunk
        self._found = False  # is there anything at all? Until then nothing is noted as missing.
        self._missing: list[str] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and (self.url, self.folder) == (other.url, other.folder)

    def __repr__(self) -> str:
        return f"RemoteStore({self.url!r})"

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes | None] = loop.create_future()

        def tell(content: bytes | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(content)
            else:
                answer.set_exception(error)

        def read() -> None:
            content, problem = None, None
            try:
                with _tools(os.getpid())[1]:
                    content = self._read(key, byte_range)
            except Exception as error:
                problem = error
            with contextlib.suppress(RuntimeError):  # nobody listens any more
                loop.call_soon_threadsafe(tell, content, problem)

        # A daemon: before it ends, Python waits for the threads of a pool, and so for a server that does not answer.
        threading.Thread(target=read, daemon=True).start()
        content = await answer
        return None if content is None else (prototype or default_buffer_prototype()).buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return await self.get(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("a store behind a web address is read-only")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("a store behind a web address is read-only")

    async def list(self) -> AsyncIterator[str]:
        raise NotImplementedError("a store behind a web address has no list of its contents")
        yield

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("a store behind a web address has no list of its contents")
        yield

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("a store behind a web address has no list of its contents")
        yield

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        """An object, or a part of it, from the folder or the server; None where there is none."""
        if self.folder is None:
            return self._asked(key, part)
        file = self.folder / key
        try:
            content: bytes | None = file.read_bytes()
            self._look(key, content)  # type: ignore[arg-type]
        except (FileNotFoundError, _TryAgain):
            if file.with_name(file.name + ".none").exists():
                return None
            content = self._asked(key)
            if content is None:
                self._missing.append(key)
            else:
                self._found = True
                with _replacing(file) as new:
                    new.write(content)
            while self._found and self._missing:
                none = self.folder / f"{self._missing.pop()}.none"
                with _replacing(none):
                    pass
        else:
            self._found = True
        return content if part is None or content is None else _cut(content, part)

    def _asked(self, key: str, part: ByteRequest | None = None) -> bytes | None:
        def read(response: requests.Response) -> bytes:
            content, total = response.content, _length(response)
            if total is not None and len(content) != total:
                raise _TryAgain(f"it broke off after {len(content)} of {total} bytes")
            if part is None:
                self._look(key, content)
            elif response.status_code != 206:  # the server sends all of it, whatever was asked for
                content = _cut(content, part)
            return content

        headers = {} if part is None else {"Range": _range(part)}
        try:
            session = _tools(os.getpid())[0]
            return ask(f"{self.url}/{key}", read, headers=headers, session=session, **self.settings)
        except FileNotFoundError:
            return None

    def _look(self, key: str, content: bytes) -> None:
        """Note the codecs that metadata name; `_TryAgain` if the object is not what its key says."""
        array, _, name = key.rpartition("/")
        if name in METADATA:
            try:
                self._learn(array, name, json.loads(content))
            except (ValueError, AttributeError, KeyError, TypeError):
                raise _TryAgain(f"expected metadata of zarr, found {content[:60]!r}") from None
            return
        while array and array not in self._codecs:
            array = array.rpartition("/")[0]
        codec = self._codecs.get(array, "")
        try:
            if isinstance(codec, int):
                whole = len(content) == codec
            elif codec == "blosc":  # states its length, and would read beyond the end of what is shorter
                whole = len(content) >= 16 and struct.unpack("<I", content[12:16])[0] == len(content)
            else:
                whole = not codec or numcodecs.get_codec({"id": codec}).decode(content) is not None
        except Exception:  # each codec has errors of its own
            whole = False
        if not whole:
            expected = f"of {codec} bytes" if isinstance(codec, int) else f"compressed by {codec}"
            raise _TryAgain(f"expected a chunk {expected}, found {len(content)} bytes that are none")

    def _learn(self, array: str, name: str, found: dict[str, Any]) -> None:
        inside: dict[str, Any] = {}
        if name == ".zmetadata":
            inside = {
                key.removesuffix("/.zarray"): meta for key, meta in found["metadata"].items() if "/.zarray" in key
            }
        elif name == "zarr.json" and found.get("consolidated_metadata"):
            inside = found["consolidated_metadata"]["metadata"]
        elif name in (".zarray", "zarr.json"):
            inside = {array: found}
        for path, meta in inside.items():
            steps = [step["name"] for step in meta.get("codecs") or ()]  # version 3
            codec = (meta.get("compressor") or {}).get("id") or (steps or [""])[-1]
            if codec in COMPRESSORS:
                self._codecs[path] = codec
            elif steps == ["bytes"]:
                shape = meta["chunk_grid"]["configuration"]["chunk_shape"]
                self._codecs[path] = math.prod(shape) * np.dtype(meta["data_type"]).itemsize
            elif "chunks" in meta and not codec and not meta.get("filters"):
                self._codecs[path] = math.prod(meta["chunks"]) * np.dtype(meta["dtype"]).itemsize


@functools.cache
def _tools(process: int) -> tuple[requests.Session, threading.Semaphore]:
    """Open connections of this process, and how many may be in use; a fork must not use those of its parent."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))
    return session, threading.BoundedSemaphore(AT_ONCE)


def _range(part: ByteRequest) -> str:
    if isinstance(part, RangeByteRequest):
        return f"bytes={part.start}-{part.end - 1}"
    if isinstance(part, OffsetByteRequest):
        return f"bytes={part.offset}-"
    return f"bytes=-{part.suffix}"


def _cut(content: bytes, part: ByteRequest) -> bytes:
    if isinstance(part, RangeByteRequest):
        return content[part.start : part.end]
    if isinstance(part, OffsetByteRequest):
        return content[part.offset :]
    assert isinstance(part, SuffixByteRequest)
    return content[-part.suffix :]
