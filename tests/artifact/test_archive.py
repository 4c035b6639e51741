"""A file of `fxtrt.save` is whole or refused, and can name nothing but a graph."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from artifact_edits import Edited, rewrite
from artifact_models import CASES, case

import fxtrt
from fxtrt.artifact.archive import ArtifactFile
from fxtrt.errors import ArtifactError


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, sizes, (example, *_) = CASES["dynamic"]
    fast = fxtrt.compile(case("dynamic"), example, dynamic_shapes=sizes, engine="reference")
    path: Path = tmp_path_factory.mktemp("saved") / "model.fxtrt"
    fxtrt.save(fast, path)
    return path


@pytest.fixture
def saved(first: Path, tmp_path: Path) -> Path:
    """A file of the "dynamic" model."""
    return Path(shutil.copy(first, tmp_path))


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ArtifactError, match="is no regular file"):
            ArtifactFile(path)
    with pytest.raises(IsADirectoryError):
        ArtifactFile(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(share: float, saved: Path) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ArtifactError, match=r"cut short|damaged"):
        fxtrt.load(saved, case("dynamic"))


def test_a_changed_byte_is_refused_wherever_it_is(saved: Path) -> None:
    data = saved.read_bytes()
    with ArtifactFile(saved) as file:
        graph = file.read("graphs/0.json")
    places = [data.index(graph), data.index(graph) + len(graph) // 2, data.index(b'{"model"') + 40]
    for place in (*places, len(data) - 3):
        changed = bytearray(data)
        changed[place] ^= 1
        saved.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"damaged|cut short|no artifact"):
            fxtrt.load(saved, case("dynamic"))
    saved.write_bytes(data)
    fxtrt.load(saved, case("dynamic"))


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_file_of_another_version_is_refused_with_the_way_out(number: int, saved: Path) -> None:
    data = saved.read_bytes()
    assert data.count(b"fxtrt artifact 4 ") == 1
    saved.write_bytes(data.replace(b"fxtrt artifact 4 ", b"fxtrt artifact %d " % number))
    with pytest.raises(ArtifactError, match="another version of fxtrt: compile the model again"):
        fxtrt.load(saved, case("dynamic"))


def call_another(name: str) -> Callable[[Edited], Any]:
    def change(edited: Edited) -> None:
        node = next(node for node in edited.graph["nodes"] if node[1] == "call_function")
        node[2] = name

    return change


def add_expression(*content: Any) -> Callable[[Edited], Any]:
    return lambda edited: edited.graph["expressions"].append(list(content))


def hold(value: Any) -> Callable[[Edited], Any]:
    return lambda edited: edited.graph["nodes"][-1][4].update({"dict": {"x": value}})


def take(kind: str, context: str) -> Callable[[Edited], Any]:
    return lambda edited: edited.graph["takes"].update({"type": kind, "context": context})


@pytest.mark.parametrize(
    "change",
    [
        call_another("torch.os.system"),
        call_another("builtins.eval"),
        call_another("aten.no_such_operator.default"),
        call_another("load_library.__call__.default"),
        add_expression("call", "sympy.core.function.Lambda", []),
        add_expression("call", "os.system", []),
        add_expression("eval", "1 + 1", []),
        hold({"torch": "load"}),
        hold({"pickle": "..."}),
        take("collections.defaultdict", '{"default_factory_module": "os"}'),
        take("builtins.dict", '[{"__enum__": true, "fqn": "antigravity:x", "name": "y"}]'),
        lambda edited: edited.graph["attributes"].update({"first.weight": ["weight", "another"]}),
        lambda edited: edited.graph["nodes"].pop(0),
        lambda edited: edited.graph.pop("nodes"),
    ],
)
def test_a_file_can_name_nothing_but_a_graph(change: Callable[[Edited], Any], saved: Path) -> None:
    rewrite(saved, lambda edited: None)
    fxtrt.load(saved, case("dynamic"))
    rewrite(saved, change)
    with pytest.raises(ArtifactError):
        fxtrt.load(saved, case("dynamic"))
    assert "antigravity" not in sys.modules


def packed(path: Path, **options: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        comment = archive.comment
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.comment = comment
        for name, data in members.items():
            archive.writestr(name, data)


def test_a_member_of_many_gigabytes_has_another_header(saved: Path) -> None:
    size = saved.stat().st_size
    with zipfile.ZipFile(saved) as archive:
        comment = archive.comment
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w") as archive:
        archive.comment = comment
        for name, data in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    assert saved.stat().st_size == size + 20 * len(members)
    fxtrt.load(saved, case("dynamic"))


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("manifest.json", "{}")


def one_more(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", b"0" * 1000)


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("graphs/0.json2", b"0" * (64 << 20))


def gap(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())


@pytest.mark.parametrize(
    "change",
    [
        lambda path: packed(path, compression=zipfile.ZIP_DEFLATED),
        lambda path: packed(path, compression=zipfile.ZIP_BZIP2),
        twice,
        one_more,
        bomb,
        gap,
    ],
)
def test_only_members_that_were_saved_are_read(change: Callable[[Path], None], saved: Path) -> None:
    packed(saved)
    fxtrt.load(saved, case("dynamic"))
    change(saved)
    with pytest.raises(ArtifactError, match=r"damaged|names other members"):
        fxtrt.load(saved, case("dynamic"))


_WRITER = """
import sys
from pathlib import Path
from fxtrt.artifact.archive import ArtifactFile, write_artifact

path, letter = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(40):
    write_artifact(path, {"by": letter}, [("data", letter.encode() * (100_000 + turn))])
    with ArtifactFile(path) as file:
        data, by = file.read("data").decode(), file.manifest["by"]
    assert data == by * len(data), "a mixture of two files"
"""


def test_two_processes_that_save_at_once_do_not_mix_their_files(tmp_path: Path) -> None:
    path = tmp_path / "model.fxtrt"
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), letter], text=True, **pipes)
        for letter in "ab"
    ]
    ready = [writer.stdout.readline() for writer in writers if writer.stdout is not None]
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda writer: writer.communicate("go\n"), writers))
    assert [writer.returncode for writer in writers] == [0, 0], ends
    assert ready == ["ready\n"] * 2
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
