"""Imports point one way, and `import torchdcls` needs torch alone."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from missing import OPTIONAL, run_without

from torchdcls.ops.conv import METHOD_NAMES

ROOT = Path(__file__).parent.parent
# The library, and what uses it: each may import those before it. What results say of themselves is a module.
PACKAGES = {"torchdcls": "src", "torchdcls_results": "src", "torchdcls_train": "src", "studies": ".", "benchmarks": "."}
RANK = {package: rank for rank, package in enumerate(PACKAGES)}
SOURCE = ROOT / "src" / "torchdcls"
# profiles, _checks, _extras, _files <- ops <- nn <- conversion <- models <- deployment <- cli
ROOMS = ("ops", "nn", "conversion", "models", "deployment", "cli")
ORDER = dict.fromkeys(("profiles", "_checks", "_extras", "_files"), 0)
ORDER |= {name: number for number, name in enumerate(ROOMS, start=1)}
# Beside conversion, models and deployment; neither of two knows the other.
ORDER["optim"] = ORDER["conversion"]
ORDER["delays"] = ORDER["models"]
ORDER["inspection"] = ORDER["deployment"]
# Rooms beside that order, and the last room of it that they may use.
BESIDE = {"native": "ops", "plots": "_checks", "testing": "ops"}
FRONT_DOORS = {"", "__main__"}
# The benchmark that is a training, and what makes the benchmarks' records and their tables.
TRAINS = "benchmarks.fine_tuning"
WRITERS = ("benchmarks.record", "benchmarks.tables", "benchmarks.publish")
# Packages that only some places may import.
RESERVED = {
    "triton": {"torchdcls.ops.conv.triton", "torchdcls.ops.triton"},
    "timm": {*(f"torchdcls.{room}" for room in ("conversion", "models", "deployment")), *PACKAGES} - {"torchdcls"},
    "matplotlib": {"torchdcls.plots", "studies", "benchmarks"},
}


@dataclass(frozen=True)
class Import:
    """One import statement: the file it stands in, and what it names, both as dotted paths."""

    file: str
    target: str
    inside_function: bool

    @property
    def room(self) -> str:
        return room(self.file)


def package_of(module: str) -> str:
    return module.partition(".")[0]


def room(module: str) -> str:
    """The first name below the package: "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> list[Import]:
    module = dotted(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []

    def visit(node: ast.AST, inside_function: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(module, alias.name, inside_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import x` may name a module: then that module is meant.
            for alias in node.names:
                submodule = ROOT.joinpath(PACKAGES.get(package_of(base), "."), *base.split("."), alias.name)
                is_module = submodule.is_dir() or submodule.with_suffix(".py").exists()
                found.append(Import(module, f"{base}.{alias.name}" if is_module else base, inside_function))
        for_types_alone = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        inside_function |= for_types_alone or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside_function)

    visit(ast.parse(path.read_text()), False)
    return found


PATHS = [ROOT / folder / package for package, folder in PACKAGES.items()]
FILES = sorted(file for path in PATHS for file in (path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]))
IMPORTS = [found for path in FILES for found in imports_of(path)]
INTERNAL = [found for found in IMPORTS if package_of(found.target) in PACKAGES]
LIBRARY = [found for found in INTERNAL if package_of(found.file) == "torchdcls"]


def why_not(found: Import) -> str | None:
    """What is wrong with an import of one of these packages by one of them, or None."""
    mine, other = RANK[package_of(found.file)], RANK[package_of(found.target)]
    here, there = found.room, room(found.target)
    if mine < other:
        return "what is below does not know what uses it"
    if other == RANK["torchdcls_train"] and package_of(found.file) == "benchmarks":
        trains = found.inside_function or found.file == TRAINS
        return None if trains else "what trains is imported where it trains, and by no table or record"
    if package_of(found.file) == "torchdcls_train" and found.target.startswith("torchdcls.plots"):
        return None if found.inside_function else "plots are imported inside the function that draws"
    if package_of(found.file) != "torchdcls":
        return None
    if here in FRONT_DOORS or here == there:
        return None
    if there in FRONT_DOORS:
        return None if here == "cli" else "a room imports the package's front door"
    if there in BESIDE:
        return f"{there} is nobody's foundation"
    rank = ORDER[BESIDE[here]] if here in BESIDE else ORDER[here] - 1
    return None if ORDER[there] <= max(rank, 0) else "the arrow points back"


def test_the_walk_finds_the_imports_that_are_known():
    arrows = {(found.file, found.target) for found in INTERNAL}
    assert ("torchdcls.nn.layer", "torchdcls.ops.kernel") in arrows
    assert ("torchdcls.nn.dcls", "torchdcls._checks") in arrows
    assert ("torchdcls.ops.conv.api", "torchdcls.ops.conv.select") in arrows
    assert ("torchdcls_train.trainer", "torchdcls.optim") in arrows
    assert ("torchdcls_train.runs.writer", "torchdcls_results") in arrows
    assert ("studies.training", "torchdcls_train.comparison.training") in arrows
    assert ("benchmarks.evidence", "studies.page") in arrows
    assert len(LIBRARY) > 20


def test_every_room_has_a_place():
    rooms = {found.room for found in LIBRARY} | {room(found.target) for found in LIBRARY}
    assert rooms <= {*ORDER, *BESIDE, *FRONT_DOORS}


@pytest.mark.parametrize("found", INTERNAL, ids=lambda found: f"{found.file}<-{found.target}")
def test_imports_point_one_way(found):
    assert why_not(found) is None


@pytest.mark.parametrize(
    ("file", "target", "inside_function"),
    [
        ("torchdcls.ops.kernel", "torchdcls.nn.dcls", False),
        ("torchdcls.profiles", "torchdcls.ops.kernel", True),
        ("torchdcls.conversion.replace", "torchdcls_train.comparison.training", False),
        ("torchdcls.deployment.export", "torchdcls_train.evaluate", True),
        ("torchdcls.nn.dcls", "torchdcls", False),
        ("torchdcls_train.comparison.training", "torchdcls.plots.curves", False),
        ("torchdcls.nn.dcls", "torchdcls.plots.curves", True),
        ("torchdcls.cli.info", "torchdcls.plots.curves", True),
        ("torchdcls.plots.kernels", "torchdcls.ops.kernel", False),
        ("torchdcls.plots.curves", "torchdcls_train.comparison.training", True),
        ("torchdcls.cli.main", "torchdcls_train.commands", True),
        ("torchdcls", "studies.plan", True),
        ("torchdcls.ops.conv.rates", "benchmarks.fit", False),
        ("torchdcls_train.train", "studies.training", True),
        ("torchdcls_train.runs.checkpoint", "benchmarks.record", False),
        ("torchdcls.deployment.report", "torchdcls_results", False),
        ("torchdcls_results", "torchdcls_train.runs.writer", True),
        ("studies.page", "benchmarks.tables", False),
        ("benchmarks.sizes", "torchdcls_train.comparison.small", False),
    ],
)
def test_arrows_that_point_back_are_seen(file, target, inside_function):
    assert why_not(Import(file, target, inside_function)) is not None


def loaded_by(*modules: str) -> set[str]:
    """What is imported when these modules are, outside of functions: theirs, and the packages that these lie in."""
    found, left = set(), list(modules)
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += [each.target for each in INTERNAL if each.file == module and not each.inside_function]
            left += [module.rpartition(".")[0]] if "." in module else []
    return found


def test_tables_and_records_need_no_training():
    assert {"studies.page", "benchmarks.kept_weights"} <= loaded_by(*WRITERS)
    assert not [module for module in loaded_by(*WRITERS) if package_of(module) == "torchdcls_train"]
    # As seen where there is training.
    assert "torchdcls_train.trainer" in loaded_by("studies.run") & loaded_by(TRAINS)


def below(module: str, *folders: str) -> bool:
    return any(f"{module}.".startswith(f"torchdcls.{folder}.") for folder in folders)


# What each file and folder of `ops` belongs to: one of the two ideas, the ground below both, or what joins them.
IDEAS = {
    "making kernels": {"fused", "kernel", "separable", "triton"},
    "convolving": {"conv", "delayed", "padding"},
    "ground": {"autocast", "caches", "gpu", "native", "tracing"},
    "joining": {"", "dcls_conv", "reference"},
}


def idea(module: str) -> str | None:
    """What a module of `ops` belongs to; None elsewhere. Profiles are a part of making kernels."""
    package, *names = module.split(".")
    if package != "torchdcls" or not names or names[0] not in ("ops", "profiles"):
        return None
    name = names[1] if len(names) > 1 else ""
    return "making kernels" if names[0] == "profiles" else next(idea for idea in IDEAS if name in IDEAS[idea])


def over_the_wall(found: Import) -> bool:
    """Whether one idea imports the other, or the ground one of them."""
    here, there = idea(found.file), idea(found.target)
    return here not in (None, "joining") and there not in (None, here, "ground")


def test_every_file_of_ops_has_an_idea():
    entries = [path for path in (SOURCE / "ops").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = sorted("" if path.stem == "__init__" else path.stem for path in entries)
    assert names == sorted(name for members in IDEAS.values() for name in members)


@pytest.mark.parametrize("found", [found for found in LIBRARY if found.room == "ops"], ids=str)
def test_making_kernels_and_convolving_do_not_know_each_other(found):
    assert not over_the_wall(found)


@pytest.mark.parametrize(
    ("file", "target"),
    [
        ("ops.kernel", "ops.conv"),
        ("ops.separable", "ops.conv.direct"),
        ("ops.triton.launch", "ops.conv.triton.launch"),
        ("ops.kernel", "ops.dcls_conv"),
        ("ops.conv.triton.method", "ops.triton.support"),
        ("ops.conv.fft", "ops.separable"),
        ("ops.conv.direct", "profiles"),
        ("ops.padding", "ops"),
        ("ops.gpu", "ops.triton.support"),
        ("ops.caches", "ops.conv.select"),
        ("ops.tracing", "profiles"),
    ],
)
def test_holes_in_the_wall_are_seen(file, target):
    assert over_the_wall(Import(f"torchdcls.{file}", f"torchdcls.{target}", True))


def test_methods_of_convolving_do_not_know_each_other():
    methods = [f"ops.conv.{path.stem}" for path in (SOURCE / "ops" / "conv").glob("*.py")]
    methods = [method for method in methods if method.rpartition(".")[2] in METHOD_NAMES]
    assert len(methods) >= 2
    for method in methods:
        others = [other for other in methods if other != method]
        assert not [found for found in INTERNAL if below(found.file, method) and below(found.target, *others)]


def test_the_oracle_imports_nothing_from_the_package():
    assert not [found for found in INTERNAL if found.file == "torchdcls.ops.reference"]


# Names that torch may change without a word; a new version is then looked at in one place.
PRIVATE_NAMES = SOURCE / "ops" / "tracing.py"
# What is private of the objects that torch makes.
KINDS = (torch.nn.Module, torch.Tensor, torch.optim.Optimizer, torch.UntypedStorage, type(torch.ops.aten.add.Tensor))
PRIVATE_ATTRIBUTES = {name for kind in KINDS for name in dir(kind) if re.match("_[^_]", name)} | {
    *(name for name in vars(torch.nn.Module()) if name.startswith("_")),
    *("_schema", "_metadata"),
}


def private_names(source: str) -> list[str]:
    """Private modules, functions and classes of torch that a file names, and attributes of objects other than `self`.

    A subclass may use what its base has.
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names.append(ast.unparse(node))
            if node.attr in PRIVATE_ATTRIBUTES and ast.unparse(node.value) not in ("self", "cls", "super()"):
                names.append(f"torch.{node.attr}")
        elif isinstance(node, ast.Constant) and node.value in PRIVATE_ATTRIBUTES:  # as `getattr` takes them
            names.append(f"torch.{node.value}")
    return [name for name in names if re.fullmatch(r"torch(\.\w+)*\._[^_]\w*(\.\w+)*", name)]


@pytest.mark.parametrize("path", [path for path in FILES if path != PRIVATE_NAMES], ids=dotted)
def test_private_names_of_torch_stand_in_one_file(path):
    assert private_names(path.read_text()) == []


def test_private_names_of_torch_are_seen():
    assert "torch._C._is_tracing" in private_names(PRIVATE_NAMES.read_text())
    for line in (
        "import torch._dynamo",
        "from torch._ops import OpOverload",
        "from torch.nn.modules.conv import _ConvNd",
        "from torch import _foreach_lerp_",
        "def wait():\n    torch.cuda._sleep(1)",
        "forward = torch.autograd.forward_ad._current_level >= 0",
        "own = model.conv._parameters",
        "version = tensor._version",
        "name = func._schema.name",
        "key = tensor.untyped_storage()._cdata",
        'versions = getattr(entries, "_metadata", {})',
    ):
        assert private_names(line)
    assert not private_names("own = self._parameters")


@pytest.mark.parametrize("package", RESERVED)
def test_optional_packages_stay_in_their_rooms(package):
    for found in IMPORTS:
        if package_of(found.target) == package:
            # Training may make figures, inside the function that draws.
            draws = package == "matplotlib" and package_of(found.file) == "torchdcls_train" and found.inside_function
            assert draws or any(f"{found.file}.".startswith(f"{place}.") for place in RESERVED[package]), found


def test_the_package_needs_torch_alone():
    """A layer is made and run with every optional package missing."""
    program = f"""
import sys, torch, torchdcls
layer = torchdcls.Dcls2d(4, 4, 3, padding="same", dilated_kernel_size=5, groups=4)
layer(torch.randn(1, 4, 6, 6)).sum().backward()
assert not [name for name in sys.modules if name.partition(".")[0] in {OPTIONAL!r}]
"""
    ran = run_without(OPTIONAL, program)
    assert ran.returncode == 0, ran.stderr
