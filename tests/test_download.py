"""Downloads: every fault of a server, of the line and of the disk, and what is left in the cache after each."""

import builtins
import contextlib
import errno
import hashlib
import json
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from faults import OK, RESET, TRUNCATED, WRONG, Answer, FaultyServer, nobody, slow, stalled, status

from stgcn_lab.datasets import download
from stgcn_lab.datasets.download import cache_dir, fetch, get_json

CONTENT = bytes(range(256)) * 1200  # 300 kB: several blocks
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SECRET = "k3y&with+signs/and=spaces ok"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STGCN_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server():
    with FaultyServer({"/data/a.bin": CONTENT, "/now": {"temperature": 21.5}}) as server:
        yield server


@pytest.fixture
def raw():
    """A server that sends the given pieces of bytes, each by itself, and closes the line: no library tidies them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    line, _ = listening.accept()
                    with line:
                        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        line.recv(65536)
                        for piece in pieces:
                            line.sendall(piece)
                            time.sleep(0.005)

        pieces: list[bytes] = []
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/a", pieces


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited between attempts; nobody waits in truth."""
    seconds: list[float] = []
    monkeypatch.setattr(download.time, "sleep", seconds.append)
    return seconds


def patience(fault: str, seconds: float) -> dict:
    """Little where the fault is that nothing comes, and plenty elsewhere: a busy machine is not a fault."""
    return {"backoff": 0.001, "timeout": seconds if fault in ("too slow", "stalls") else 30}


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


# --- the good day ---------------------------------------------------------------------------------------------


def test_file_is_downloaded_once(cache, server):
    first = fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST)
    assert first == cache / "a.bin" and first.read_bytes() == CONTENT
    assert fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST.upper()) == first
    assert fetch(server.url("/data/a.bin"), "a.bin") == first
    assert server.count() == 1 and files(cache) == ["a.bin"]
    server.stop()
    assert fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST) == first, "no network is needed"


def test_files_of_two_servers_do_not_meet_in_the_cache(cache, server):
    with FaultyServer({"/data/a.bin": b"another"}) as other:
        one, two = fetch(server.url("/data/a.bin")), fetch(other.url("/data/a.bin"))
    assert one.read_bytes() == CONTENT and two.read_bytes() == b"another" and one.name == two.name == "a.bin"
    assert {path.split("/")[0] for path in files(cache)} == {
        url.removeprefix("http://").replace(":", "_") for url in (server.url(), other.url())
    }


def test_folder_and_name_are_the_readers(cache, server, tmp_path):
    assert fetch(server.url("/data/a.bin"), folder=tmp_path / "mine") == tmp_path / "mine" / "a.bin"
    assert fetch(server.url("/data/a.bin"), "ncep/1979/b.bin", folder=str(tmp_path)).read_bytes() == CONTENT
    assert not cache.exists()


