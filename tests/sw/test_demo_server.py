"""The demo's web server: its page, its WebSocket, and whom it refuses."""

import contextlib
import json
import re
import socket
import struct
import time
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from edgemoe.demo.view import decode
from edgemoe.web.access import own_names
from support.watching import SECONDS, connect, endlessly, get, playing, serving


def test_page_has_all_that_it_needs(runtime_bundle, pictures):
    with playing(runtime_bundle, endlessly(pictures)) as player, serving(player) as url:
        status, headers, page = get(url, "/")
        assert status == 200 and headers["content-security-policy"] == "default-src 'self'"
        files = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert sorted(files) == ["/static/app.js", "/static/icon.svg", "/static/style.css"]
        for file in files:
            status, _, text = get(url, file)
            assert status == 200 and not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
        assert get(url, "/static/../server.py")[0] == get(url, "/nothing")[0] == 404


def test_live_frames_and_commands(runtime_bundle, pictures):
    with playing(runtime_bundle, endlessly(pictures)) as player, serving(player) as url:
        address = url.replace("http", "ws") + "live"
        with connect(address) as viewer, connect(address) as other:
            assert json.loads(viewer.recv(SECONDS))["type"] == "about"
            assert json.loads(viewer.recv(SECONDS)) == {
                "type": "state",
                "tasks": ["segmentation", "depth"],
                "paused": False,
                "ended": False,
                "failures": 0,
                "error": "",
            }
            first, second = (decode(viewer.recv(SECONDS))[0]["number"] for _ in range(2))
            assert second > first
            for task in ("normals", "segmentation", "depth"):
                viewer.send(json.dumps({"task": task, "on": task == "normals"}))
            while list(decode(message)[1] if isinstance(message := viewer.recv(SECONDS), bytes) else ()) != [
                "input",
                "normals",
            ]:
                pass
            for wrong, answer in (
                ('{"task": "x", "on": true}', "this bundle has no task 'x'"),
                ("7", "this is no"),
                ("{", "this is no command"),
                ('{"task": "depth"}', "this is no command"),
                ('{"task": "normals", "on": false}', "choose at least one task"),
            ):
                viewer.send(wrong)
                while not isinstance(message := viewer.recv(SECONDS), str):
                    pass
                assert json.loads(message)["message"].startswith(answer)
            texts = (
                json.loads(message) for message in iter(lambda: other.recv(SECONDS), None) if isinstance(message, str)
            )
            assert next(text for text in texts if text.get("tasks") == ["normals"])["type"] == "state"
        time.sleep(0.2)
        assert player.viewers == 0


def test_other_web_pages_are_refused(runtime_bundle, pictures):
    with playing(runtime_bundle, endlessly(pictures)) as player, serving(player) as url:
        address = url.replace("http", "ws") + "live"
        with pytest.raises(InvalidStatus, match="403"), connect(address, origin="http://elsewhere.example"):
            pass
        with connect(address, origin=url.rstrip("/")) as viewer:
            viewer.recv(SECONDS)
        assert get(url, "/", {"Host": "elsewhere.example"})[0] == 403


# Whom it refuses


def ask(address, *lines, path="/"):
    """What a server answers to a request with these header lines: its status and the rest."""
    with socket.create_connection(address, SECONDS) as line:
        line.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "Connection: close", "", ""]).encode("latin-1"))
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    return int(answer.split()[1]), answer.decode("latin-1")


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def shake(address, *lines):
    """The status of a WebSocket's handshake with these header lines."""
    with socket.create_connection(address, SECONDS) as line:
        line.sendall("\r\n".join(["GET /live HTTP/1.1", *lines, *UPGRADE, "", ""]).encode("latin-1"))
        return int(line.recv(65536).split()[1])


@pytest.fixture
def served(runtime_bundle, pictures, capfd):
    """Serves a page on any host; nothing that it is asked may end in a traceback."""
    with contextlib.ExitStack() as stack:
        player = stack.enter_context(playing(runtime_bundle, endlessly(pictures)))

        def serve(host):
            url = urlsplit(stack.enter_context(serving(player, host)))
            return url.hostname, url.port

        yield serve
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out


STRANGE = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil", "xn--e1afmkfd", "a_b.example"]


