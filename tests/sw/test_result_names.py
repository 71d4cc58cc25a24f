"""Results of different pictures never share a name."""

from pathlib import Path

import pytest

from edgemoe.reports.names import result_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["x.png"], ["x"]),
        (["a/x.png"], ["x"]),
        (["/p/a/x.png", "/p/a/y.jpg"], ["x", "y"]),
        (["a/x.png", "b/x.png"], ["a/x", "b/x"]),
        (["a/x.png", "b/y.png"], ["a/x", "b/y"]),
        (["x.png", "a/b/x.png"], ["x", "a/b/x"]),
        (["x.png", "x.jpg", "y.png"], ["x.png", "x.jpg", "y"]),
        (["x.png", "X.png"], ["x.png", "X.png-2"]),
        (["x.png", "X.PNG", "x.Png"], ["x.png", "X.PNG-2", "x.Png-3"]),
        (["a/x.png", "A/x.png"], ["a/x.png", "A/x.png-2"]),
        (["é.png", "e\u0301.png"], ["é.png", "e\u0301.png-2"]),
        (["x.png", "x.jpg", "x.png.bmp"], ["x.png", "x.jpg", "x.png-2"]),
        (["x", "x.png"], ["x", "x.png"]),
        (["a/../b/x.png", "b/x.png", "b/y.png"], ["x", "x", "y"]),
        (["../x.png", "x.png"], ["x", f"{Path.cwd().name}/x"]),
        (["x.tar.gz", ".png", "a.b.png"], ["x.tar", ".png", "a.b"]),
    ],
)
def test_names(paths, names):
    assert result_names(paths) == names
    assert result_names([Path(path) for path in paths]) == names


def test_tasks_are_part_of_the_name():
    assert result_names(["a.png", "a-b.png"], ["c", "b-c"]) == ["a", "a-b-2"]
    assert result_names(["a.png", "a-b.png"], ["c", "d"]) == ["a", "a-b"]


def test_a_larger_run_keeps_them_apart():
    """Any mixture of folders, suffixes and cases: as many names as pictures, and none is another's."""
    paths = [
        f"{folder}/{stem}.{suffix}"
        for folder in (".", "a", "A", "a/x", "b")
        for stem in ("x", "X", "x-2", "x.png", "y")
        for suffix in ("png", "PNG", "jpg")
    ]
    names = result_names(paths, ["depth", "png-depth"])
    files = [f"{name}-{task}".casefold() for name in names for task in ("depth", "png-depth")]
    assert len(set(files)) == len(files) == 2 * len(paths)
    assert names == result_names(paths, ["depth", "png-depth"])
