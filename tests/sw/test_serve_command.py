"""``edgemoe serve``: what it refuses before it serves; how it ends is in test_serve_limits.py."""

import pytest

from edgemoe.extras import install_command
from edgemoe.web.listening import listen
from support.serving import TOKEN

PORT = ("--port", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.emoe"], "none.emoe: there is no such file; make a bundle with edgemoe compile"),
        (["{bundle}", "--device", "gpu"], "device must be one of reference, sim, pynq, serial, remote, not 'gpu'"),
        (["{bundle}", "--host", "0.0.0.0"], "0.0.0.0 can be reached from elsewhere, which needs a token: --token-file"),
        (["{bundle}", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1, port 0: Cannot assign"),
        (["{bundle}", "{bundle}", "--device", "pynq"], "device pynq has one accelerator, which holds one bundle"),
        (["{bundle}", "--serial-port", "/dev/x"], "device reference has no option port; it has resize, notes, depth"),
        (["{bundle}", "--token-file", "{folder}/none"], "none: the token cannot be read (No such file or directory)"),
        (
            ["{bundle}", "--token-file", "{folder}/short"],
            "short: a token must be at least 16 letters, digits or -._~+/=",
        ),
        (["{bundle}", "--token-file", "{folder}/strange"], "strange: a token must be at least 16 letters"),
    ],
)
def test_refusals_are_one_line(edgemoe, arguments, message, compiled, tmp_path, monkeypatch):
    monkeypatch.delenv("EDGEMOE_TOKEN", raising=False)
    (tmp_path / "short").write_text("secret\n")
    (tmp_path / "strange").write_text("of two words, and more\n")
    given = [text.format(bundle=compiled, folder=tmp_path) for text in arguments]
    edgemoe("serve", *given, *PORT).refused("edgemoe: ", message)


def test_the_environment_s_token_is_checked(edgemoe, compiled, monkeypatch):
    monkeypatch.setenv("EDGEMOE_TOKEN", "secret")
    edgemoe("serve", compiled, *PORT).refused("edgemoe: EDGEMOE_TOKEN: a token must be at least 16 letters")


def test_needs_bundles(edgemoe):
    assert edgemoe("serve").code == 2


def test_a_port_in_use(edgemoe, compiled):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        edgemoe("serve", compiled, "--port", port).refused(f"port {port} of 127.0.0.1 is in use")


def test_without_the_extra(edgemoe, monkeypatch, compiled):
    monkeypatch.setattr("edgemoe.extras.is_installed", lambda module: module != "prometheus_client")
    edgemoe("serve", compiled).refused(
        f"edgemoe: edgemoe serve needs a web server and Prometheus' client: {install_command('serve')}\n"
    )


def test_a_token_of_a_file_opens_every_address(edgemoe, compiled, tmp_path, monkeypatch):
    """What is started is what was asked for."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    started = []
    monkeypatch.setattr("edgemoe.serve.server.serve", lambda server, *rest: started.append((server, *rest)))
    edgemoe.ok(
        "serve", compiled, "m3vit-micro-w4a8-pynq-z2", *PORT, "--host", "0.0.0.0", "--token-file", tmp_path / "token",
        "--grace", 2, "--timeout", 7,
    )  # fmt: skip
    server, listening, grace, timeout, _ = started[0]
    assert (grace, timeout) == (2, 7) and listening.fileno() == -1 and server.is_draining
