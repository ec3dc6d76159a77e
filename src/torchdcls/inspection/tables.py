"""What `inspect_model` found, as tables for a terminal."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from .._extras import needed_by
from .inspect import Layer, ModelInfo
from .receptive_field import ReceptiveField

with needed_by("torchdcls.inspection.tables", "train"):
    from rich.console import Console
    from rich.table import Table


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
            "iso: the most elements per kernel that need no more parameters than before. Operations are those of plain "
            "convolutions with the dense kernels; spectra, which method='auto' may take, need others. Sees: receptive "
            "field, the pixels that the center of the last map can depend on, those beyond the borders included."
        )
    elif info.conversions:
        are = (
            "the DCLS layers above are left as they are" if info.layers else "where= of torchdcls.convert picks others"
        )
        say(f"No conversion: {info.conversions[0].reason}; {are}.")


def _table(title: str, columns: Mapping[str, Literal["left", "right"]], **options: Any) -> Table:
    table = Table(title=title, title_justify="left")
    for heading, justify in columns.items():
        table.add_column(heading, justify=justify, **options)
    return table


def _layer_table(info: ModelInfo) -> Table:
    groups: dict[Layer, int] = Counter(replace(layer, name="") for layer in info.layers)
    dcls = any(layer.kernel_count is not None for layer in groups)
    sizes = dict.fromkeys(conversion.dilated_kernel_size for conversion in info.conversions if conversion.replaced)
    columns: dict[str, Literal["left", "right"]] = {"stage": "left", "layers": "right", "channels": "right"}
    columns |= {"kernel": "right", **({"becomes": "right"} if sizes else {}), "map": "right"}
    columns |= {"elements": "right", "interpolation": "left"} if dcls else {}
    table = _table("DCLS layers" if dcls else "Layers that can become DCLS layers", columns, overflow="fold")
    for layer, count in groups.items():
        new = layer.kernel_count is None
        becomes = ", ".join(_sizes(_full(size, len(layer.kernel_size))) for size in sizes) if new else "-"
        table.add_row(
            layer.stage,
            str(count),
            str(layer.channels),
            _sizes(layer.kernel_size),
            *([becomes] if sizes else []),
            "not called" if layer.map_size is None else _sizes(layer.map_size),
            *([_or_dash(layer.kernel_count), layer.interpolation or "-"] if dcls else []),
        )
    return table


def _skipped_table(info: ModelInfo) -> Table:
    columns: dict[str, Literal["left", "right"]] = {"layers": "right", "reason": "left", "such as": "left"}
    table = _table("Convolutions that stay as they are", columns, overflow="fold")
    names: dict[str, list[str]] = defaultdict(list)
    for skip in info.skipped:
        names[skip.reason.partition(" (")[0]].append(skip.name)
    for reason, found in sorted(names.items(), key=lambda item: -len(item[1])):
        table.add_row(str(len(found)), reason, found[0])
    return table


def _conversion_table(info: ModelInfo) -> Table:
    # The most that fit have a column of their own where others were asked for.
    given = any(row.kernel_count != row.iso_kernel_count for row in info.conversions)
    headings = ("kernel", "interpolation", "iso", *(["used"] if given else []), "parameters", "ops", "sees")
    columns = {heading: "left" if heading == "interpolation" else "right" for heading in headings}
    table = _table("Conversions", columns, no_wrap=True)  # type: ignore[arg-type]
    before = (f"{info.parameters:,}", _billions(info.operations), _field(info.receptive_field))
    table.add_row("as it is", "-", "-", *(["-"] if given else []), *before)
    table.add_section()
    for row in info.conversions:
        table.add_row(
            _sizes(_full(row.dilated_kernel_size, len(info.receptive_field.size))),
            row.interpolation,
            _or_dash(row.iso_kernel_count),
            *([_or_dash(row.kernel_count)] if given else []),
            _or_dash(row.parameters),
            "-" if row.operations is None else _billions(row.operations),
            "-" if row.receptive_field is None else _field(row.receptive_field),
        )
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
