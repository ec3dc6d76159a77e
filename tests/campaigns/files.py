"""Crafted files: what they name is not opened, what they hold is not run, and each ends in a sentence or its model."""

import builtins
import io
import json
import os
import pickle
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from .case import Case

CASES = 1100
WORST = "seconds"
# Longer than any of these files needs on a busy machine. Unit: seconds.
_PATIENCE = 60

NAME = "convnext_atto"
ARGUMENTS = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8], "num_classes": 3}
SETTINGS = {"model": NAME, "model_args": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}, "data": "fashion_mnist"}


class Escaped(BaseException):
    """A file made the program open another file, ask the network, or start a process; no handler of errors stops it."""


class RunsCode:
    """An object whose unpickling leaves a marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.marker)!r}, 'w').write('ran')",)


@dataclass(frozen=True)
class Place:
    """Where a case's file is, what it must not touch, and the marker of code that has run."""

    own: Path
    planted: Path
    marker: Path


@dataclass(frozen=True)
class Crafted:
    """A file in the making.

    Attributes:
        kind: The loader, as the table names it.
        name: What is wrong with the file.
        write: Writes it into a folder.
        load: Loads it from there and returns the model.
        exact: Whether a model, if one is loaded, has to be the uncrafted file's, bit for bit.
        loads: Whether it has to be loaded, as nothing is wrong with it.
    """

    kind: str
    name: str
    write: Callable[[Place], None]
    load: Callable[[Place], Any]
    exact: bool = True
    loads: bool = False


def run(cases: int, seed: int) -> Iterator[Case]:
    """Crafted files of every kind that is read: none may run code, open another file, ask the network or start a
    process, and each ends in one sentence or in the model that the file holds."""
    folder = Path(tempfile.mkdtemp(prefix="crafted-"))
    before = Path.cwd()
    try:
        originals = Originals(folder / "originals")
        planted = plant(folder / "planted", folder / "marker")
        crafted = [*written(originals, planted), *broken(originals, random.Random(seed), cases)]
        random.Random(seed).shuffle(crafted)
        for number, case in enumerate(crafted[:cases]):
            own = folder / f"case-{number}"
            own.mkdir()
            for file in planted.iterdir():  # relative names reach them too
                if file.is_file():
                    shutil.copy(file, own / file.name)
            os.chdir(own)
            fault, seconds = outcome(case, Place(own, planted, folder / "marker"), originals)
            os.chdir(before)
            shutil.rmtree(own)
            yield Case(case.kind, case.name.replace(str(folder), "..."), fault, seconds)
    finally:
        os.chdir(before)
        shutil.rmtree(folder)


