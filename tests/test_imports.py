"""Imports point one way, and `import torchdcls` needs torch alone."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest
from missing import OPTIONAL, run_without

from torchdcls.ops.conv import METHODS

SOURCE = Path(__file__).parent.parent / "src" / "torchdcls"
# profiles, _checks, _extras <- ops <- nn <- conversion <- models <- deployment <- train <- cli
ROOMS = ("ops", "nn", "conversion", "models", "deployment", "train", "cli")
ORDER = {"profiles": 0, "_checks": 0, "_extras": 0, **{name: number for number, name in enumerate(ROOMS, start=1)}}
# Beside conversion, and beside deployment; neither knows the other.
ORDER["optim"] = ORDER["conversion"]
ORDER["inspection"] = ORDER["deployment"]
# Rooms beside that order, and the last room of it that they may use.
BESIDE = {"plots": "nn", "testing": "ops"}
FRONT_DOORS = {"", "__main__"}
# Packages that only some rooms may import; train may make figures too, inside the function that draws.
RESERVED = {
    "triton": {"ops/conv/triton", "ops/triton"},
    "timm": {"conversion", "models", "deployment", "train"},
    "matplotlib": {"plots"},
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


def room(module: str) -> str:
    """The first name below the package: "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
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
                submodule = SOURCE.parent.joinpath(*base.split("."), alias.name)
                is_module = submodule.is_dir() or submodule.with_suffix(".py").exists()
                found.append(Import(module, f"{base}.{alias.name}" if is_module else base, inside_function))
        inside_function = inside_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside_function)

    visit(ast.parse(path.read_text()), False)
    return found


IMPORTS = [found for path in sorted(SOURCE.rglob("*.py")) for found in imports_of(path)]
INTERNAL = [found for found in IMPORTS if found.target.partition(".")[0] == "torchdcls"]


def why_not(found: Import) -> str | None:
    """What is wrong with an import inside the package, or None."""
    here, there = found.room, room(found.target)
    if here in FRONT_DOORS or here == there:
        return None
    if there in FRONT_DOORS:
        return None if here == "cli" else "a room imports the package's front door"
    if there == "plots":
        allowed = here in ("train", "cli") and found.inside_function
        return None if allowed else "plots are imported by train and cli, inside the function that needs them"
    if there in BESIDE:
        return None if here == "cli" else f"{there} is nobody's foundation"
    rank = ORDER[BESIDE[here]] if here in BESIDE else ORDER[here] - 1
    return None if ORDER[there] <= max(rank, 0) else "the arrow points back"


def test_the_walk_finds_the_imports_that_are_known():
    arrows = {(found.file, found.target) for found in INTERNAL}
    assert ("torchdcls.nn.layer", "torchdcls.ops.kernel") in arrows
    assert ("torchdcls.nn.dcls", "torchdcls._checks") in arrows
    assert ("torchdcls.ops.conv.api", "torchdcls.ops.conv.select") in arrows
    assert len(INTERNAL) > 20


def test_every_room_has_a_place():
    rooms = {found.room for found in IMPORTS} | {room(found.target) for found in INTERNAL}
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
        ("torchdcls.plots.curves", "torchdcls_train.comparison.training", True),
    ],
)
def test_arrows_that_point_back_are_seen(file, target, inside_function):
    assert why_not(Import(file, target, inside_function)) is not None


def below(module: str, *folders: str) -> bool:
    return any(f"{module}.".startswith(f"torchdcls.{folder}.") for folder in folders)


def test_making_kernels_and_convolving_do_not_know_each_other():
    for found in INTERNAL:
        assert not (below(found.file, "ops.kernel") and below(found.target, "ops.conv"))
        assert not (below(found.file, "ops.conv") and below(found.target, "ops.kernel", "profiles"))


def test_methods_of_convolving_do_not_know_each_other():
    methods = [f"ops.conv.{path.stem}" for path in (SOURCE / "ops" / "conv").glob("*.py")]
    methods = [method for method in methods if method.rpartition(".")[2] in METHODS]
    assert len(methods) >= 2
    for method in methods:
        others = [other for other in methods if other != method]
        assert not [found for found in INTERNAL if below(found.file, method) and below(found.target, *others)]


def test_the_oracle_imports_nothing_from_the_package():
    assert not [found for found in INTERNAL if found.file == "torchdcls.ops.reference"]


@pytest.mark.parametrize("package", RESERVED)
def test_optional_packages_stay_in_their_rooms(package):
    for found in IMPORTS:
        if found.target.partition(".")[0] == package:
            draws = package == "matplotlib" and found.room == "train" and found.inside_function
            assert draws or below(found.file, *(folder.replace("/", ".") for folder in RESERVED[package])), found


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
