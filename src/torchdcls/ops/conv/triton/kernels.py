"""Depthwise convolution as matrix products, a banded matrix made from the kernel on the right; only device code here.

A patch is ROWS x COLUMNS cells of the output of one channel. What a row of the input adds to a patch is that row times
a matrix that holds the kernel's taps along its diagonals, and the same matrix serves every patch of the channel:
patches, of all samples and places, are the rows of one matrix product. Rows and columns of the input that lie in the
padding for all patches of a program are never multiplied.

Places in memory are counted in OFFSET, of 64 bits where 32 are not enough; sums are of type SUM.
"""

import triton
import triton.language as tl


@triton.jit
def banded(
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
    KERNEL_ROWS: tl.constexpr,
    KERNEL_COLUMNS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    OFFSET: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_SAMPLES: tl.constexpr,
    BLOCK_DOWN: tl.constexpr,
    BLOCK_ACROSS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Output, or with a kernel that is turned the gradient of the input.

    A program makes BLOCK_SAMPLES x BLOCK_DOWN x BLOCK_ACROSS patches of BLOCK_CHANNELS channels. `input_sample` to
    `output_column` are strides; `weight` is contiguous, (channels, KERNEL_ROWS, KERNEL_COLUMNS).
    """
    PATCHES: tl.constexpr = BLOCK_SAMPLES * BLOCK_DOWN * BLOCK_ACROSS
    CELLS: tl.constexpr = ROWS * COLUMNS
    program = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    across_blocks = tl.cdiv(tl.cdiv(columns_out, COLUMNS), BLOCK_ACROSS)
    down_blocks = tl.cdiv(tl.cdiv(rows_out, ROWS), BLOCK_DOWN)
    channel = program % channel_blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    program = program // channel_blocks
    first_column = program % across_blocks * BLOCK_ACROSS * COLUMNS
    program = program // across_blocks
    first_row = program % down_blocks * BLOCK_DOWN * ROWS
    first_sample = program // down_blocks * BLOCK_SAMPLES

    patch = tl.arange(0, PATCHES)
    sample = first_sample + patch // (BLOCK_DOWN * BLOCK_ACROSS)
    row = first_row + patch // BLOCK_ACROSS % BLOCK_DOWN * ROWS  # of the patch's first cell
    column = first_column + patch % BLOCK_ACROSS * COLUMNS
    cell = tl.arange(0, CELLS)
    cell_row = cell // COLUMNS
    cell_column = cell % COLUMNS

    known_channel = channel < channels
    known_sample = sample < samples
    row_in = row - pad_rows
    column_in = column - pad_columns
    channel_offset = channel.to(OFFSET)
    input_pointers = input + (channel_offset * input_channel)[:, None, None]
    patch_offset = sample.to(OFFSET) * input_sample + column_in.to(OFFSET) * input_column
    weight_pointers = weight + (channel_offset * (KERNEL_ROWS * KERNEL_COLUMNS))[:, None, None]

    # Steps down and right from a patch's first cell, minus the padding, that meet the map for any patch.
    last_row = first_row + (BLOCK_DOWN - 1) * ROWS
    last_column = first_column + (BLOCK_ACROSS - 1) * COLUMNS
    down_start = tl.maximum(0, pad_rows - last_row)
    down_stop = tl.minimum(ROWS + KERNEL_ROWS - 1, rows_in + pad_rows - first_row)
    across_start = tl.maximum(0, pad_columns - last_column)
    across_stop = tl.minimum(COLUMNS + KERNEL_COLUMNS - 1, columns_in + pad_columns - first_column)

    if BLOCK_CHANNELS == 1:
        total = tl.zeros((PATCHES, CELLS), dtype=SUM)
    else:
        total = tl.zeros((BLOCK_CHANNELS, PATCHES, CELLS), dtype=SUM)
    for down in range(down_start, down_stop):
        known_row = known_sample & (row_in + down >= 0) & (row_in + down < rows_in)
        row_offset = patch_offset + (row_in + down).to(OFFSET) * input_row
        tap_row = down - cell_row
        for start in range(across_start, across_stop, CHUNK):
            across = start + tl.arange(0, CHUNK)
            at = column_in[:, None] + across[None, :]
            known = known_row[:, None] & (at >= 0) & (at < columns_in)
            offset = row_offset[:, None] + (across.to(OFFSET) * input_column)[None, :]
            maps = tl.load(input_pointers + offset[None], mask=known_channel[:, None, None] & known[None], other=0.0)
            tap_column = across[:, None] - cell_column[None, :]
            known = (tap_row >= 0) & (tap_row < KERNEL_ROWS)
            known = known[None, :] & (tap_column >= 0) & (tap_column < KERNEL_COLUMNS)
            tap = tap_row[None, :] * KERNEL_COLUMNS + tap_column
            band = tl.load(weight_pointers + tap[None], mask=known_channel[:, None, None] & known[None], other=0.0)
            if BLOCK_CHANNELS == 1:
                maps = tl.reshape(maps, (PATCHES, CHUNK))
                band = tl.reshape(band, (CHUNK, CELLS))
            total = tl.dot(maps, band, total, input_precision=PRECISION, out_dtype=SUM)

    total = tl.reshape(total, (BLOCK_CHANNELS, PATCHES, CELLS))
    if HAS_BIAS:
        total += tl.load(bias + channel, mask=known_channel, other=0.0).to(SUM)[:, None, None]
    row_out = row[:, None] + cell_row[None, :]
    column_out = column[:, None] + cell_column[None, :]
    patch_offset = (sample.to(OFFSET) * output_sample)[:, None]
    patch_offset += row_out.to(OFFSET) * output_row + column_out.to(OFFSET) * output_column
    pointers = output + channel_offset[:, None, None] * output_channel + patch_offset[None]
    known = known_sample[:, None] & (row_out < rows_out) & (column_out < columns_out)
    tl.store(pointers, total.to(output.dtype.element_ty), mask=known_channel[:, None, None] & known[None])


@triton.jit
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
    KERNEL_ROWS: tl.constexpr,
    KERNEL_COLUMNS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    OFFSET: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_CELLS: tl.constexpr,
):
    """What `banded` makes, one tap after the other: for few taps. A program makes BLOCK_CELLS of BLOCK_CHANNELS."""
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
    for tap_row in range(KERNEL_ROWS):
        row_in = row + tap_row - pad_rows
        known_row = (cell < rows_out * columns_out) & (row_in >= 0) & (row_in < rows_in)
        for tap_column in range(KERNEL_COLUMNS):
            column_in = column + tap_column - pad_columns
            known = known_row & (column_in >= 0) & (column_in < columns_in)
            offset = sample * input_sample + row_in.to(OFFSET) * input_row + column_in.to(OFFSET) * input_column
            pointers = input + offset[:, None] + (channel_offset * input_channel)[None, :]
            maps = tl.load(pointers, mask=known[:, None] & known_channel[None, :], other=0.0)
            tap = tap_row * KERNEL_COLUMNS + tap_column
            taps = tl.load(
                weight + channel_offset * (KERNEL_ROWS * KERNEL_COLUMNS) + tap, mask=known_channel, other=0.0
            )
            total += maps.to(SUM) * taps.to(SUM)[None, :]

    if HAS_BIAS:
        total += tl.load(bias + channel, mask=known_channel, other=0.0).to(SUM)[None, :]
    offset = sample * output_sample + row.to(OFFSET) * output_row + column.to(OFFSET) * output_column
    pointers = output + offset[:, None] + (channel_offset * output_channel)[None, :]
    known = cell < rows_out * columns_out
    tl.store(pointers, total.to(output.dtype.element_ty), mask=known[:, None] & known_channel[None, :])


@triton.jit
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
    first_across,
    chunks,
    splits,
    KERNEL_ROWS: tl.constexpr,
    KERNEL_COLUMNS: tl.constexpr,
    OFFSET: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PATCHES: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Parts of the kernel's gradient, (splits, COLUMNS, channels, KERNEL_ROWS, KERNEL_COLUMNS), whose sum it is.

    Patches, here of one row, are what is summed over: their gradients (COLUMNS of them) times CHUNK columns of the
    input give a matrix along whose diagonals lie the taps of one kernel row. A program makes it for BLOCK_CHANNELS
    channels, one of `chunks` of those columns, counted from `first_across` right of a patch's first cell minus the
    padding, and one of `splits` parts of all patches, those alone whose input row is not padding.
    """
    program = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    channel = program % channel_blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    program = program // channel_blocks
    across = first_across + program % chunks * CHUNK + tl.arange(0, CHUNK)
    program = program // chunks
    tap_row = program % KERNEL_ROWS
    split = program // KERNEL_ROWS

    first_row = tl.maximum(0, pad_rows - tap_row)
    rows = tl.maximum(0, tl.minimum(rows_out, rows_in + pad_rows - tap_row) - first_row)
    strips = tl.cdiv(columns_out, COLUMNS)
    patches = samples * rows * strips
    share = tl.cdiv(tl.cdiv(patches, BLOCK_PATCHES), splits) * BLOCK_PATCHES
    stop = tl.minimum(patches, (split + 1) * share)

    known_channel = channel < channels
    channel_offset = channel.to(OFFSET)
    cell = tl.arange(0, COLUMNS)
    input_pointers = input + (channel_offset * input_channel)[:, None, None]
    gradient_pointers = gradient + (channel_offset * gradient_channel)[:, None, None]
    if BLOCK_CHANNELS == 1:
        total = tl.zeros((COLUMNS, CHUNK), dtype=SUM)
    else:
        total = tl.zeros((BLOCK_CHANNELS, COLUMNS, CHUNK), dtype=SUM)
    for start in range(split * share, stop, BLOCK_PATCHES):
        patch = start + tl.arange(0, BLOCK_PATCHES)
        known_patch = patch < stop
        first_column = patch % strips * COLUMNS
        row = first_row + patch // strips % rows
        sample = (patch // strips // rows).to(OFFSET)
        column_out = first_column[None, :] + cell[:, None]
        offset = (sample * gradient_sample + row.to(OFFSET) * gradient_row)[None, :]
        offset += column_out.to(OFFSET) * gradient_column
        known = known_channel[:, None, None] & (known_patch[None, :] & (column_out < columns_out))[None]
        gradients = tl.load(gradient_pointers + offset[None], mask=known, other=0.0)
        column_in = first_column[:, None] - pad_columns + across[None, :]
        row_in = row + tap_row - pad_rows
        offset = (sample * input_sample + row_in.to(OFFSET) * input_row)[:, None]
        offset += column_in.to(OFFSET) * input_column
        known = known_patch[:, None] & (column_in >= 0) & (column_in < columns_in)
        maps = tl.load(input_pointers + offset[None], mask=known_channel[:, None, None] & known[None], other=0.0)
        if BLOCK_CHANNELS == 1:
            gradients = tl.reshape(gradients, (COLUMNS, BLOCK_PATCHES))
            maps = tl.reshape(maps, (BLOCK_PATCHES, CHUNK))
        total = tl.dot(gradients, maps, total, input_precision=PRECISION, out_dtype=SUM)

    total = tl.reshape(total, (BLOCK_CHANNELS, COLUMNS, CHUNK))
    tap_column = across[None, :] - cell[:, None]
    known = (tap_column >= 0) & (tap_column < KERNEL_COLUMNS)
    part = (split * COLUMNS + cell).to(OFFSET)[:, None] * channels * (KERNEL_ROWS * KERNEL_COLUMNS)
    part += tap_row * KERNEL_COLUMNS + tap_column
    pointers = parts + (channel_offset * (KERNEL_ROWS * KERNEL_COLUMNS))[:, None, None] + part[None]
    tl.store(pointers, total, mask=known_channel[:, None, None] & known[None])