def test_params_are_sent(cache, server):
    server.contents["/query"] = lambda request: json.dumps(request.query)
    file = fetch(server.url("/query"), "q.json", params={"years": ["1979", "1980"], "place": "Dún Laoghaire"})
    assert json.loads(file.read_text()) == {"years": ["1979", "1980"], "place": ["Dún Laoghaire"]}
    assert get_json(server.url("/query"), {"a": 1}, headers={"X-Test": "yes"}) == {"a": ["1"]}
    assert server.requests[-1].headers["x-test"] == "yes"


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, ".cache/stgcn-lab"),
        ("linux", {"XDG_CACHE_HOME": "/elsewhere"}, "/elsewhere/stgcn-lab"),
        ("darwin", {"XDG_CACHE_HOME": "/elsewhere"}, "Library/Caches/stgcn-lab"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/stgcn-lab"),
        ("win32", {}, "AppData/Local/stgcn-lab"),
        ("linux", {"STGCN_LAB_CACHE": "/mine"}, "/mine"),
        ("linux", {"STGCN_LAB_CACHE": "~/mine"}, "mine"),
    ],
)
def test_cache_is_where_the_system_keeps_caches(monkeypatch, tmp_path, platform, variables, expected):
    for name in ("STGCN_LAB_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_dir() == tmp_path / expected  # an absolute path stands for itself
    assert not cache_dir().exists()


def test_progress_is_shown_on_the_error_stream_alone(cache, server, capsys):
    fetch(server.url("/data/a.bin"), "a.bin", progress=True)
    shown = capsys.readouterr()
    assert "a.bin" in shown.err and "307k/307k" in shown.err and shown.out == ""
    fetch(server.url("/data/a.bin"), "b.bin")
    assert capsys.readouterr().err == ""


# --- faults that pass -----------------------------------------------------------------------------------------

PASSING = {
    "truncated": TRUNCATED,
    "reset": RESET,
    "reset in the middle": Answer(sent=0.5, reset=True),
    "too slow": slow(2),
    "stalls": stalled(2),
    "429": status(429),
    "429 with a time": status(429, retry_after=0),
    "500": status(500, "<html>oh</html>"),
    "503": status(503, retry_after=0),
}


@pytest.mark.parametrize("fault", PASSING)
def test_fault_that_passes_is_survived(cache, server, fault):
    server.script("/data/a.bin", PASSING[fault], PASSING[fault])
    assert fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST, **patience(fault, 0.4)).read_bytes() == CONTENT
    assert server.count() == 3 and files(cache) == ["a.bin"]


@pytest.mark.parametrize("fault", PASSING)
def test_fault_that_lasts_is_an_error_and_leaves_nothing(cache, server, fault):
    server.always("/data/a.bin", PASSING[fault])
    with pytest.raises(ConnectionError) as error:
        fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST, retries=2, **patience(fault, 0.1))
    words = str(error.value)
    assert server.url("/data/a.bin") in words and "tried 3 times" in words and str(cache / "a.bin") in words
    expected = {"truncated": "Incomplete", "too slow": "no answer within 0.1 s", "429": "429 Too Many Requests"}
    assert expected.get(fault, "") in words and "<html>" not in words
    assert server.count() == 3 and files(cache) == []


@pytest.mark.parametrize("fault", [*PASSING, "wrong"])
def test_json_survives_what_passes_and_names_what_lasts(server, fault):
    answer = PASSING.get(fault, WRONG)
    server.script("/now", answer, answer)
    assert get_json(server.url("/now"), **patience(fault, 0.4)) == {"temperature": 21.5}
    server.always("/now", answer)
    with pytest.raises(ConnectionError, match="tried 2 times"):
        get_json(server.url("/now"), retries=1, **patience(fault, 0.1))
    assert server.count() == 5


def test_answer_without_a_length_is_held_to_its_digest(cache, server):
    server.script("/data/a.bin", Answer(length=False), Answer(length=False, sent=0.5))
    assert fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="sha256"):
        fetch(server.url("/data/a.bin"), "b.bin", sha256=DIGEST)
    assert files(cache) == ["a.bin"]


def test_waits_grow_and_are_never_quite_the_same(server, waits):
    server.always("/now", status(503))
    with pytest.raises(ConnectionError):
        get_json(server.url("/now"), retries=5, backoff=0.5)
    assert len(waits) == 5
    assert all(0.25 * 2**k <= wait <= 0.5 * 2**k for k, wait in enumerate(waits))
    assert len({wait / 2**k for k, wait in enumerate(waits)}) == 5
    with pytest.raises(ConnectionError):
        get_json(server.url("/now"), retries=12, backoff=0.5)
    assert max(waits) <= download.LONGEST_WAIT


def test_waits_leave_the_random_numbers_of_an_experiment_alone(server, waits):
    random.seed(1)
    before = random.getstate()
    server.script("/now", status(503), status(503))
    get_json(server.url("/now"))
    assert random.getstate() == before and len(waits) == 2


