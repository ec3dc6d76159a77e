"""What `inspect_model` found, as tables for a terminal."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._extras import needed_by
from .inspect import Layer, ModelInfo
from .receptive_field import ReceptiveField

with needed_by("torchdcls.inspection.tables", "train"):
    from rich.console import Console
    from rich.table import Table

_WORDS = ("stage", "interpolation", "reason", "such as")  # headings of columns without numbers


def print_info(info: ModelInfo, console: Console, remarks: Sequence[str] = ()) -> None:
    """Prints a model and its conversions, with `remarks` under the model's own numbers."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    say(f"{info.name}, input {_sizes(info.input_shape)}")
    say(f"parameters: {info.parameters:,}")
    say(f"operations: {_billions(info.operations)}, two for each product of a dense forward pass")
    say(f"receptive field: {info.receptive_field}")
    for remark in remarks:
        say(remark)
    if info.layers:
        console.print(_layer_table(info))
    if info.skipped:
        console.print(_skipped_table(info))
    numbers = [conversion for conversion in info.conversions if conversion.replaced]
    if numbers:
        console.print(_conversion_table(info))
        say(
            "iso: the most elements per kernel that need no more parameters than before. Operations are counted for "
            "plain convolutions with the dense kernels; method='auto' may use FFTs, which need other ones. Sees: the "
            "receptive field, the pixels that the center of the last feature map can depend on, beyond the borders too."
        )
    elif info.conversions:
        are = (
            "the DCLS layers above are left as they are" if info.layers else "where= of torchdcls.convert picks others"
        )
        say(f"No conversion: {info.conversions[0].reason}; {are}.")


def _table(title: str, rows: Sequence[Mapping[str, str]], **options: Any) -> Table:
    """A table of rows that have the same headings."""
    table = Table(title=title, title_justify="left")
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading in _WORDS else "right", **options)
    for row in rows:
        table.add_row(*row.values())
    return table


def _layer_table(info: ModelInfo) -> Table:
    groups: dict[Layer, int] = Counter(replace(layer, name="") for layer in info.layers)
    dcls = any(layer.kernel_count is not None for layer in groups)
    sizes = dict.fromkeys(conversion.dilated_kernel_size for conversion in info.conversions if conversion.replaced)
    rows = []
    for layer, count in groups.items():
        row = {"stage": layer.stage, "layers": str(count), "channels": str(layer.channels)}
        row["kernel"] = _sizes(layer.kernel_size)
        if sizes:
            new = ", ".join(_sizes(_full(size, len(layer.kernel_size))) for size in sizes)
            row["becomes"] = new if layer.kernel_count is None else "-"
        row["feature map"] = "not called" if layer.map_size is None else _sizes(layer.map_size)
        if dcls:
            row |= {"elements": _or_dash(layer.kernel_count), "interpolation": layer.interpolation or "-"}
        rows.append(row)
    return _table("DCLS layers" if dcls else "Layers that can become DCLS layers", rows, overflow="fold")


def _skipped_table(info: ModelInfo) -> Table:
    names: dict[str, list[str]] = defaultdict(list)
    for skip in info.skipped:
        names[skip.reason.partition(" (")[0]].append(skip.name)
    most = sorted(names.items(), key=lambda item: -len(item[1]))
    rows = [{"layers": str(len(found)), "reason": reason, "such as": found[0]} for reason, found in most]
    return _table("Convolutions that stay as they are", rows, overflow="fold")


def _conversion_table(info: ModelInfo) -> Table:
    # The most that fit have a column of their own where others were asked for.
    given = any(row.kernel_count != row.iso_kernel_count for row in info.conversions)
    rows = [
        {
            "kernel": _sizes(_full(row.dilated_kernel_size, len(info.receptive_field.size))),
            "interpolation": row.interpolation,
            "iso": _or_dash(row.iso_kernel_count),
            **({"used": _or_dash(row.kernel_count)} if given else {}),
            "parameters": _or_dash(row.parameters),
            "ops": "-" if row.operations is None else _billions(row.operations),
            "sees": "-" if row.receptive_field is None else _field(row.receptive_field),
        }
        for row in info.conversions
    ]
    before = dict.fromkeys(rows[0], "-") | {"kernel": "as it is", "parameters": f"{info.parameters:,}"}
    before |= {"ops": _billions(info.operations), "sees": _field(info.receptive_field)}
    table = _table("Conversions", [before, *rows], no_wrap=True)
    table.rows[0].end_section = True
    reasons = dict.fromkeys(row.reason for row in info.conversions if row.reason is not None)
    if reasons:
        table.caption, table.caption_justify = "-: " + "; ".join(reasons), "left"
    return table


def _or_dash(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _field(field: ReceptiveField) -> str:
    if field.unknown or not field.size:
        return "not known"
    return "whole image" if not any(field.size) else _sizes(field.size)


def _full(size: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (size,) * axes if isinstance(size, int) else size


def _sizes(size: Sequence[int | None]) -> str:
    return "x".join("whole" if cells is None else str(cells) for cells in size)


def _billions(operations: int) -> str:
    return f"{operations / 1e9:.3g} G" if operations >= 1e6 else f"{operations:,}"