@pytest.mark.parametrize(
    ("host", "own", "others"),
    [
        ("127.0.0.1", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"], ["127.0.0.2", "192.0.2.1", "0.0.0.0"]),
        ("127.0.0.2", ["127.0.0.2", "localhost"], ["192.0.2.1", "127.0.0.3"]),
        ("::1", ["[::1]", "localhost", "[0:0:0:0:0:0:0:1]"], ["::1", "[::2]", "192.0.2.1"]),
        ("[::1]", ["[::1]"], ["[::2]"]),
        ("localhost", ["localhost", "127.0.0.1"], ["192.0.2.1"]),
        ("0.0.0.0", ["192.0.2.1", "localhost", "127.0.0.1", "[2001:db8::1]", socket.gethostname()], ["2001:db8::1"]),
        ("", ["192.0.2.1", "localhost"], []),
        ("::", ["[2001:db8::1]", "localhost"], ["localhost."]),
    ],
)
def test_names_of_a_server(served, host, own, others):
    """On any address, only those who call it by a name of its own get anything."""
    address = served(host)
    for name in own:
        for port in ("", ":8000", f":{address[1]}"):
            assert ask(address, f"Host: {name}{port}")[0] == 200, name
            assert shake(address, f"Host: {name}{port}", f"Origin: http://{name}{port}") == 101, name
    for name in [*others, *STRANGE, "user@localhost", "localhost/x", "[::1", "[", "[]", ":80", "", "localhost:x", "é"]:
        for path in ("/", "/static/app.js", "/nothing"):
            status, text = ask(address, f"Host: {name}", path=path)
            assert status in (400, 403) and (status == 400 or "edgemoe demo --host NAME" in text), name
        assert shake(address, f"Host: {name}") in (400, 403)
    assert ask(address, "Host: localhost", "Host: localhost")[0] in (400, 403)
    assert ask(address)[0] in (400, 403)


def test_a_name_that_leads_here(monkeypatch):
    """A server that was started by a name may be called by it, and by the addresses that it has."""
    found = [(2, 1, 6, "", ("192.0.2.7", 0)), (10, 1, 6, "", ("2001:db8::7%eth0", 0, 0, 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    assert own_names("Board.example") == {"board.example", "192.0.2.7", "2001:db8::7"}
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", ("127.0.0.1", 0))])
    assert own_names("my-machine") == {"my-machine", "localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_origins(served, host):
    """Only a page that came from here may open the WebSocket; a program that is no browser sends no origin."""
    address = served(host)
    name = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    assert shake(address, f"Host: {name}") == 101
    assert shake(address, f"Host: {name}", f"Origin: http://{name}") == 101
    for origin in (
        "http://[",
        "http://]",
        "http://[::1",
        "null",
        "",
        "://",
        "http://",
        f"https://{name}",
        f"ftp://{name}",
        f"ws://{name}",
        f"http://user@{name}",
        f"http://{name}.evil.example",
        f"http://{name}/",
        f"http://{name}/page",
        f"http://{name}0",
        f"http://{name} http://{name}",
        "http://evil.example",
        "http://localhost:3000",
        name,
        "http://\xff\xfe",
        "x" * 5000,
    ):
        assert shake(address, f"Host: {name}", f"Origin: {origin}") == 403, origin
    assert shake(address, f"Host: {name}", f"Origin: http://{name}", "Origin: http://evil.example") in (400, 403)
    assert ask(address, f"Host: {name}", "Origin: http://evil.example")[0] == 403


def test_paths_that_are_none(served):
    address = served("127.0.0.1")
    for name in ("", "../server.py", "%2e%2e/server.py", "..%2fserver.py", "%00", "a" * 5000):
        assert ask(address, "Host: localhost", path=f"/static/{name}")[0] == 404
    assert ask(address, "Host: localhost", path="//")[0] == 404


COMMANDS = [
    "",
    "x",
    "null",
    "1",
    "[]",
    "{}",
    '"task"',
    '["task", "on"]',
    '{"task": {"a": 1}, "on": true}',
    '{"task": "depth", "on": 1}',
    '{"task": "depth", "on": null}',
    '{"task": "depth", "on": true, "paused": null}',
    '{"task": "depth", "on": true, "on2": true}',
    '{"paused": "yes"}',
    '{"paused": ' + "9" * 5000 + "}",
    '{"paused": NaN}',
    "[" * 1_000_000,
    '{"a":' * 10_000,
    '{"task": "\\ud800", "on": true}',
    '{"task": "' + "a" * 900_000 + '", "on": true}',
    b"\x00\xff",
    b"",
    b'{"paused": true}',
]


def test_commands_that_are_none(runtime_bundle, pictures, capfd):
    """Each is refused, and the viewer stays; what is longer than any command ends its own connection only."""
    with playing(runtime_bundle, endlessly(pictures)) as player, serving(player) as url:
        address = url.replace("http", "ws") + "live"
        with connect(address) as viewer, connect(address) as other:
            for command in COMMANDS:
                viewer.send(command)
                while not isinstance(message := viewer.recv(SECONDS), str) or json.loads(message)["type"] != "refused":
                    pass
                has_form = "aaa" in str(command)  # half a character is none
                expected = "this bundle has no task" if has_form else "this is no command"
                assert json.loads(message)["message"].startswith(expected) and len(message) < 500
            assert player.state["tasks"] == ("segmentation", "depth") and not player.state["paused"]
            viewer.send("x" * 2**21)
            with pytest.raises(ConnectionClosedError, match="1009"):
                for _ in range(10**6):
                    viewer.recv(SECONDS)
            before = player.count
            while not isinstance(message := other.recv(SECONDS), bytes) or decode(message)[0]["number"] <= before:
                pass
            other.send('{"paused": true}')
            while not isinstance(message := other.recv(SECONDS), str) or not json.loads(message).get("paused"):
                pass
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out


def test_viewers_that_vanish(served):
    """Whatever they leave behind: half a handshake, a connection that is cut, a close in the middle of a frame."""
    address = served("127.0.0.1")
    for number in range(12):
        line = socket.create_connection(address, SECONDS)
        if number % 3:
            line.sendall("\r\n".join(["GET /live HTTP/1.1", "Host: localhost", *UPGRADE, "", ""]).encode())
        if number % 3 == 2:
            assert line.recv(12).startswith(b"HTTP/1.1 101")
            line.sendall(b"\xff\xff\xff" if number % 2 else b"\x81")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # cut, not closed
        line.close()
    assert shake(address, "Host: localhost") == 101


def test_names_of_files_that_are_no_text(runtime_bundle, pictures):
    """An error may name one; all viewers hear of it and stay."""

    def source():
        yield ValueError("\udcff.png: not a readable image")
        yield from endlessly(pictures)

    with playing(runtime_bundle, source()) as player, serving(player) as url:
        with connect(url.replace("http", "ws") + "live") as viewer:
            while not isinstance(message := viewer.recv(SECONDS), str) or not json.loads(message).get("error"):
                pass
            while not isinstance(viewer.recv(SECONDS), bytes):
                pass