def test_server_says_how_long_to_wait(server, waits):
    server.script("/now", status(429, retry_after=7), status(503, retry_after="soon"), status(429, retry_after=-5))
    assert get_json(server.url("/now"), backoff=0.01) == {"temperature": 21.5}
    assert waits[0] == 7 and waits[1] < 1 and waits[2] < 1
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=3), usegmt=True)
    server.script("/now", status(429, retry_after=soon), status(429, retry_after=past))
    get_json(server.url("/now"), backoff=0.01)
    assert 25 < waits[3] <= 30 and waits[4] < 1


def test_server_that_wants_a_long_pause_gets_it(cache, server, waits):
    """A quota of the day is used up: the reader is told at once, and the server is not asked again."""
    server.always("/data/a.bin", status(429, {"reason": "Daily limit exceeded"}, retry_after=36000))
    with pytest.raises(ConnectionError, match=r"tried once: 429 .*: Daily limit exceeded; it asks to wait for 36000 s"):
        fetch(server.url("/data/a.bin"), "a.bin")
    assert server.count() == 1 and waits == [] and files(cache) == []


# --- faults that stay -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, ValueError),
        (401, PermissionError),
        (403, PermissionError),
        (404, FileNotFoundError),
        (410, FileNotFoundError),
        (422, ValueError),
        (501, ValueError),
    ],
)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": True, "reason": "no such variable"}, "no such variable"),
        ({"cod": "404", "message": "city not found"}, "city not found"),
        ("gone fishing", "gone fishing"),
        ("<html>a page</html>", None),
        (b"\xff\xfe\x00", None),
        (b"", None),
    ],
)
def test_refusal_is_told_at_once_in_the_words_of_the_server(cache, server, code, kind, body, words):
    for ask in (fetch, get_json):
        server.forget()
        server.script("/data/a.bin", status(code, body))
        with pytest.raises(kind) as error:
            ask(server.url("/data/a.bin"))
        assert str(code) in str(error.value) and server.url("/data/a.bin") in str(error.value)
        assert (words or "") in str(error.value) and "html" not in str(error.value)
        assert server.count() == 1
    assert files(cache) == []


@pytest.mark.parametrize(
    "body", [WRONG, Answer(body=CONTENT[:-1] + b"!"), Answer(body=b"")], ids=["page", "bit", "empty"]
)
def test_wrong_checksum_is_an_error_and_leaves_nothing(cache, server, body):
    server.script("/data/a.bin", body)
    found = hashlib.sha256(body.body).hexdigest()
    with pytest.raises(ValueError, match=rf"sha256: expected {DIGEST}, found {found} \({len(body.body)} bytes\)"):
        fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST)
    assert server.count() == 1 and files(cache) == []


def test_damaged_copy_is_fetched_anew_and_lost_only_for_a_better_one(cache, server):
    target = fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST)
    target.write_bytes(b"damaged")
    server.script("/data/a.bin", status(404))
    with pytest.raises(FileNotFoundError):
        fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST)
    assert target.read_bytes() == b"damaged"
    assert fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST).read_bytes() == CONTENT


def test_no_network_says_what_to_do(cache):
    for url in (nobody() + "/a.bin", "http://no-such-host.invalid/a.bin"):
        with pytest.raises(ConnectionError, match=r"tried 2 times: .*Is there a network\?.*save it as .*a\.bin"):
            fetch(url, "a.bin", retries=1, backoff=0.001, timeout=1)
        with pytest.raises(ConnectionError, match="tried once: .*Is there a network"):
            get_json(url, retries=0, timeout=1)
    assert files(cache) == []


