"""Depthwise convolution as matrix products with banded matrices that are made from the kernel; only device code here.

A patch is ROWS x COLUMNS cells of the output of one channel. A row of the input contributes to a patch that row times a
matrix with the kernel's taps along its diagonals. One matrix serves every patch of the channel: patches, of all samples
and places, are the rows of one matrix product. Rows and columns of the input that are padding for all patches of a
program are never multiplied.

Offsets in memory are of type OFFSET, with 64 bits if 32 are not enough; sums are of type SUM. Sizes are not constants,
so that one program serves maps and kernels of all sizes. Triton only looks at the factors of strides and of the number
of channels, which decide how many neighbors it reads at once.
"""

import triton
import triton.language as tl

# Numbers for which programs are not compiled again.
_NUMBERS = [
    "samples",
    "rows_in",
    "columns_in",
    "rows_out",
    "columns_out",
    "pad_rows",
    "pad_columns",
    "kernel_rows",
    "kernel_columns",
]


@triton.jit(do_not_specialize=["cells", "kernel_columns", "band_rows"])
def bands(weight, made, cells, kernel_columns, band_rows, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Banded matrices of all rows of all kernels, (channels, kernel rows, band_rows, COLUMNS), `cells` in all.

    Column c of a matrix holds the taps from row c on. `weight` is contiguous.
    """
    cell = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = cell // COLUMNS
    tap = (row % band_rows - cell % COLUMNS).to(tl.int32)
    known = (cell < cells) & (tap >= 0) & (tap < kernel_columns)
    taps = tl.load(weight + row // band_rows * kernel_columns + tap, mask=known, other=0.0)
    tl.store(made + cell, taps, mask=cell < cells)


@triton.jit(do_not_specialize=[*_NUMBERS, "band_rows", "block_samples", "block_down", "block_across", "biases"])
def banded(
    input,
    bands,
    bias,
    output,
    samples,
    channels,
    rows_in,
    columns_in,
    rows_out,
    columns_out,
    pad_rows,
    pad_columns,
    input_sample,
    input_channel,
    input_row,
    input_column,
    output_sample,
    output_channel,
    output_row,
    output_column,
    kernel_rows,
    kernel_columns,
    band_rows,
    block_samples,
    block_down,
    block_across,
    biases,
    OFFSET: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    PATCHES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Output, or with a kernel that is turned the gradient of the input.

    A program makes block_samples x block_down x block_across patches, at most PATCHES, of BLOCK_CHANNELS channels.
    `input_sample` to `output_column` are strides; `bands` is what the function of that name makes, CHUNK - 1 rows
    longer than the taps reach; `biases` says how many there are: one a channel, or none.
    """
    CELLS: tl.constexpr = ROWS * COLUMNS
    program = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    across_blocks = tl.cdiv(tl.cdiv(columns_out, COLUMNS), block_across)
    down_blocks = tl.cdiv(tl.cdiv(rows_out, ROWS), block_down)
    channel = program % channel_blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    program = program // channel_blocks
    first_column = program % across_blocks * block_across * COLUMNS
    program = program // across_blocks
    first_row = program % down_blocks * block_down * ROWS
    first_sample = program // down_blocks * block_samples

    patch = tl.arange(0, PATCHES)
    sample = first_sample + patch // (block_down * block_across)
    row = first_row + patch // block_across % block_down * ROWS  # of the patch's first cell
    column = first_column + patch % block_across * COLUMNS
    cell = tl.arange(0, CELLS)
    cell_row = cell // COLUMNS
    cell_column = cell % COLUMNS

    known_channel = channel < channels
    known_sample = (sample < samples) & (patch < block_samples * block_down * block_across)
    row_in = row - pad_rows
    column_in = column - pad_columns
    channel_offset = channel.to(OFFSET)
    input_pointers = input + (channel_offset * input_channel)[:, None, None]
    patch_offset = sample.to(OFFSET) * input_sample + column_in.to(OFFSET) * input_column
    # Bands of channels that there are not: the last one's, for products that are not stored.
    first_band = tl.minimum(channel_offset, channels - 1) * kernel_rows * band_rows
    band_pointers = bands + (first_band * COLUMNS)[:, None, None]

    # Steps down and right from a patch's first cell, minus the padding, that meet the map for any patch.
    last_row = first_row + (block_down - 1) * ROWS
    last_column = first_column + (block_across - 1) * COLUMNS
    down_start = tl.maximum(0, pad_rows - last_row)
    down_stop = tl.minimum(ROWS + kernel_rows - 1, rows_in + pad_rows - first_row)
    across_start = tl.maximum(0, pad_columns - last_column)
    across_stop = tl.minimum(COLUMNS + kernel_columns - 1, columns_in + pad_columns - first_column)

    if BLOCK_CHANNELS == 1:
        total = tl.zeros((PATCHES, CELLS), dtype=SUM)
    else:
        total = tl.zeros((BLOCK_CHANNELS, PATCHES, CELLS), dtype=SUM)
    for down in range(down_start, down_stop):
        known_row = known_sample & (row_in + down >= 0) & (row_in + down < rows_in)
        row_offset = patch_offset + (row_in + down).to(OFFSET) * input_row
        tap_row = down - cell_row
        known_tap = (tap_row >= 0) & (tap_row < kernel_rows)
        tap_offset = tap_row * band_rows * COLUMNS + cell_column
        for start in range(across_start, across_stop, CHUNK):
            across = start + tl.arange(0, CHUNK)
            at = column_in[:, None] + across[None, :]
            known = known_row[:, None] & (at >= 0) & (at < columns_in)
            offset = row_offset[:, None] + (across.to(OFFSET) * input_column)[None, :]
            maps = tl.load(input_pointers + offset[None], mask=known_channel[:, None, None] & known[None], other=0.0)
            tap = tap_offset[None, :] + across[:, None] * COLUMNS
            band = tl.load(band_pointers + tap[None], mask=known_tap[None, None, :], other=0.0)
            if BLOCK_CHANNELS == 1:
                maps = tl.reshape(maps, (PATCHES, CHUNK))
                band = tl.reshape(band, (CHUNK, CELLS))
            total = tl.dot(maps, band, total, input_precision=PRECISION, out_dtype=SUM)

    total = tl.reshape(total, (BLOCK_CHANNELS, PATCHES, CELLS))
    total += tl.load(bias + channel, mask=channel < biases, other=0.0).to(SUM)[:, None, None]
    row_out = row[:, None] + cell_row[None, :]
    column_out = column[:, None] + cell_column[None, :]
    patch_offset = (sample.to(OFFSET) * output_sample)[:, None]
    patch_offset += row_out.to(OFFSET) * output_row + column_out.to(OFFSET) * output_column
    pointers = output + channel_offset[:, None, None] * output_channel + patch_offset[None]
    known = known_sample[:, None] & (row_out < rows_out) & (column_out < columns_out)
    tl.store(pointers, total.to(output.dtype.element_ty), mask=known_channel[:, None, None] & known[None])


@triton.jit(do_not_specialize=[*_NUMBERS, "biases"])
def multiplied(
    input,
    weight,
    bias,
    output,
    samples,
    channels,
    rows_in,
    columns_in,
    rows_out,
    columns_out,
    pad_rows,
    pad_columns,
    input_sample,
    input_channel,
    input_row,
    input_column,
    output_sample,
    output_channel,
    output_row,
    output_column,
    kernel_rows,
    kernel_columns,
    biases,
    OFFSET: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_CELLS: tl.constexpr,
):
    """What `banded` makes, one tap after the other: for few taps. A program makes BLOCK_CELLS of BLOCK_CHANNELS.

    `weight` is contiguous, (channels, kernel_rows, kernel_columns); `biases` is as there.
    """
    program = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    channel = program % channel_blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    program = program // channel_blocks
    cell_blocks = tl.cdiv(rows_out * columns_out, BLOCK_CELLS)
    cell = program % cell_blocks * BLOCK_CELLS + tl.arange(0, BLOCK_CELLS)
    sample = (program // cell_blocks).to(OFFSET)
    row = cell // columns_out
    column = cell % columns_out

    known_channel = channel < channels
    channel_offset = channel.to(OFFSET)
    total = tl.zeros((BLOCK_CELLS, BLOCK_CHANNELS), dtype=SUM)
    for tap_row in range(kernel_rows):
        row_in = row + tap_row - pad_rows
        known_row = (cell < rows_out * columns_out) & (row_in >= 0) & (row_in < rows_in)
        for tap_column in range(kernel_columns):
            column_in = column + tap_column - pad_columns
            known = known_row & (column_in >= 0) & (column_in < columns_in)
            offset = sample * input_sample + row_in.to(OFFSET) * input_row + column_in.to(OFFSET) * input_column
            pointers = input + offset[:, None] + (channel_offset * input_channel)[None, :]
            maps = tl.load(pointers, mask=known[:, None] & known_channel[None, :], other=0.0)
            tap = tap_row * kernel_columns + tap_column
            taps = tl.load(
                weight + channel_offset * (kernel_rows * kernel_columns) + tap, mask=known_channel, other=0.0
            )
            total += maps.to(SUM) * taps.to(SUM)[None, :]

    total += tl.load(bias + channel, mask=channel < biases, other=0.0).to(SUM)[None, :]
    offset = sample * output_sample + row.to(OFFSET) * output_row + column.to(OFFSET) * output_column
    pointers = output + offset[:, None] + (channel_offset * output_channel)[None, :]
    known = cell < rows_out * columns_out
    tl.store(pointers, total.to(output.dtype.element_ty), mask=known[:, None] & known_channel[None, :])


@triton.jit(do_not_specialize=[*_NUMBERS, "first_across", "chunks", "splits"])
def banded_weight_gradient(
    input,
    gradient,
    parts,
    samples,
    channels,
    rows_in,
    columns_in,
    rows_out,
    columns_out,
    pad_rows,
    pad_columns,
    input_sample,
    input_channel,
    input_row,
    input_column,
    gradient_sample,
    gradient_channel,
    gradient_row,
    gradient_column,
    kernel_rows,
    kernel_columns,
    first_across,
    chunks,
    splits,
    OFFSET: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    PATCHES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Parts of the kernel's gradient, (splits, channels, kernel_rows, kernel_columns), whose sum it is.

    Patches, here ROWS rows of COLUMNS of the output that one row of the input meets at ROWS rows of taps, are what is
    summed over: their gradients times CHUNK columns of the input give a matrix along whose diagonals lie the taps. A
    program makes it for BLOCK_CHANNELS channels, ROWS rows of taps, one of `chunks` of those columns, counted from
    `first_across` right of a patch's first cell minus the padding, and one of `splits` parts of all patches, going
    down the rows of the input. Chunks overlap so that each tap's diagonal lies in one of them.
    """
    program = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    channel = program % channel_blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    program = program // channel_blocks
    part = program % chunks
    program = program // chunks
    tap_blocks = tl.cdiv(kernel_rows, ROWS)
    first_tap = program % tap_blocks * ROWS
    split = program // tap_blocks

    step: tl.constexpr = CHUNK - COLUMNS + 1
    across = first_across + part * step + tl.arange(0, CHUNK)
    cell = tl.arange(0, ROWS * COLUMNS)
    cell_row = first_tap + cell // COLUMNS
    cell_column = cell % COLUMNS
    strips = tl.cdiv(columns_out, COLUMNS)
    # Rows of the input that any of these taps meets.
    start_row = tl.maximum(0, first_tap - pad_rows)
    stop_row = tl.minimum(rows_in, rows_out - pad_rows + tl.minimum(first_tap + ROWS, kernel_rows) - 1)

    known_channel = channel < channels
    channel_offset = channel.to(OFFSET)
    input_channels = (channel_offset * input_channel)[:, None, None]
    gradient_channels = (channel_offset * gradient_channel)[:, None, None]
    input += start_row.to(OFFSET) * input_row
    if BLOCK_CHANNELS == 1:
        total = tl.zeros((ROWS * COLUMNS, CHUNK), dtype=SUM)
    else:
        total = tl.zeros((BLOCK_CHANNELS, ROWS * COLUMNS, CHUNK), dtype=SUM)
    for start in range(split.to(OFFSET) * PATCHES, samples.to(OFFSET) * strips, splits.to(OFFSET) * PATCHES):
        patch = (start + tl.arange(0, PATCHES)).to(OFFSET)
        sample = patch // strips
        first_column = (patch % strips * COLUMNS).to(tl.int32)
        known_patch = sample < samples
        column_out = first_column[None, :] + cell_column[:, None]
        known_out = known_patch[None, :] & (column_out < columns_out)
        known_out = known_channel[:, None, None] & known_out[None]
        offset = (sample * gradient_sample)[None, :] + column_out.to(OFFSET) * gradient_column
        row_out = start_row + pad_rows - cell_row
        offset += (row_out.to(OFFSET) * gradient_row)[:, None]
        gradient_offset = gradient_channels + offset[None]
        gradient_pointer = gradient
        column_in = first_column[:, None] - pad_columns + across[None, :]
        known_in = known_patch[:, None] & (column_in >= 0) & (column_in < columns_in)
        known_in = known_channel[:, None, None] & known_in[None]
        offset = (sample * input_sample)[:, None] + column_in.to(OFFSET) * input_column
        input_offset = input_channels + offset[None]
        input_pointer = input
        for _ in range(start_row, stop_row):
            known = (row_out >= 0) & (row_out < rows_out)
            gradients = tl.load(gradient_pointer + gradient_offset, mask=known_out & known[None, :, None], other=0.0)
            maps = tl.load(input_pointer + input_offset, mask=known_in, other=0.0)
            if BLOCK_CHANNELS == 1:
                gradients = tl.reshape(gradients, (ROWS * COLUMNS, PATCHES))
                maps = tl.reshape(maps, (PATCHES, CHUNK))
            total = tl.dot(gradients, maps, total, input_precision=PRECISION, out_dtype=SUM)
            gradient_pointer += gradient_row
            input_pointer += input_row
            row_out += 1

    # Diagonals: cell c of a patch meets a tap c columns further right than the patch's first cell does.
    total = tl.reshape(total, (BLOCK_CHANNELS, ROWS, COLUMNS, CHUNK))
    column = tl.arange(0, COLUMNS)[:, None]
    tap_row = first_tap + tl.arange(0, ROWS)
    pointers = parts + ((split * channels).to(OFFSET) + channel_offset)[:, None, None] * (kernel_rows * kernel_columns)
    pointers += (tap_row * kernel_columns)[None, :, None]
    known_row = known_channel[:, None, None] & (tap_row < kernel_rows)[None, :, None]
    begin = tl.where(part == 0, 0, first_across + part * step)
    end = tl.where(part == chunks - 1, kernel_columns, first_across + (part + 1) * step)
    for first in range(begin, end, CHUNK):
        tap = first + tl.arange(0, CHUNK)
        place = tap[None, :] + column - first_across - part * step
        known = (place >= 0) & (place < CHUNK)
        place = tl.where(known, place, 0)
        place = tl.broadcast_to(place[None, None], (BLOCK_CHANNELS, ROWS, COLUMNS, CHUNK))
        taps = tl.sum(tl.where(known[None, None], tl.gather(total, place, axis=3), 0.0), axis=2)
        known = known_row & (tap < end)[None, None, :]
        tl.store(pointers + tap[None, None, :], taps.to(parts.dtype.element_ty), mask=known)
