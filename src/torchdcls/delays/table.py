"""Delays for other programs: a table of synapses as a file, and a matrix of whole delays."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from .. import _checks
from .._extras import needed_by
from ..ops.tracing import own_parameters
from .layer import DelayLayer
from .rounding import rounded_delays

_COLUMNS = ("pre", "post", "weight", "delay")
_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, eq=False)
class SynapseTable:
    """The synapses of a delay layer as a table, a row for each, for simulators and hardware.

    `SynapseTable.of(layer).save(path)` writes one, `SynapseTable.load(path).set_(layer)` reads it back. Inside
    `rounded_delays` the delays are whole.

    Args:
        pre: (rows), int64. Index of the input neuron, from 0.
        post: (rows), int64. Index of the output neuron, from 0.
        weight: (rows), float64.
        delay: (rows), float64. Unit: time steps.

    Raises:
        ValueError: Columns of other shapes or dtypes, a negative index, or a number that is not finite.
        TypeError: A column that is not a tensor.

    Example:
        >>> import torch
        >>> from torchdcls.delays import AxonalDelays, SynapseTable
        >>> layer = AxonalDelays(2, 2, max_delay=3, init=torch.tensor([0.5, 2.0]))
        >>> table = SynapseTable.of(layer)
        >>> for row in zip(table.pre.tolist(), table.post.tolist(), table.delay.tolist()):
        ...     print(*row)
        0 0 0.5
        1 0 2.0
        0 1 0.5
        1 1 2.0
    """

    pre: Tensor
    post: Tensor
    weight: Tensor
    delay: Tensor

    def __post_init__(self) -> None:
        for name, column in self._columns().items():
            _checks.axis_count(name, column, 1)
            dtype = torch.int64 if name in ("pre", "post") else torch.float64
            if column.dtype != dtype or len(column) != len(self.pre):
                raise ValueError(
                    f"{name}: expected {dtype} of {len(self.pre)} rows, got {column.dtype} of {len(column)}"
                )
            if not column.isfinite().all() or (name != "weight" and (column < 0).any()):
                least = "" if name == "weight" else " of at least 0"
                raise ValueError(f"{name}: expected finite numbers{least}, got others")

    @classmethod
    def of(cls, layer: DelayLayer) -> "SynapseTable":
        """The synapses of a layer, `kernel_count` rows for each pair of neurons, its bias left out.

        Raises:
            ValueError: A weight or a delay that is not finite.
            TypeError: Not a delay layer.
        """
        _checks.of_type("layer", layer, DelayLayer, "a layer of torchdcls.delays")
        weight = layer.weight.detach().cpu().double()
        delay = layer.delay.detach().cpu().double().reshape(*layer.position_channels, -1).expand_as(weight)
        post, pre, _ = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, weight.shape), indexing="ij"))
        return cls(pre, post, weight.flatten(), delay.flatten())

    def set_(self, layer: DelayLayer) -> None:
        """Sets weights and delays of a layer, in place. Synapses without a row have weight 0.

        Raises:
            ValueError: Neurons that the layer does not have, more rows for a pair than its `kernel_count`, delays
                beyond its window, different delays for synapses that share one, or weights outside its mask.
            TypeError: Not a delay layer.
        """
        _checks.of_type("layer", layer, DelayLayer, "a layer of torchdcls.delays")
        for name, column, count in (
            ("pre", self.pre, layer.in_features),
            ("post", self.post, layer.out_features),
        ):
            if (column >= count).any():
                raise ValueError(f"{name}: expected neurons 0 to {count - 1}, got {int(column.max())}")
        pair = self.post * layer.in_features + self.pre
        order = pair.argsort(stable=True)
        counts = pair.bincount(minlength=layer.out_features * layer.in_features)
        if (counts > layer.kernel_count).any():
            raise ValueError(
                f"pre, post: expected up to kernel_count={layer.kernel_count} rows for each pair, "
                f"got {int(counts.max())} for one"
            )
        first = counts.cumsum(0) - counts
        element = torch.empty_like(order)
        element[order] = torch.arange(len(order)) - first[pair[order]]

        weight = torch.zeros(layer.weight.shape, dtype=torch.float64)
        weight[self.post, self.pre, element] = self.weight
        owner = torch.arange(layer.position[0].numel()).reshape(layer.position.shape[1:]).expand(layer.weight.shape)
        owner = owner[self.post, self.pre, element]
        delay = torch.zeros(layer.position[0].numel(), dtype=torch.float64)
        delay[owner] = self.delay
        if not torch.equal(delay[owner], self.delay):
            raise ValueError(
                f"delay: expected synapses that share a delay, as those of {type(layer).__name__}, got others"
            )
        old_weight, old_delay = layer.weight.detach().clone(), layer.delay.detach().clone()
        layer.delay = delay.reshape(layer.delay_shape)
        new = weight.to(layer.weight)
        if parametrize.is_parametrized(layer, "weight"):
            layer.weight = new  # type: ignore[assignment]  # a property, which asks the inverse
        elif "weight" in own_parameters(layer):
            with torch.no_grad():
                layer.weight.copy_(new)
        if not torch.equal(layer.weight, new):
            layer.delay = old_delay
            if parametrize.is_parametrized(layer, "weight"):
                layer.weight = old_weight  # type: ignore[assignment]
            raise ValueError("weight: expected weights that the layer can have, got others than those of its mask")

    def save(self, path: str | Path) -> None:
        """Writes the table, with a header of names: pre, post, weight, delay. Numbers read back are the same.

        Args:
            path: A file that ends in ".csv" or, with pyarrow installed, ".parquet".

        Raises:
            ValueError: Another suffix.
            ModuleNotFoundError: pyarrow is missing.
        """
        columns = {name: column.tolist() for name, column in self._columns().items()}
        if _suffix(path) == ".parquet":
            with needed_by("a Parquet file", "delays"):
                import pyarrow
                from pyarrow import parquet
            parquet.write_table(pyarrow.table(columns), path)
            return
        with Path(path).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(zip(*columns.values(), strict=True))

    @classmethod
    def load(cls, path: str | Path) -> "SynapseTable":
        """Reads a table; other columns are left out.

        Args:
            path: A file that ends in ".csv" or, with pyarrow installed, ".parquet".

        Raises:
            ValueError: Another suffix, no table in the file, a column is missing, or a value is no number.
            ModuleNotFoundError: pyarrow is missing.
        """
        read = _read_parquet if _suffix(path) == ".parquet" else _read_csv
        try:
            columns = read(path)
        except (ValueError, csv.Error) as error:  # pyarrow's are ValueErrors
            raise ValueError(f"path: expected a table, '{path}' cannot be read ({error})") from None
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise ValueError(
                f"path: expected columns {', '.join(_COLUMNS)}, got none of {', '.join(missing)} in {path}"
            )
        return cls(*(_numbers(name, columns[name], path) for name in _COLUMNS))

    def _columns(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in _COLUMNS}


def delay_matrix(layer: DelayLayer) -> Tensor:
    """Whole delays of all pairs of neurons, for simulators that take a matrix of delays, such as lava's Dense.

    Delays are clamped and rounded, as in `rounded_delays`. The weights that belong to them are `layer.weight[..., 0]`.

    Returns:
        (out_features, in_features), int64. Unit: time steps.

    Raises:
        ValueError: The layer has several delays for each pair, or one that is not finite.
        TypeError: Not a delay layer.

    Example:
        >>> import torch
        >>> from torchdcls.delays import DendriticDelays, delay_matrix
        >>> delay_matrix(DendriticDelays(3, 2, max_delay=4, init=torch.tensor([0.2, 3.9])))
        tensor([[0, 0, 0],
                [4, 4, 4]])
    """
    _checks.of_type("layer", layer, DelayLayer, "a layer of torchdcls.delays")
    if layer.kernel_count != 1:
        raise ValueError(f"layer: expected one delay for each pair of neurons, got kernel_count={layer.kernel_count}")
    with rounded_delays(layer), torch.no_grad():
        delay = layer.delay.reshape(layer.position_channels)
    return delay.long().expand(layer.weight_channels).clone()


def _suffix(path: str | Path) -> str:
    suffix = _checks.path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"path: expected a name that ends in {_checks.alternatives(_SUFFIXES)}, got {str(path)!r}")
    return suffix


def _read_parquet(path: str | Path) -> dict[str, list[Any]]:
    with needed_by("a Parquet file", "delays"):
        from pyarrow import parquet
    table = parquet.read_table(path)
    return {name: table[name].to_pylist() for name in table.column_names if name in _COLUMNS}


def _read_csv(path: str | Path) -> dict[str, list[Any]]:
    with Path(path).open(newline="") as file:
        reader = csv.DictReader(file)
        names, rows = reader.fieldnames or (), list(reader)
    return {name: [row[name] for row in rows] for name in names if name in _COLUMNS}


def _numbers(name: str, values: list[Any], path: str | Path) -> Tensor:
    kind, dtype = (int, torch.int64) if name in ("pre", "post") else (float, torch.float64)
    numbers = []
    for value in values:
        try:
            numbers.append(kind(value))
            exact = isinstance(value, str) or numbers[-1] == value
        except (TypeError, ValueError):
            exact = False
        if not exact:
            raise ValueError(f"{name}: expected {kind.__name__} in every row of {path}, got {value!r}")
    return torch.tensor(numbers, dtype=dtype)