def test_redirections_are_followed_but_not_for_ever(cache, server):
    server.contents["/old"] = Answer(302, b"", {"Location": "/data/a.bin"})
    server.contents["/round"] = Answer(302, b"", {"Location": "/round"})
    assert fetch(server.url("/old"), "a.bin").read_bytes() == CONTENT
    with pytest.raises(ConnectionError, match="circles"):
        fetch(server.url("/round"), "b.bin")
    assert files(cache) == ["a.bin"]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"200 OK\r\nContent-Length: 9", b"half"),
        (b"200 OK\r\nTransfer-Encoding: chunked", b"4\r\nhalf\r\n"),
        (b"200 OK\r\nTransfer-Encoding: chunked", b"9\r\nhalf"),
        (b"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4", b"half"),
        (b"202 Accepted\r\nContent-Length: 4", b"wait"),
        (b"204 No Content", b""),
        (b"206 Partial Content\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/9", b"half"),
    ],
)
def test_part_or_promise_is_not_taken_for_the_whole(cache, raw, head, body):
    raw[1][:] = [b"HTTP/1.1 " + head + b"\r\n\r\n" + body]
    with pytest.raises(ConnectionError, match="tried 2 times"):
        fetch(raw[0], "a.bin", retries=1, backoff=0.001)
    assert files(cache) == []


@pytest.mark.parametrize("length", [b"\xb2", b"-5", b"many"])
def test_length_that_is_none_is_left_alone(cache, raw, length):
    raw[1][:] = [b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nwhole"]
    assert fetch(raw[0], "a.bin", retries=0).read_bytes() == b"whole"


@pytest.mark.parametrize(
    "date", ["Mon, 01 Jan 99999999999999 00:00:00 GMT", "nan", "\xb2", "Mon, 99 Foo 9999 99:99 GMT"]
)
def test_time_to_wait_that_nobody_understands(server, waits, date):
    server.script("/now", status(429, retry_after=date))
    assert get_json(server.url("/now"), backoff=0.01) == {"temperature": 21.5} and waits[0] < 1


def test_json_that_is_nested_without_end_is_none(server):
    server.script("/now", Answer(body="[" * 100_000), status(400, '{"a":' * 100_000))
    with pytest.raises(ConnectionError, match="expected JSON"):
        get_json(server.url("/now"), retries=0)
    with pytest.raises(ValueError, match="400 Bad Request"):
        get_json(server.url("/now"), retries=0)


# --- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/data/%2e%2e/..%2F..%2Fetc/a%00b", "data/.._.._etc/a_b"),
        ("/..%5C..%5Ca:b", ".._.._a_b"),
        ("/aux.txt", "_aux.txt"),
        ("/" + "ä" * 200 + ".nc", None),
        ("/Dún Laoghaire.nc", "Dún Laoghaire.nc"),
    ],
)
def test_address_gives_a_name_that_any_system_can_keep_inside_the_cache(cache, server, path, place):
    server.always("*", Answer(body=b"whole"))
    found = fetch(server.url(path)).relative_to(cache)
    assert found.parts[0] == server.url().removeprefix("http://").replace(":", "_")
    if place is None:
        assert len(found.name.encode()) < 100 and found.name.endswith("ä.nc")
        assert fetch(server.url(path.replace("ä.nc", "ö.nc"))) != cache / found
    else:
        assert found.relative_to(found.parts[0]).as_posix() == place


def test_questions_to_one_address_are_not_one_file(cache, server):
    server.contents["/q"] = lambda request: json.dumps(request.query)
    with pytest.raises(ValueError, match="name: expected a name .*query"):
        fetch(server.url("/q?year=1979"))
    assert b"1980" in fetch(server.url("/q?year=1980"), "1980.json").read_bytes()


def test_name_may_look_like_a_pattern(cache, server):
    assert fetch(server.url("/data/a.bin"), "a**[b].nc").read_bytes() == CONTENT


# --- a copy that grows old ------------------------------------------------------------------------------------


def test_old_copy_is_renewed_and_kept_if_that_fails(cache, server, recwarn):
    def get(max_age):
        return fetch(server.url("/data/a.bin"), "a.bin", max_age=max_age, retries=0).read_bytes()

    get(None)
    server.contents["/data/a.bin"] = b"newer"
    assert get(3600) == CONTENT and server.count() == 1
    hours_ago = time.time() - 5 * 3600
    os.utime(cache / "a.bin", (hours_ago, hours_ago))
    assert get(6 * 3600) == CONTENT and server.count() == 1
    assert get(4 * 3600) == b"newer" and server.count() == 2
    assert get(0) == b"newer" and server.count() == 3
    assert not recwarn.list
    server.stop()
    os.utime(cache / "a.bin", (hours_ago, hours_ago))
    with pytest.warns(UserWarning, match=r"copy of 5\.0 hours ago.*could not read"):
        assert get(3600) == b"newer"
    assert get(None) == b"newer"
    assert files(cache) == ["a.bin"]