def outcome(case: Crafted, place: Place, originals: "Originals") -> tuple[str | None, float]:
    """What is wrong with how a file is loaded, and how long that takes."""
    case.write(place)
    start, model, fault = time.monotonic(), None, None
    try:
        with watched(place):
            model = case.load(place)
    except ValueError as error:
        message = str(error)
        if case.loads:
            fault = f"refused: {message}"
        elif "\n" in message or len(message) < 20 or len(message) > 2000:
            fault = f"no sentence: {message[:200]!r}"
    except Escaped as error:
        fault = str(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = f"{type(error).__name__}: {error}"[:300]
    seconds = time.monotonic() - start
    if place.marker.exists():
        place.marker.unlink()
        fault = "ran code"
    if fault is None and model is not None and case.exact:
        fault = originals.difference(model)
    return fault, seconds


class Originals:
    """Whole files of a small model, of which the crafted ones are made."""

    def __init__(self, folder: Path) -> None:
        import timm
        import torch

        import torchdcls.models
        from torchdcls.deployment import Configuration, export
        from torchdcls.deployment.hub import TimmModel
        from torchdcls_train.runs.checkpoint import save_checkpoint
        from torchdcls_train.runs.folder import resolved
        from torchdcls_train.settings import TrainConfig

        assert torchdcls.models
        folder.mkdir(parents=True)
        self.folder = folder
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.model = timm.create_model(NAME, **ARGUMENTS).eval()
            configuration = Configuration(model=NAME, arguments=ARGUMENTS)
            export(self.model, folder / "model.safetensors", to="safetensors", configuration=configuration)
            of_timm = TimmModel(NAME, num_classes=3, model_args=SETTINGS["model_args"])
        of_timm.model.load_state_dict(self.model.state_dict())
        of_timm.save_pretrained(folder / "hub")
        config = json.loads(json.dumps(resolved(TrainConfig(**SETTINGS))))  # type: ignore[arg-type]
        about = {"config": config, "num_classes": 3, "classes": ["a", "b", "c"]}
        save_checkpoint(folder / "checkpoint.safetensors", about, model=self.model)

    def difference(self, model: Any) -> str | None:
        """How a model differs from the one that all files hold."""
        import torch

        found = getattr(model, "model", model).state_dict()
        expected = self.model.state_dict()
        if found.keys() != expected.keys():
            return "another model"
        other = [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]
        return f"other weights in {', '.join(other[:3])}" if other else None


def plant(folder: Path, marker: Path) -> Path:
    """Files that run code where they are unpickled, in every form that torch and timm read."""
    import torch

    folder.mkdir()
    evil = RunsCode(marker)
    (folder / "weights").write_bytes(pickle.dumps(evil))
    (folder / "weights.pth").write_bytes(pickle.dumps({"state_dict": evil}))
    torch.save({"state_dict": evil}, folder / "zip.pth")
    shutil.copy(folder / "zip.pth", folder / "pytorch_model.bin")
    with zipfile.ZipFile(folder / "arrays.npz", "w") as file:
        file.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
                      .ljust(117) + b"\n" + pickle.dumps(evil))  # fmt: skip
    config = {"architecture": NAME, "num_classes": 3, "pretrained_cfg": {"num_classes": 3}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@contextmanager
def watched(place: Place) -> Iterator[None]:
    """Raises `Escaped` where a planted file is opened, a file is written elsewhere, the network is asked or a process
    is started, and where nothing comes of the case for too long."""
    copies = {file.name for file in place.planted.iterdir()} - {"config.json"}

    def checked(original: Callable[..., Any], mode_of: Callable[..., str]) -> Callable[..., Any]:
        def opening(file: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(file, str | bytes | os.PathLike):
                path = Path(os.fsdecode(file)).resolve()
                if path.is_relative_to(place.planted) or (path.is_relative_to(place.own) and path.name in copies):
                    if path.name not in opened:
                        raise Escaped(f"opened {path.name}")
                elif mode_of(*arguments, **named) != "r" and not path.is_relative_to(place.own) and path != null:
                    raise Escaped(f"wrote {path}")
            return original(file, *arguments, **named)

        return opening

    def escaping(what: str) -> Callable[..., Any]:
        def refused(*arguments: Any, **named: Any) -> Any:
            raise Escaped(f"{what} {str(arguments)[:100]}")

        return refused

    def waited(*_: Any) -> None:
        raise Escaped(f"took longer than {_PATIENCE} s")

    def mode(mode: str = "r", *_: Any, **__: Any) -> str:
        return "w" if set(mode) & set("wax+") else "r"

    def flags(flags: int, *_: Any, **__: Any) -> str:
        return "w" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "r"

    null = Path(os.devnull)
    opened = {"given.pth"}  # what a case itself loads
    alarm = signal.signal(signal.SIGALRM, waited)
    signal.alarm(_PATIENCE)
    try:
        with (
            mock.patch.object(builtins, "open", checked(builtins.open, mode)),
            mock.patch.object(io, "open", checked(io.open, mode)),
            mock.patch.object(os, "open", checked(os.open, flags)),
            mock.patch.object(socket.socket, "connect", escaping("network:")),
            mock.patch.object(socket.socket, "connect_ex", escaping("network:")),
            mock.patch.object(socket, "getaddrinfo", escaping("network:")),
            mock.patch.object(subprocess.Popen, "__init__", escaping("process:")),
            mock.patch.object(os, "system", escaping("process:")),
        ):
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)


# What a file says of its model, and who reads it.


@dataclass(frozen=True)
class Said:
    """A model as a file describes it. `text` stands for the whole description where it is given."""

    model: Any = NAME
    arguments: Any = None
    more: tuple[tuple[str, Any], ...] = ()
    text: str | None = None


def _writes_safetensors(originals: Originals, said: Said) -> Callable[[Place], None]:
    def write(place: Place) -> None:
        text = json.dumps({"model": said.model, "arguments": said.arguments, **dict(said.more)})
        metadata = {"format": "torchdcls model 1", "about": text if said.text is None else said.text, "shared": "{}"}
        _save(originals.model.state_dict(), place.own / "model.safetensors", metadata)

    return write


def _writes_folder(originals: Originals, said: Said) -> Callable[[Place], None]:
    def write(place: Place) -> None:
        shutil.copytree(originals.folder / "hub", place.own / "net")
        arguments = dict(said.arguments) if isinstance(said.arguments, dict) else {}
        classes = arguments.pop("num_classes", None)
        config = {
            "model_name": said.model,
            "model_args": arguments if isinstance(said.arguments, dict) else said.arguments,
            "num_classes": classes,
            "conversion": None,
            **dict(said.more),
        }
        text = json.dumps(config) if said.text is None else said.text
        (place.own / "net" / "config.json").write_text(text)

    return write


def _writes_checkpoint(originals: Originals, said: Said) -> Callable[[Place], None]:
    def write(place: Place) -> None:
        from safetensors import safe_open

        with safe_open(originals.folder / "checkpoint.safetensors", framework="pt") as file:
            metadata = {"format": file.metadata()["format"], "about": file.metadata()["about"]}
        about = json.loads(metadata["about"])
        arguments = dict(said.arguments) if isinstance(said.arguments, dict) else said.arguments
        if isinstance(arguments, dict) and "num_classes" in arguments:
            about["num_classes"] = arguments.pop("num_classes")
        about["config"] = {**about["config"], "model": said.model, "model_args": arguments, **dict(said.more)}
        metadata["about"] = json.dumps(about) if said.text is None else said.text
        tensors = {f"model.{name}": tensor for name, tensor in originals.model.state_dict().items()}
        _save(tensors, place.own / "last.safetensors", metadata)

    return write


def _save(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata)


def _loads_safetensors(place: Place) -> Any:
    from torchdcls.deployment import load

    return load(place.own / "model.safetensors")


def _loads_folder(place: Place) -> Any:
    from torchdcls.deployment.hub import TimmModel

    return TimmModel.from_pretrained(place.own / "net")


def _loads_checkpoint(place: Place) -> Any:
    from torchdcls_train.evaluate import load_model

    return load_model(place.own / "last.safetensors")


def _loads_official(place: Place) -> Any:
    from torchdcls.models.official import load_official

    return load_official(place.own / "given.pth", version="v1", dilated_kernel_size=17)


READERS: dict[str, tuple[Callable[[Originals, Said], Callable[[Place], None]], Callable[[Place], Any]]] = {
    "deployment.load": (_writes_safetensors, _loads_safetensors),
    "TimmModel.from_pretrained": (_writes_folder, _loads_folder),
    "torchdcls_train.evaluate.load_model": (_writes_checkpoint, _loads_checkpoint),
}


def written(originals: Originals, planted: Path) -> Iterator[Crafted]:
    """Files that were written on purpose: whole ones, and such as no program of torchdcls writes."""
    for kind, (write, load) in READERS.items():
        for name, arguments in hostile_arguments(planted):
            for base in ({}, ARGUMENTS):  # the model's own would not fit, which may hide the rest
                said = Said(arguments={**base, **arguments})
                yield Crafted(kind, f"{name}{'' if base else ', alone'}", write(originals, said), load)
        for name, model in hostile_names(planted):
            yield Crafted(kind, f"model {name}", write(originals, Said(model, ARGUMENTS)), load)
        for name, text in hostile_texts():
            yield Crafted(kind, f"text {name}", write(originals, Said(text=text)), load)
        for name, wrong in (("a list", [1]), ("a text", "depths=[1]"), ("a number", 3), ("true", True)):
            yield Crafted(kind, f"arguments are {name}", write(originals, Said(arguments=wrong)), load)
        for model in (NAME, f"{NAME}.d2_in1k"):
            yield Crafted(kind, f"whole, {model}", write(originals, Said(model, ARGUMENTS)), load, loads=True)
    write, load = READERS["TimmModel.from_pretrained"]
    for name, more in hostile_entries(planted):
        yield Crafted("TimmModel.from_pretrained", name, write(originals, Said(NAME, ARGUMENTS, more)), load)
    write, load = READERS["torchdcls_train.evaluate.load_model"]
    for name, more in hostile_settings(planted):
        yield Crafted("torchdcls_train.evaluate.load_model", name, write(originals, Said(NAME, ARGUMENTS, more)), load)
    for name, content in hostile_pickles(originals):
        yield Crafted("load_official", name, content, _loads_official, exact=False)


def hostile_arguments(planted: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arguments of a model that name a file or an address, load something, are too large, or make no sense."""
    files = [str(planted / "weights.pth"), "weights", "../planted/zip.pth", f"file://{planted / 'weights.pth'}"]
    sources: list[dict[str, Any]] = [
        *({"file": file} for file in files),
        {"file": str(planted / "arrays.npz"), "custom_load": True},
        *({"url": address} for address in ("http://127.0.0.1:9/weights.pth", f"file://{planted / 'zip.pth'}")),
        {"hf_hub_id": "me/net"},
        {"hf_hub_id": "me/net", "source": "hf-hub", "custom_load": "hf"},
        {"source": "local-dir", "file": str(planted)},
        {"state_dict": {"a": 1}},
    ]
    for file in (*files, str(planted / "arrays.npz"), "http://127.0.0.1:9/weights.pth"):
        yield f"checkpoint_path={Path(file).name}", {"checkpoint_path": file}
    for argument in ("pretrained_cfg", "pretrained_cfg_overlay"):
        for source in sources:
            yield f"{argument}={list(source)}", {"pretrained": True, argument: source}
        yield f"{argument} without pretrained", {argument: sources[0]}
        yield f"{argument} is a tag", {"pretrained": True, argument: "d2_in1k"}
    for value in (True, 1, "yes", ["yes"]):
        yield f"pretrained={value!r}", {"pretrained": value}
    for argument, value in (
        ("cache_dir", str(planted)),
        ("cfg_file", files[0]),
        ("file", files[0]),
        ("url", "http://127.0.0.1:9/x"),
        ("hf_hub_id", "me/net"),
        ("weights", files[0]),
        ("pruned", True),
        ("feature_cfg", {"feature_cls": files[0]}),
        ("feature_cls", "os.system"),
        ("kwargs_filter", ["num_classes"]),
        ("model_cfg", {"a": 1}),
        ("pretrained_strict", False),
        ("pretrained_filter_fn", "os.system"),
        ("pretrained_model_args", {"checkpoint_path": files[0]}),
        ("act_layer", "torch.nn.GELU"),
        ("act_layer", files[0]),
        ("act_layer", "no_such_layer"),
        ("norm_layer", "os.system"),
        ("norm_layer", {"file": "weights"}),
        ("global_pool", "../../weights"),
        ("stem_type", "http://127.0.0.1:9"),
        ("drop_path_rate", "0.1; import os"),
        ("drop_path_rate", float("nan")),
        ("drop_path_rate", "1e-1"),
        ("dims", [files[0]]),
        ("dims", {"0": files[0]}),
        ("dims", []),
        ("dims", [0, 0, 0, 0]),
        ("dims", [8, 8, 8, -8]),
        ("dims", [10**7] * 4),
        ("dims", [10**5] * 4),
        ("dims", "8888"),
        ("depths", [1, 1]),
        ("depths", [10**9] * 4),
        ("depths", [10**6, 1, 1, 1]),
        ("depths", [-1, 1, 1, 1]),
        ("depths", None),
        ("depths", _nested(40)),
        ("depths", 2**70),
        ("num_classes", 10**12),
        ("num_classes", 10**9),
        ("num_classes", -1),
        ("num_classes", "3"),
        ("num_classes", [3]),
        ("num_classes", 3.5),
        ("num_classes", files[0]),
        ("in_chans", 10**9),
        ("in_chans", 0),
        ("patch_size", 0),
        ("patch_size", 10**4),
        ("kernel_sizes", 10**4),
        ("kernel_sizes", "x" * 10**6),
        ("conv_bias", {"__class__": "x"}),
        ("__class__", "x"),
        ("self", 1),
        ("cls", 1),
        ("variant", "resnet50"),
        ("model_name", "resnet50"),
        ("model_cls", "os.system"),
        ("", 1),
        ("device", "meta"),
        ("device", "cuda"),
        ("dtype", "float16"),
        ("scriptable", "weights"),
        ("features_only", True),
    ):
        yield f"{argument}={str(value)[:40]}", {argument: value}


def hostile_names(planted: Path) -> Iterator[tuple[str, Any]]:
    """Names of models that are none, or lead elsewhere."""
    for name in (
        "hf-hub:me/net", "hf_hub:me/net", f"local-dir:{planted}", "local-dir:.", str(planted), "../planted",
        f"{NAME}.hf-hub:me/net", f"{NAME}./../../planted", f"{NAME}.local-dir:{planted}", f"x/{NAME}", f"{NAME}\n",
        f"http://127.0.0.1:9/{NAME}", f" {NAME}", NAME.upper(), f"{NAME}.", f"{NAME}\0", "", "a" * 10**5,
        "torchvision:vgg11",
    ):  # fmt: skip
        yield repr(name)[:40], name
    for name in (3, ["a"], {"a": "b"}, True):
        yield repr(name), name


def hostile_texts() -> Iterator[tuple[str, str]]:
    """Descriptions that are no JSON, or none of a model."""
    yield "empty", ""
    yield "cut", '{"model": "convnext_a'
    yield "null", "null"
    yield "a list", "[1, 2]"
    yield "a text", '"convnext_atto"'
    yield "nothing in it", "{}"
    yield "deep lists", "[" * 10**5 + "]" * 10**5
    yield "deep mappings", '{"a":' * 10**5 + "1" + "}" * 10**5
    yield "a long number", '{"model": ' + "1" * 10**4 + "}"
    yield "a pickle", "cos\nsystem\n(S'true'\ntR."
    yield "yaml", "!!python/object/apply:os.system ['true']"
    yield "half an emoji", '{"model": "\\ud800"}'
    yield "twice", '{"model": "convnext_atto", "model": ["x"]}'
    yield "not a number", '{"model": NaN, "arguments": {"dims": [Infinity]}}'


def hostile_entries(planted: Path) -> Iterator[tuple[str, tuple[tuple[str, Any], ...]]]:
    """Entries of config.json beside the model's name and arguments."""
    for name, value in (
        ("pretrained", True),
        ("pretrained", str(planted / "weights.pth")),
        ("checkpoint_path", str(planted / "weights.pth")),
        ("pretrained_cfg", {"file": str(planted / "weights.pth")}),
        ("conversion", {"dilated_kernel_size": 10**9, "kernel_count": 2}),
        ("conversion", {"dilated_kernel_size": 7, "kernel_count": 10**9}),
        ("conversion", {"dilated_kernel_size": 7, "kernel_count": -1}),
        ("conversion", {"dilated_kernel_size": str(planted / "weights.pth"), "kernel_count": 1}),
        ("conversion", {"interpolation": "os.system", "dilated_kernel_size": 7, "kernel_count": 1}),
        ("conversion", {"where": "(" * 1000, "dilated_kernel_size": 7, "kernel_count": 1}),
        ("conversion", {"where": "*a" * 40, "dilated_kernel_size": 7, "kernel_count": 1}),
        ("conversion", {"where": 3, "dilated_kernel_size": 7, "kernel_count": 1}),
        ("conversion", {"model": "x"}),
        ("conversion", [1]),
        ("conversion", "x"),
        ("num_classes", str(planted / "weights.pth")),
        ("map_location", "cuda"),
        ("cache_dir", str(planted)),
        ("strict", False),
        ("model_id", str(planted)),
        ("token", "x"),
        ("self", 1),
        ("config", {"file": "weights"}),
    ):
        yield f"{name}={str(value)[:50]}", ((name, value),)


def hostile_settings(planted: Path) -> Iterator[tuple[str, tuple[tuple[str, Any], ...]]]:
    """Settings of a run that a checkpoint may not have, or not with this value."""
    for name, value in (
        ("checkpoint_path", str(planted / "weights.pth")),
        ("pretrained", True),
        ("seed", "x"),
        ("seed", -1),
        ("seed", 2**80),
        ("drop_path", "0.1"),
        ("drop_path", float("nan")),
        ("scale", 3),
        ("scale", ["a", "b"]),
        ("epochs", []),
        ("out", 3),
        ("data_dir", ["a"]),
        ("channels_last", "weights"),
        ("micro_batch", 0),
        ("ema", "x"),
        ("precision", str(planted)),
    ):
        yield f"{name}={str(value)[:40]}", ((name, value),)


def hostile_pickles(originals: Originals) -> Iterator[tuple[str, Callable[[Place], None]]]:
    """Checkpoints of torch that hold code, or are none."""
    import torch

    def saved(make: Callable[[Place], Any], **options: Any) -> Callable[[Place], None]:
        return lambda place: torch.save(make(place), place.own / "given.pth", **options)

    def raw(make: Callable[[Place], bytes]) -> Callable[[Place], None]:
        return lambda place: (place.own / "given.pth").write_bytes(make(place)) and None

    def whole(place: Place) -> bytes:
        file = io.BytesIO()
        torch.save({"model": originals.model.state_dict()}, file)
        return file.getvalue()

    def swapped(place: Place) -> bytes:
        """A zip file of torch whose pickle is another."""
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole(place))) as old, zipfile.ZipFile(file, "w") as new:
            for entry in old.namelist():
                content = pickle.dumps(RunsCode(place.marker)) if entry.endswith("data.pkl") else old.read(entry)
                new.writestr(entry, content)
        return file.getvalue()

    def traversal(place: Place) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole(place))) as old, zipfile.ZipFile(file, "w") as new:
            for entry in old.namelist():
                new.writestr(f"../../{entry}", old.read(entry))
        return file.getvalue()

    for zipped in (True, False):
        options = {"_use_new_zipfile_serialization": zipped}
        form = "zip" if zipped else "old form"
        yield f"code, {form}", saved(lambda place: RunsCode(place.marker), **options)
        yield f"code under state_dict, {form}", saved(lambda place: {"state_dict": RunsCode(place.marker)}, **options)
        yield (
            f"code beside weights, {form}",
            saved(lambda place: {"model": originals.model.state_dict(), "args": RunsCode(place.marker)}, **options),
        )
        yield f"a model, {form}", saved(lambda place: originals.model, **options)
        yield f"a path, {form}", saved(lambda place: {"file": place.planted / "weights"}, **options)
        yield f"numbers, {form}", saved(lambda place: {"a": 1, "b": [2.0, None]}, **options)
        yield f"no tensors under P, {form}", saved(lambda place: {"stages.0.0.dwconv.P": "weights"}, **options)
        yield (
            f"positions of a wrong shape, {form}",
            saved(
                lambda place: {"stages.0.0.dwconv.P": torch.ones(2), "stages.0.0.dwconv.weight": torch.ones(3, 1)},
                **options,
            ),
        )
        yield f"keys that are numbers, {form}", saved(lambda place: {3: torch.ones(2), None: torch.ones(1)}, **options)
    yield "code, bare", raw(lambda place: pickle.dumps(RunsCode(place.marker)))
    yield "code in a mapping, bare", raw(lambda place: pickle.dumps({"a": RunsCode(place.marker)}, protocol=4))
    for module, name, argument in (
        ("os", "system", "touch {}"), ("builtins", "eval", "open({!r}, 'w')"), ("subprocess", "getoutput", "touch {}"),
        ("torch", "load", "{}"), ("timm.models", "load_state_dict", "{}"),
        ("torch.hub", "load_state_dict_from_url", "{}"),
    ):  # fmt: skip
        yield (
            f"{module}.{name}",
            raw(
                lambda place, module=module, name=name, argument=argument: (  # type: ignore[misc]
                    f"c{module}\n{name}\n(S{argument.format(str(place.marker))!r}\ntR.".encode()
                )
            ),
        )
    yield "another pickle in the zip", raw(swapped)
    yield "names that leave the folder", raw(traversal)
    yield "empty", raw(lambda place: b"")
    yield "a zip without anything", raw(lambda place: b"PK\x05\x06" + b"\0" * 18)
    yield "text", raw(lambda place: b"<html>404</html>")
    yield "safetensors", raw(lambda place: (originals.folder / "model.safetensors").read_bytes())


