"""A file of `fxtrt.save` that somebody made on purpose runs no code and touches no file, neither
when it is loaded nor when the model is called."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from artifact_edits import Edited, rewrite
from artifact_models import CASES, case
from torch import nn

import fxtrt
from fxtrt.errors import ArtifactError

Edit = Callable[[Edited], Any]
CODE = "print('ran')"
FEW_SECONDS = 5


@pytest.fixture(scope="module")
def firsts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    paths = {}
    for name in ("dynamic", "nested"):
        _, sizes, (example, *_) = CASES[name]
        options: dict[str, Any] = {"engine": "reference", "min_cluster_size": 1}
        fast = fxtrt.compile(case(name), example, dynamic_shapes=sizes, **options)
        paths[name] = folder / f"{name}.fxtrt"
        fxtrt.save(fast, paths[name])
    return paths


@pytest.fixture
def load(
    firsts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., nn.Module]:
    """Loads an edited file in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def load_edited(name: str, edit: Edit, **options: Any) -> nn.Module:
        path = Path(shutil.copy(firsts[name], tmp_path))
        rewrite(path, edit)
        return fxtrt.load(path, case(name), **options)

    return load_edited


def node(edited: Edited, op: str) -> Any:
    return next(row for row in edited.graph["nodes"] if row[1] == op)


def name_argument(text: str) -> Edit:
    return lambda edited: edited.graph["names"].append(text)


def rename_argument(text: str) -> Edit:
    return lambda edited: edited.graph["names"].__setitem__(0, text)


def retarget(op: str, text: str) -> Edit:
    def edit(edited: Edited) -> None:
        row = node(edited, op)
        edited.graph["attributes"][text] = edited.graph["attributes"].get(row[2])
        row[2] = text

    return edit


def rename_node(text: str) -> Edit:
    return lambda edited: node(edited, "call_function").__setitem__(0, text)


def add_keyword(text: str) -> Edit:
    return lambda edited: node(edited, "call_function")[4]["dict"].update({text: 1})


def take_keyword(text: str) -> Edit:
    def edit(edited: Edited) -> None:
        leaf: Any = {"type": None, "context": None, "children_spec": []}
        keywords = edited.graph["takes"]["children_spec"][1]
        keywords.update(context=f'["{text}"]', children_spec=[leaf])
        edited.graph["names"].append("more")

    return edit


def default(value: Any) -> Edit:
    return lambda edited: node(edited, "placeholder")[3]["tuple"].append(value)


def come_from(text: str, position: int) -> Edit:
    return lambda edited: node(edited, "call_function").__setitem__(position, text)


NAMES: dict[str, Edit] = {
    "argument": name_argument(f"y={CODE}"),
    "argument, another line": rename_argument(f"x):\n    {CODE}\ndef f(y"),
    "argument, keyword": rename_argument("lambda"),
    "argument, dotted": rename_argument("x.y"),
    "argument, read as another by Python": rename_argument("\uff58"),
    "argument, a name of torch's source": rename_argument("fx_pytree"),
    "placeholder": retarget("placeholder", f"x, _ = {CODE}, 1; x"),
    "placeholder, keyword": retarget("placeholder", "None"),
    "placeholder, starred": retarget("placeholder", "*x"),
    "placeholder, a name of torch's source": retarget("placeholder", "torch"),
    "placeholder, default": default("1"),
    "attribute": retarget("get_attr", f'a") or {CODE} or ("'),
    "attribute, keyword": retarget("get_attr", "first.weight if True"),
    "attribute of all objects": retarget("get_attr", "__class__.forward"),
    "node": rename_node(f"x = {CODE}; y"),
    "node, keyword": rename_node("return"),
    "node, another's name": rename_node("print"),
    "keyword": add_keyword(f"a={CODE}, b"),
    "keyword of the call": take_keyword(f"a':{CODE}, 'b"),
    "keyword of the call, no name": take_keyword("class"),
    "frame": come_from(f'File "a", line 1, in f"""\n{CODE}\n"""', 6),
    "frame, one line": come_from(f'File "a", line 1, in f"""+{CODE}+"""', 6),
    "frame, no frame": come_from(CODE, 6),
    "path": come_from(f'a"""\n{CODE}\n"""', 7),
    "path, one line": come_from(f'a"""+{CODE}+"""', 7),
}