def test_copy_from_the_future_is_of_unknown_age(cache, server):
    """The clock of the machine was wrong once: the copy would never grow old."""
    target = fetch(server.url("/data/a.bin"), "a.bin")
    server.contents["/data/a.bin"] = b"newer"
    os.utime(target, (time.time() + 86400,) * 2)
    assert fetch(server.url("/data/a.bin"), "a.bin").read_bytes() == CONTENT
    assert fetch(server.url("/data/a.bin"), "a.bin", max_age=3600).read_bytes() == b"newer"


# --- the disk -------------------------------------------------------------------------------------------------


class FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, block):
        if self.file.tell() + len(block) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(block)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_full_disk_is_told_and_nothing_is_left(cache, server, monkeypatch):
    def opened(path, mode="r"):
        file = builtins.open(path, mode)  # noqa: SIM115
        return FullDisk(file, 100_000) if "x" in mode else file

    monkeypatch.setattr(download, "open", opened, raising=False)
    with pytest.raises(OSError, match=r"No space left.*a\.bin; free some space, or set STGCN_LAB_CACHE") as error:
        fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST)
    assert error.value.errno == errno.ENOSPC and not isinstance(error.value, ConnectionError)
    assert server.count() == 1, "asking again makes no room"
    assert files(cache) == []


def test_disk_that_is_full_only_when_the_name_is_given(cache, server, monkeypatch):
    def no_room(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(download.os, "replace", no_room)
    with pytest.raises(OSError, match="Disk quota exceeded.*set STGCN_LAB_CACHE"):
        fetch(server.url("/data/a.bin"), "a.bin")
    assert files(cache) == []


def test_read_only_cache_is_told_before_anything_is_asked(cache, server, monkeypatch):
    def refused(path, mode="r"):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(download, "open", refused, raising=False)
    with pytest.raises(
        PermissionError, match=r"Permission denied.*folder that you may write to, or set STGCN_LAB_CACHE"
    ):
        fetch(server.url("/data/a.bin"), "a.bin")
    assert server.count() == 0


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="nothing is read-only to root")
def test_folder_that_is_read_only_in_truth(cache, server):
    cache.mkdir()
    cache.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="set STGCN_LAB_CACHE"):
            fetch(server.url("/data/a.bin"), "a.bin")
    finally:
        cache.chmod(0o700)


def test_cache_that_is_a_file(cache, server):
    cache.write_bytes(b"")
    with pytest.raises(OSError, match="set STGCN_LAB_CACHE"):
        fetch(server.url("/data/a.bin"), "a/a.bin")
    assert server.count() == 0 and cache.read_bytes() == b""


def test_interruption_leaves_nothing(cache, server, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_length", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url("/data/a.bin"), "a.bin")
    assert files(cache) == []


def test_what_a_killed_process_left_is_swept_up_later(cache, server):
    cache.mkdir()
    old, young = cache / ".a.bin.0123.part", cache / ".a.bin.4567.part"
    other = cache / ".b.bin.0123.part"
    for file in (old, young, other):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    fetch(server.url("/data/a.bin"), "a.bin")
    assert files(cache) == [young.name, other.name, "a.bin"], "a young one may belong to a process that is at work"


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions elsewhere")
def test_file_has_the_permissions_of_any_other(cache, server):
    """A cache that a class shares must be readable to all who may read what the owner writes."""
    ordinary = cache.parent / "ordinary"
    ordinary.write_bytes(b"")
    assert fetch(server.url("/data/a.bin"), "a.bin").stat().st_mode == ordinary.stat().st_mode


# --- several at once ------------------------------------------------------------------------------------------


def test_threads_at_once_all_get_the_whole_file(cache, server):
    server.script("/data/a.bin", stalled(0.05), TRUNCATED, OK, RESET, stalled(0.02))
    found, errors = [], []

    def get():
        try:
            found.append(fetch(server.url("/data/a.bin"), "a.bin", sha256=DIGEST, backoff=0.001).read_bytes())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):  # at no time is there half a file
        if (cache / "a.bin").exists():
            assert (cache / "a.bin").stat().st_size == len(CONTENT)
    assert errors == [] and found == [CONTENT] * 8 and files(cache) == ["a.bin"]