def broken(originals: Originals, rng: random.Random, cases: int) -> Iterator[Crafted]:
    """Files with bits flipped or bytes missing, at random: a third for each of those that hold a model."""
    files = {
        "deployment.load": ("model.safetensors", "model.safetensors"),
        "TimmModel.from_pretrained": ("hub/model.safetensors", "net/model.safetensors"),
        "torchdcls_train.evaluate.load_model": ("checkpoint.safetensors", "last.safetensors"),
    }
    for kind, (stored, name) in files.items():
        original, load = originals.folder / stored, READERS[kind][1]
        whole = original.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        for _ in range(max(20, cases // 12)):
            # One byte of two is of the header, which is far smaller than the rest.
            place, bit = rng.randrange(header if rng.random() < 0.5 else len(whole)), rng.randrange(8)
            flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            # Only exported files have a checksum, so that others may hold another number.
            exact = kind == "deployment.load"
            yield Crafted(kind, f"bit {bit} of byte {place}", _writes(original, name, flipped), load, exact=exact)
        for count in (0, 1, 7, 8, 9, header - 1, header, len(whole) - 1, rng.randrange(len(whole))):
            yield Crafted(kind, f"{count} bytes of it", _writes(original, name, whole[:count]), load)
        for size in (0, 1, 2**40, 2**63 - 1, 2**64 - 1):
            changed = size.to_bytes(8, "little") + whole[8:]
            yield Crafted(kind, f"a header of {size} bytes", _writes(original, name, changed), load)
        yield Crafted(kind, "a byte too many", _writes(original, name, whole + b"\0"), load)


def _writes(original: Path, name: str, content: bytes) -> Callable[[Place], None]:
    def write(place: Place) -> None:
        path = place.own / name
        if path.parent != place.own:
            shutil.copytree(original.parent, path.parent)
        path.write_bytes(content)

    return write


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value
