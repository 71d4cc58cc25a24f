"""Results that can be made again: one folder, entries whole, torn ones made anew, no process fails."""

import multiprocessing
import sys
import warnings
from pathlib import Path

import pytest

import edgemoe_models
from edgemoe_models.storage import cache
from edgemoe_models.storage.cache import cache_root, cached, cached_folder, cached_text, is_sealed, seal

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """As if the package were in site-packages."""
    monkeypatch.delenv("EDGEMOE_BUILD", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "site-packages/edgemoe_models/storage/cache.py"))
    return tmp_path / "caches" / "edgemoe"


def test_checkout(monkeypatch):
    monkeypatch.delenv("EDGEMOE_BUILD", raising=False)
    assert Path(edgemoe_models.__file__).is_relative_to(CHECKOUT)
    assert cache_root() == CHECKOUT / "build"


def test_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEMOE_BUILD", str(tmp_path / "x"))
    assert cache_root() == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEMOE_BUILD", "relative")
    assert cache_root() == tmp_path / "relative"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="XDG_CACHE_HOME is Linux's")
def test_installed(installed, monkeypatch):
    assert cache_root() == installed
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert cache_root() == installed
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_root() == Path("/home/someone/.cache/edgemoe")


def test_a_text_is_made_once_and_again_when_it_is_torn(tmp_path):
    made = []

    def make():
        made.append(1)
        return "é\n" * 1000

    path = tmp_path / "new" / "text"
    assert cached_text(path, make) == cached_text(path, make) == "é\n" * 1000 and len(made) == 1
    whole = path.read_bytes()
    for torn in (whole[:100], whole[:-1], b"", b"\xff", whole.replace(b"\n", b" ")):
        path.write_bytes(torn)
        assert cached_text(path, make) == "é\n" * 1000
        assert path.read_bytes() == whole
    path.unlink()
    path.mkdir()  # something else is in the way
    with pytest.warns(RuntimeWarning, match="cannot be written: Is a directory; it will be made again"):
        assert cached_text(path, make) == "é\n" * 1000


def test_a_makers_own_error_comes_through(tmp_path):
    def make():
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        cached(tmp_path / "x", lambda path: path.read_bytes(), make, bytes)
    assert not list(tmp_path.iterdir())


def read_pair(folder: Path) -> bytes:
    first, second = (folder / "a").read_bytes(), (folder / "b").read_bytes()
    if first != second or len(first) != 100_000:
        raise ValueError("torn")
    return first


def fill_pair(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).write_bytes(bytes(100_000))


def test_a_folder_is_made_again_when_it_is_torn(tmp_path):
    folder = tmp_path / "new" / "pair"
    assert cached_folder(folder, read_pair, fill_pair) == bytes(100_000)
    cached_folder(folder, read_pair, lambda folder: pytest.fail("made twice"))
    (folder / "b").unlink()
    (folder / "foreign").write_bytes(b"x")
    assert cached_folder(folder, read_pair, fill_pair) == bytes(100_000)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_seals(tmp_path):
    path = tmp_path / "library"
    path.write_bytes(b"whole")
    assert not is_sealed(path)
    seal(path)
    assert is_sealed(path)
    path.write_bytes(b"whol")
    assert not is_sealed(path)
    path.unlink()
    assert not is_sealed(path)


def _need(kind: str, path: Path, start: object, results: object) -> None:
    warnings.simplefilter("error")
    start.wait()
    try:
        if kind == "folder":
            result = cached_folder(path, read_pair, fill_pair)
        else:
            result = cached_text(path, lambda: "x" * 100_000).encode()
        results.put(len(result))
    except BaseException as error:
        results.put(repr(error))


@pytest.mark.parametrize("kind", ["text", "folder"])
def test_processes_that_meet_a_torn_entry_all_get_it(tmp_path, kind):
    context = multiprocessing.get_context("fork")
    for repetition in range(10):
        path = tmp_path / str(repetition)
        if kind == "folder":
            path.mkdir()
            (path / "a").write_bytes(bytes(10))
        else:
            path.write_bytes(b"torn")
        start, results = context.Barrier(4), context.SimpleQueue()
        processes = [context.Process(target=_need, args=(kind, path, start, results)) for _ in range(4)]
        for process in processes:
            process.start()
        assert [results.get() for _ in processes] == [100_000] * 4
        for process in processes:
            process.join()
    assert not list(tmp_path.glob("**/*.partial"))


def test_results_lie_in_a_folder_of_edgemoes_own(installed):
    assert cache.results_root() == Path("edgemoe-results")


def test_results_of_a_checkout():
    assert cache.results_root() == Path("build")