def test_two_processes_at_once_do_each_other_no_harm(cache, server):
    server.script("/data/a.bin", stalled(0.2), stalled(0.2))
    code = "import sys; from stgcn_lab import datasets as d; print(d.fetch(sys.argv[1], 'a.bin', sha256=sys.argv[2]))"
    command = [sys.executable, "-c", code, server.url("/data/a.bin"), DIGEST]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=60)[0].strip() == str(cache / "a.bin") and process.returncode == 0
    assert files(cache) == ["a.bin"] and (cache / "a.bin").read_bytes() == CONTENT


# --- keys -----------------------------------------------------------------------------------------------------


def everything(error: BaseException) -> str:
    """What a traceback could show, with every error that stands behind another."""
    words, seen = "", []
    while error is not None and error not in seen:
        seen.append(error)
        words += "".join(traceback.format_exception(error)) + repr(error.args)
        error = error.__cause__ or error.__context__
    return words


@pytest.mark.parametrize(
    "answer",
    [
        status(401, {"cod": 401, "message": f"Invalid API key {SECRET}"}),
        status(404, f"nothing for {SECRET}"),
        status(400, {"reason": f"bad appid={SECRET}"}),
        status(429, {"message": f"{SECRET} is over its limit"}, retry_after=99999),
        Answer(302, b"", {"Location": "/elsewhere?appid=k3y%26with%2Bsigns%2Fand%3Dspaces%20ok"}),
        Answer(body=f"<html>{SECRET}</html>"),
        TRUNCATED,
        RESET,
        slow(2),
        status(503),
        None,
    ],
    ids=["401", "404", "400", "429", "302", "page", "truncated", "reset", "slow", "503", "no network"],
)
@pytest.mark.parametrize("where", ["params", "headers"])
def test_key_is_never_shown(server, caplog, capsys, recwarn, answer, where):
    caplog.set_level(logging.DEBUG)
    if answer is None:
        server.stop()
    else:
        server.always("/now", answer)
    key = {"params": {"appid": SECRET}} if where == "params" else {"headers": {"Authorization": SECRET}}
    with pytest.raises(Exception) as error:
        get_json(server.url("/now"), **key, secret=SECRET, retries=1, backoff=0.001, timeout=0.1)
    shown = capsys.readouterr()
    words = everything(error.value) + caplog.text + shown.out + shown.err + "".join(map(str, recwarn.list))
    assert server.url("/now") in str(error.value)
    assert "k3y" not in words and "and=spaces" not in words and "spaces%20ok" not in words and "spaces+ok" not in words
    assert server.count("/elsewhere") == 0
    if answer is not None:
        assert "connectionpool" in caplog.text, "the log goes on, without the key"
        sent = server.requests[0]
        assert (sent.query.get("appid") or [sent.headers["authorization"]])[0] == SECRET