@pytest.mark.parametrize("edit", NAMES.values(), ids=NAMES)
def test_no_text_becomes_code(
    edit: Edit, load: Callable[..., nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArtifactError):
        load("dynamic", edit)
    assert capfd.readouterr().out == ""


def test_keys_that_are_no_identifiers_are_keys(
    load: Callable[..., nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    """Those of dictionaries in arguments and results are data: models have such."""

    def edit(edited: Edited) -> None:
        edited.graph["gives"]["context"] = f'["pair", "\': {CODE}, \'"]'
        images = edited.graph["takes"]["children_spec"][0]["children_spec"][0]
        images["context"] = f'["x", "\\"\\"\\"+{CODE}"]'

    loaded = load("nested", edit)
    (example,) = CASES["nested"][2][0]
    with torch.no_grad():
        expected = case("nested")(example)
        found = loaded({"x": example["x"], f'"""+{CODE}': example["scale"]})
    assert list(found) == ["pair", f"': {CODE}, '"]
    torch.testing.assert_close(found[f"': {CODE}, '"], expected["sum"])
    assert capfd.readouterr().out == ""


def call(target: str, *args: Any) -> Edit:
    """Another call before the output, which takes part in nothing."""

    def edit(edited: Edited) -> None:
        row = ["more", "call_function", target, {"tuple": list(args)}, {"dict": {}}, [], "", ""]
        edited.graph["nodes"].insert(-1, row)

    return edit


FIRST = {"node": "x"}
CALLS: dict[str, Edit] = {
    "a file as a tensor": call("aten.from_file.default", "treasure", True, 4),
    "a file is written": call("image.write_file.default", "treasure", FIRST),
    "a file is read": call("image.read_file.default", "treasure"),
    "a tensor is read": call("debugprims.load_tensor.default", "treasure"),
    "an input is overwritten": call("aten.fill_.Scalar", FIRST, 0),
    "an out argument": call("aten.relu.out", FIRST),
    "a warning": call("aten.warn.default", "treasure", 2),
    "a text": call("aten._print.default", "treasure"),
    "TorchScript": call("aten.add.str", "treas", "ure"),
    "the seed": call("aten.manual_seed.default", 1),
    "the profiler": call("profiler._record_function_enter_new.default", "treasure"),
    "other processes": call("_c10d_functional.all_reduce.default", FIRST, "sum", "0"),
    "memory unchecked": call("aten._nested_view_from_buffer.default", FIRST, FIRST, FIRST, FIRST),
    "indices unchecked": call("aten.sparse_coo_tensor.indices_size", FIRST, FIRST, [4]),
    "compressed indices": call("aten.sparse_csr_tensor.crow_col_value", FIRST, FIRST, FIRST),
    "a gradient's indices": call("aten.max_pool2d_backward.default", FIRST, FIRST, [2]),
    "ragged indices": call("aten.segment_reduce.default", FIRST, "sum"),
    "another library's memory": call("aten.mkldnn_linear.default", FIRST, FIRST),
    "packed memory": call("aten.fbgemm_linear_fp16_weight.default", FIRST, FIRST, FIRST),
    "an engine's cache": call("aten._cufft_clear_plan_cache.default", {"device": "cuda"}),
    "Python": call("builtins.eval", "1"),
    "what torch.ops has": call("load_library.__call__.default", "treasure"),
    "too few arguments": call("aten.relu.default"),
    "too many arguments": call("aten.relu.default", FIRST, 1),
}


@pytest.mark.parametrize("edit", CALLS.values(), ids=CALLS)
def test_only_what_computes_is_called(
    edit: Edit, load: Callable[..., nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision", reason="it has the operators that write files")
    Path("treasure").write_bytes(b"0123456789abcdef")
    with pytest.raises(ArtifactError):
        load("dynamic", edit)
    assert Path("treasure").read_bytes() == b"0123456789abcdef"
    assert [path.name for path in Path().iterdir()] == ["treasure"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("target", "last"),
    [
        ("aten.native_batch_norm.default", [True, 0.5, 1e-5]),
        ("aten.batch_norm.default", [True, 0.5, 1e-5, False]),
        ("aten.instance_norm.default", [True, 0.5, 1e-5, False]),
        ("aten.cudnn_batch_norm.default", [True, 0.5, 1e-5]),
        ("aten.copy_.default", None),
    ],
)
def test_weights_are_not_written_to(
    target: str, last: list[Any] | None, load: Callable[..., nn.Module]
) -> None:
    def edit(edited: Edited) -> None:
        nodes = {row[2]: {"node": row[0]} for row in edited.graph["nodes"]}
        names = ("weight", "bias", "running_mean", "running_var")
        norm = [nodes[f"norm.{name}"] for name in names]
        args = [norm[0], norm[1]] if last is None else [FIRST, *norm, *last]
        call(target, *args)(edited)

    with pytest.raises(ArtifactError, match=r"writes to|no file may call"):
        load("dynamic", edit)


def test_an_operator_of_ones_own_is_named(
    load: Callable[..., nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    def tell(x: torch.Tensor) -> torch.Tensor:
        print("ran")
        return x.clone()

    with torch.library._scoped_library("attacks", "FRAGMENT") as library:
        library.define("tell(Tensor x) -> Tensor")
        library.impl("tell", tell, "CompositeExplicitAutograd")
        edit = call("attacks.tell.default", FIRST)
        with pytest.raises(ArtifactError, match=r"operators=\['attacks.tell.default'\]"):
            load("dynamic", edit)
        load("dynamic", edit, operators=["attacks.tell.default"])
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["cache_dir", "cache_limit_bytes", "fuel", "no_such_setting"])
def test_settings_of_the_machine_are_not_read(name: str, load: Callable[..., nn.Module]) -> None:
    with pytest.raises(ArtifactError, match=f"no file may have the setting '{name}'"):
        load("dynamic", lambda edited: edited.manifest["settings"].update({name: "elsewhere"}))
    assert list(Path().iterdir()) == []


def add_rows(*rows: Any) -> Edit:
    """More expressions; rows name others from the first of them on."""

    def edit(edited: Edited) -> None:
        table, first = edited.graph["expressions"], len(edited.graph["expressions"])
        for kind, *content in rows:
            if kind == "call":
                content[1] = [first + row for row in content[1]]
            table.append([kind, *content])
        edited.graph["environment"]["guards"].append(len(table) - 1)

    return edit


def rename_symbol(text: str) -> Edit:
    def edit(edited: Edited) -> None:
        next(row for row in edited.graph["expressions"] if row[0] == "symbol")[1] = text

    return edit


ADD, MUL, POW = "sympy.core.add.Add", "sympy.core.mul.Mul", "sympy.core.power.Pow"
FUNCTIONS = "torch.utils._sympy.functions"
TEN = ["integer", 10]
SIZES: dict[str, Edit] = {
    "code as a symbol": rename_symbol("__import__('builtins').print('ran')"),
    "a built-in function as a symbol": rename_symbol("print"),
    "a tower of powers": add_rows(TEN, ["call", POW, [0, 0]], ["call", POW, [0, 1]]),
    "a power": add_rows(TEN, ["integer", 10**10], ["call", POW, [0, 1]]),
    "a natural power": add_rows(
        TEN, ["integer", 10**10], ["call", f"{FUNCTIONS}.PowByNatural", [0, 1]]
    ),
    "a shift": add_rows(TEN, ["integer", 2**40], ["call", f"{FUNCTIONS}.LShift", [0, 1]]),
    "an exponential": add_rows(
        ["integer", 10**18], ["call", f"{FUNCTIONS}.OpaqueUnaryFn_exp", [0]]
    ),
    "many squares": add_rows(
        TEN, ["integer", 2], *(["call", POW, [row or 0, 1]] for row in (0, *range(2, 60)))
    ),
    "a sum twice itself": add_rows(TEN, *(["call", ADD, [row, row]] for row in range(100))),
    "a long product": add_rows(TEN, ["call", MUL, [0] * 100_000]),
    "a deep one": add_rows(TEN, TEN, *(["call", ADD, [0, row]] for row in range(1, 3000))),
    "a row that comes later": add_rows(["call", ADD, [1, 1]], TEN),
    "a denominator of none": add_rows(["rational", 1, 0]),
    "many digits": add_rows(["integer", 10**100]),
    "no number": add_rows(["float", "nan"]),
    "a text": add_rows(["eval", CODE]),
    "a class": add_rows(["call", "sympy.core.function.Lambda", []]),
    "a function": add_rows(["call", "os.system", []]),
}


@pytest.mark.parametrize("edit", SIZES.values(), ids=SIZES)
def test_sizes_are_small_expressions(
    edit: Edit, load: Callable[..., nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.perf_counter()
    with pytest.raises(ArtifactError):
        load("dynamic", edit)
    assert time.perf_counter() - begun < FEW_SECONDS
    assert capfd.readouterr().out == ""


FORMS: dict[str, tuple[int, Any]] = {
    "a huge shape": (1, [1 << 40]),
    "a shape of many digits": (1, [1 << 62, 1 << 62]),
    "a negative shape": (1, [-4]),
    "many dimensions": (1, [1] * 100),
    "huge strides": (2, [1, 1 << 40]),
    "negative strides": (2, [-1, 1]),
    "strides of nothing": (2, [0, 0]),
    "another dtype": (0, "float64"),
    "no dtype": (0, "load"),
    "a storage": (0, "Storage"),
    "no device": (3, "nowhere"),
    "a device that is not there": (3, "cuda:77"),
}


@pytest.mark.parametrize(("position", "value"), FORMS.values(), ids=FORMS)
def test_constants_are_as_large_as_their_bytes(
    position: int, value: Any, load: Callable[..., nn.Module]
) -> None:
    def edit(edited: Edited) -> None:
        edited.manifest["parts"][0]["constants"][0][position] = value

    with pytest.raises(ArtifactError):
        load("nested", edit)
