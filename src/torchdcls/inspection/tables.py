"""What `inspect_model` found, as tables for a terminal."""

from collections import defaultdict
from collections.abc import Sequence

from .._extras import needed_by
from .inspect import Layer, ModelInfo
from .receptive_field import ReceptiveField

with needed_by("torchdcls.inspection.tables", "train"):
    from rich.console import Console
    from rich.table import Table


def print_info(info: ModelInfo, console: Console, remarks: Sequence[str] = ()) -> None:
    """Prints a model and its conversions.

    Args:
        info: What was found.
        console: Where to.
        remarks: Lines to put under the model's own numbers.
    """

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
            "field, the pixels that the centre of the last map can depend on, those beyond the borders included."
        )
    elif info.conversions:
        are = (
            "the DCLS layers above are left as they are" if info.layers else "where= of torchdcls.convert picks others"
        )
        say(f"No conversion: {info.conversions[0].reason}; {are}.")


def _layer_table(info: ModelInfo) -> Table:
    dcls = any(layer.kernel_count is not None for layer in info.layers)
    sizes = dict.fromkeys(conversion.dilated_kernel_size for conversion in info.conversions if conversion.replaced)
    table = Table(title="DCLS layers" if dcls else "Layers that can become DCLS layers", title_justify="left")
    table.add_column("stage", overflow="fold")
    for heading in ("layers", "channels", "kernel", *(["becomes"] if sizes else []), "map"):
        table.add_column(heading, justify="right")
    for heading in ["elements", "interpolation"] if dcls else []:
        table.add_column(heading, justify="right" if heading == "elements" else "left")

    def alike(layer: Layer) -> tuple[object, ...]:
        return (
            *(layer.stage, layer.channels, layer.kernel_size, layer.map_size or ()),
            *(layer.kernel_count or 0, layer.interpolation or ""),
        )

    groups: dict[tuple[object, ...], list[Layer]] = defaultdict(list)
    for layer in info.layers:
        groups[alike(layer)].append(layer)
    for rows in groups.values():
        layer = rows[0]
        new = layer.kernel_count is None
        becomes = ", ".join(_sizes(_full(size, len(layer.kernel_size))) for size in sizes) if new else "-"
        table.add_row(
            layer.stage,
            str(len(rows)),
            str(layer.channels),
            _sizes(layer.kernel_size),
            *([becomes] if sizes else []),
            "not called" if layer.map_size is None else _sizes(layer.map_size),
            *(["-" if new else str(layer.kernel_count), layer.interpolation or "-"] if dcls else []),
        )
    return table


def _skipped_table(info: ModelInfo) -> Table:
    table = Table(title="Convolutions that stay as they are", title_justify="left")
    table.add_column("layers", justify="right")
    table.add_column("reason")
    table.add_column("such as", overflow="fold")
    found: dict[str, list[str]] = defaultdict(list)
    for skip in info.skipped:
        found[skip.reason.partition(" (")[0]].append(skip.name)
    for reason, names in sorted(found.items(), key=lambda item: -len(item[1])):
        table.add_row(str(len(names)), reason, names[0])
    return table


def _conversion_table(info: ModelInfo) -> Table:
    table = Table(title="Conversions", title_justify="left")
    # The most that fit have a column of their own where others were asked for.
    given = any(row.kernel_count != row.iso_kernel_count for row in info.conversions)
    for heading in ("kernel", "interpolation", "iso", *(["used"] if given else []), "parameters", "ops"):
        table.add_column(heading, justify="left" if heading == "interpolation" else "right", no_wrap=True)
    table.add_column("sees", justify="right", no_wrap=True)
    before = (f"{info.parameters:,}", _billions(info.operations), _field(info.receptive_field))
    table.add_row("as it is", "-", "-", *(["-"] if given else []), *before)
    table.add_section()
    for row in info.conversions:
        axes = len(info.receptive_field.size)
        table.add_row(
            _sizes(_full(row.dilated_kernel_size, axes)),
            row.interpolation,
            _or_dash(row.iso_kernel_count),
            *([_or_dash(row.kernel_count)] if given else []),
            "-" if row.parameters is None else f"{row.parameters:,}",
            "-" if row.operations is None else _billions(row.operations),
            "-" if row.receptive_field is None else _field(row.receptive_field),
        )
    reasons = dict.fromkeys(row.reason for row in info.conversions if row.reason is not None)
    if reasons:
        table.caption = "-: " + "; ".join(str(reason) for reason in reasons)
        table.caption_justify = "left"
    return table


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


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
