"""Training runs that are killed and resumed, with every optimizer of the recipes and some more."""

import itertools
import multiprocessing
import os
import random
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from .case import Case

CASES = 60
WORST = None

# Whose results depend on the order in which norms and means are summed.
_FURTHER_OPTIMIZERS = ("sgd", "madgradw", "cadafactor")
_KILLS = 3
# Of a run that takes seconds.
_LONGEST = 300.0


def run(cases: int, seed: int) -> Iterator[Case]:
    """Tiny runs of `torchdcls train`, each killed three times and resumed, against the same run without a stop.

    Every line of metrics and every tensor of the last checkpoint must be equal to the last bit. SIGKILL comes at random
    moments of start, updates, validation and saving.
    """
    from tests.torchdcls_train import made_runs as runs

    kinds = list(itertools.product(_optimizers(), (False, True), (1, 2)))
    choice = random.Random(seed)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        # What children are forked from imports everything first, which is no part of a run.
        (first,) = _processes(int, [()])
        first.join()
        images = runs.make_images(Path(folder) / "images")
        for number in range(cases):
            optimizer, channels_last, processes = kinds[number % len(kinds)]
            layout = "channels_last" if channels_last else "contiguous"
            kind = f"{optimizer}, {layout}, {processes} process{'es' * (processes > 1)}"
            whole, out = Path(folder) / kind, Path(folder) / f"case-{number}"
            settings = {
                **runs.SETTINGS,
                **{"data": str(images), "optimizer": optimizer, "channels_last": channels_last},
                **{"micro_batch": 2, "checkpoint_every": 1, "resume": "auto"},
            }
            moments = [choice.random() for _ in range(_KILLS)]
            name = f"case {number} of seed {seed}, killed after {', '.join(f'{moment:.3f}' for moment in moments)}"
            fault = None
            if kind not in seconds:
                begun = time.monotonic()
                fault = ended(started(settings, whole, processes), whole)
                seconds[kind] = time.monotonic() - begun
            for moment in moments:
                fault = fault or killed(started(settings, out, processes), out, moment * seconds[kind])
            fault = fault or ended(started(settings, out, processes), out) or difference(whole, out)
            yield Case(kind, f"{name} of the {seconds[kind]:.1f} s of a whole run", fault)


def started(settings: dict[str, Any], out: Path, processes: int) -> Sequence[BaseProcess]:
    """The processes of a run, forked from one that has imported everything: starting takes no seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return _processes(_train, [(settings, out, rank, processes, port) for rank in range(processes)])


def killed(children: Sequence[BaseProcess], out: Path, after: float) -> str | None:
    """Kills a run after so many seconds; says what went wrong before."""
    children[0].join(after)
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
    for child in children:
        child.join()
    return _failure(out, [code for code in codes if code is not None])


def ended(children: Sequence[BaseProcess], out: Path) -> str | None:
    """Waits for the end of a run; says what went wrong."""
    ends = time.monotonic() + _LONGEST
    for child in children:
        child.join(max(0.0, ends - time.monotonic()))
    if any(child.is_alive() for child in children):
        killed(children, out, 0.0)
        return f"no end after {_LONGEST:.0f} s"
    return _failure(out, [child.exitcode for child in children])


def difference(whole: Path, out: Path) -> str | None:
    """Where two runs differ."""
    import torch

    from tests.torchdcls_train import made_runs as runs

    for number, (row, other) in enumerate(zip(runs.rows(whole), runs.rows(out), strict=False)):
        if row != other:
            return f"line {number + 1} of metrics is {other}, expected {row}"
    if len(runs.rows(whole)) != len(runs.rows(out)):
        return f"{len(runs.rows(out))} lines of metrics, expected {len(runs.rows(whole))}"
    tensors, others = runs.last_tensors(whole), runs.last_tensors(out)
    if tensors.keys() != others.keys():
        return f"other tensors: {sorted(tensors.keys() ^ others.keys())[:3]}"
    names = [name for name in tensors if not torch.equal(tensors[name], others[name])]
    return f"{len(names)} of {len(tensors)} tensors differ, such as {names[0]}" if names else None


def _processes(target: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> Sequence[BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchdcls_train.train"])
    children = [context.Process(target=target, args=each) for each in arguments]
    for child in children:
        child.start()
    return children


def _optimizers() -> list[str]:
    from torchdcls_train.recipes import load_recipe, recipe_names

    return [*sorted({load_recipe(name)["optimizer"] for name in recipe_names()}), *_FURTHER_OPTIMIZERS]


def _failure(out: Path, codes: Sequence[int | None]) -> str | None:
    if not any(codes):
        return None
    said = [path.read_text().strip().splitlines()[-1] for path in sorted(out.parent.glob(f"{out.name}.error-*"))]
    return f"ended with {codes}: {'; '.join(said) or 'nothing said'}"


def _train(settings: dict[str, Any], out: Path, rank: int, processes: int, port: int) -> None:
    from rich.console import Console

    from torchdcls_train.settings import TrainConfig
    from torchdcls_train.train import train

    if processes > 1:
        # As torchrun starts them.
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), TORCHELASTIC_RUN_ID="kills")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        train(TrainConfig(**settings, out=out), argv=["train"], console=Console(quiet=True))
    except Exception:
        out.with_name(f"{out.name}.error-{rank}").write_text(traceback.format_exc())
        raise SystemExit(1) from None