CUT = b"abcdefghijklmnopqrstuvwxyz"
CHUNKED = b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n" + b"." * 50 + CUT],
        [b"HTTP/1.1 401 No\r\n\r\nthe key " + CUT[:16]],
        [CHUNKED, b"10\r\n" + CUT[:16] + b"\r\n", b"A\r\n" + CUT[16:] + b"\r\n0\r\n\r\n"],
        [b"HTTP/1.1 401 " + CUT + b"\r\nContent-Length: 0\r\n\r\n"],
        [CUT[3:] + b"\r\n\r\n"],
    ],
    ids=["no JSON", "end of the line", "chunks", "reason", "no http"],
)
def test_piece_of_a_key_is_not_shown_either(raw, caplog, pieces):
    caplog.set_level(logging.DEBUG)
    raw[1][:] = pieces
    with pytest.raises(OSError, match=r"\*\*\*") as error:
        get_json(raw[0], {"appid": CUT.decode()}, secret=CUT.decode(), retries=0)
    assert not any(CUT.decode()[k : k + 8] in everything(error.value) + caplog.text for k in range(19))


def test_key_written_in_another_way_is_not_shown(server):
    """In the JSON of some languages a slash is preceded by a backslash."""
    server.script("/now", status(400, json.dumps({"detail": SECRET}).replace("/", r"\/")))
    with pytest.raises(ValueError, match=r"400 Bad Request.*\*\*\*") as error:
        get_json(server.url("/now"), {"appid": SECRET}, secret=SECRET)
    assert "signs" not in everything(error.value) and "spaces" not in everything(error.value)


def test_name_and_password_of_an_address_are_not_shown_nor_kept(cache, server):
    address = server.url("/data/a.bin").replace("://", "://me:pass@word@")
    assert "me" not in str(fetch(address).relative_to(cache)) and "authorization" in server.requests[0].headers
    for code in (404, 503):
        server.always("/data/a.bin", status(code))
        with pytest.raises(OSError, match=r"127\.0\.0\.1") as error:
            fetch(address, "b.bin", retries=0)
        assert "me:pass" not in str(error.value) and "@" not in str(error.value)


def test_log_is_as_it_was_without_a_key(server, caplog):
    caplog.set_level(logging.DEBUG)
    get_json(server.url("/now"), {"a": "shown"}, secret="s3cret")
    get_json(server.url("/now"), {"a": "s3cret"})
    assert "/now?a=shown" in caplog.text and "/now?a=s3cret" in caplog.text
    assert not logging.getLogger("urllib3.connectionpool").filters


# --- arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"url": "ftp://127.0.0.1/a.bin"}, ValueError, "url: .*http"),
        ({"url": "/data/a.bin"}, ValueError, "url: .*http"),
        ({"url": "http://"}, ValueError, "url|name"),
        ({"url": "http://127.0.0.1:port/a.bin"}, ValueError, "url"),
        ({"url": None}, ValueError, "name|url"),
        ({"url": "http://127.0.0.1/", "name": None}, ValueError, "name"),
        ({"params": {"a": 1}, "name": None}, ValueError, "name: .*params"),
        ({"name": "../a.bin"}, ValueError, "name: .*inside"),
        ({"name": "/a.bin"}, ValueError, "name: .*inside"),
        ({"name": "C:a.bin"}, ValueError, "name: .*inside"),
        ({"name": "..\\a.bin"}, ValueError, "name: .*inside"),
        ({"name": "a\0.bin"}, ValueError, "name: .*inside"),
        ({"name": "."}, ValueError, "name: .*inside"),
        ({"name": "a" * 230}, ValueError, "name: .*inside"),
        ({"name": ""}, ValueError, "name"),
        ({"name": 3}, ValueError, "name"),
        ({"sha256": "abc"}, ValueError, "sha256: expected 64"),
        ({"retries": -1}, ValueError, "retries"),
        ({"retries": 1.5}, ValueError, "retries"),
        ({"backoff": -1}, ValueError, "backoff"),
        ({"backoff": float("nan")}, ValueError, "backoff"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"max_age": -1}, ValueError, "max_age"),
    ],
)
def test_arguments_are_checked(cache, options, kind, words):
    with pytest.raises(kind, match=words):
        fetch(**({"url": nobody() + "/a.bin", "name": "a.bin"} | options))
    assert not cache.exists() or files(cache) == []


def test_secret_is_text(server):
    with pytest.raises(TypeError, match="secret: expected text, found int"):
        get_json(server.url("/now"), secret=3)
