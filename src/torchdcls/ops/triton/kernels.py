"""A kernel as a product of factors, and its gradients, in the names and by the formulas of `...separable`; device code.

A program has the elements of one kernel: factors (ELEMENTS, DOWN) and (ELEMENTS, ACROSS), zero beyond the kernel's
cells. With one axis the kernel is one row, and its factor down is 1. Elements beyond the last have weight 0.
"""

import math

import torch
import triton
import triton.language as tl

from .. import separable

EPSILON = tl.constexpr(separable.EPSILON)
# An element is at most FAR of its scales away, so that squares are finite.
FAR = tl.constexpr(2.0**63)
# As in `profiles.gaussian`: where the product of two factors would leave the range of normal numbers.
LEAST = tl.constexpr(1.001 * math.sqrt(torch.finfo(torch.float32).tiny))


@triton.jit
def _inverse(sigma, place, known, SCALES: tl.constexpr, SMALLEST: tl.constexpr):
    # One over the scale, and the sign of sigma.
    if SCALES:
        spread = tl.load(sigma + place, mask=known, other=0.0)
        sign = tl.where(spread < 0, -1.0, 1.0)
        return tl.div_rn(1.0, SMALLEST + sign * spread), sign
    one = tl.where(known, 1.0, 1.0)
    return one / SMALLEST, one


@triton.jit
def _factor(position, inverse, cell, cells, GAUSSIAN: tl.constexpr):
    # Distances and factors; what is compared is such that NaN stays.
    limit = FAR / inverse
    position = tl.where(position > limit, limit, tl.where(position < -limit, -limit, position))
    distance = ((cell - cells // 2).to(tl.float32)[None, :] - position[:, None]) * inverse[:, None]
    if GAUSSIAN:
        factor = tl.exp(-0.5 * distance * distance)
        factor = tl.where(factor <= LEAST, 0.0, factor)
    else:
        factor = 1 - tl.abs(distance)
        factor = tl.where(factor <= 0, 0.0, factor)
    return distance, tl.where((cell < cells)[None, :], factor, 0.0)


@triton.jit
def _slope(distance, factor, GAUSSIAN: tl.constexpr):
    if GAUSSIAN:
        return -distance * factor
    return tl.where(factor > 0, tl.where(distance > 0, -1.0, tl.where(distance < 0, 1.0, 0.0)), 0.0)


@triton.jit(do_not_specialize=["elements", "rows", "columns", "axis"])
def construct(
    weight,
    position,
    sigma,
    kernel,
    elements,
    rows,
    columns,
    axis,
    TWO: tl.constexpr,
    SCALES: tl.constexpr,
    SMALLEST: tl.constexpr,
    GAUSSIAN: tl.constexpr,
    ELEMENTS: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
):
    """The kernel of this program, (rows, columns). `axis` is the distance of the positions along one and the other."""
    one = tl.program_id(0).to(tl.int64)
    element, down, across = tl.arange(0, ELEMENTS), tl.arange(0, DOWN), tl.arange(0, ACROSS)
    known, place = element < elements, one * elements + element
    last = place + axis if TWO else place
    share = tl.load(weight + place, mask=known, other=0.0)
    inverse, _ = _inverse(sigma, last, known, SCALES, SMALLEST)
    _, right = _factor(tl.load(position + last, mask=known, other=0.0), inverse, across, columns, GAUSSIAN)
    mass = tl.sum(right, 1)
    to = kernel + one * rows * columns
    if TWO:
        inverse, _ = _inverse(sigma, place, known, SCALES, SMALLEST)
        _, left = _factor(tl.load(position + place, mask=known, other=0.0), inverse, down, rows, GAUSSIAN)
        share = share / (mass * tl.sum(left, 1) + EPSILON)
        made = tl.dot(tl.trans(left * share[:, None]), right, input_precision="ieee")
        inside = (down < rows)[:, None] & (across < columns)[None, :]
        tl.store(to + down[:, None] * columns + across[None, :], made, mask=inside)
    else:
        share = share / (mass + EPSILON)
        tl.store(to + across, tl.sum(right * share[:, None], 0), mask=across < columns)


@triton.jit(do_not_specialize=["elements", "rows", "columns", "axis"])
def construct_gradients(
    weight,
    position,
    sigma,
    gradient,
    to_weight,
    to_position,
    to_sigma,
    elements,
    rows,
    columns,
    axis,
    TWO: tl.constexpr,
    SCALES: tl.constexpr,
    SMALLEST: tl.constexpr,
    GAUSSIAN: tl.constexpr,
    ELEMENTS: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
):
    """Gradients of the elements of this program's kernel, of which `gradient` is that of the kernel."""
    one = tl.program_id(0).to(tl.int64)
    element, down, across = tl.arange(0, ELEMENTS), tl.arange(0, DOWN), tl.arange(0, ACROSS)
    known, place = element < elements, one * elements + element
    last = place + axis if TWO else place
    share = tl.load(weight + place, mask=known, other=0.0)
    at = tl.load(position + last, mask=known, other=0.0)
    inverse_across, sign_across = _inverse(sigma, last, known, SCALES, SMALLEST)
    distance_across, right = _factor(at, inverse_across, across, columns, GAUSSIAN)
    mass_across = tl.sum(right, 1)
    start = gradient + one * rows * columns
    if TWO:
        at = tl.load(position + place, mask=known, other=0.0)
        inverse_down, sign_down = _inverse(sigma, place, known, SCALES, SMALLEST)
        distance_down, left = _factor(at, inverse_down, down, rows, GAUSSIAN)
        mass_down = tl.sum(left, 1)
        mass = mass_across * mass_down + EPSILON
        inside = (down < rows)[:, None] & (across < columns)[None, :]
        given = tl.load(start + down[:, None] * columns + across[None, :], mask=inside, other=0.0)
        to_left = tl.dot(right, tl.trans(given), input_precision="ieee")
        to_right = tl.dot(left, given, input_precision="ieee")
        to_share = tl.sum(to_left * left, 1)
    else:
        mass_down, mass = 1.0, mass_across + EPSILON
        to_right = tl.load(start + across, mask=across < columns, other=0.0)[None, :]
        to_share = tl.sum(to_right * right, 1)
    share = share / mass
    of_weight = to_share / mass
    to_mass = -of_weight * share
    tl.store(to_weight + place, of_weight, mask=known)
    to_distance = to_right * share[:, None] + (to_mass * mass_down)[:, None]
    to_distance *= _slope(distance_across, right, GAUSSIAN)
    tl.store(to_position + last, tl.sum(to_distance, 1) * -inverse_across, mask=known)
    if SCALES:
        to_scale = tl.sum(to_distance * distance_across, 1) * -inverse_across
        tl.store(to_sigma + last, to_scale * sign_across, mask=known)
    if TWO:
        to_distance = to_left * share[:, None] + (to_mass * mass_across)[:, None]
        to_distance *= _slope(distance_down, left, GAUSSIAN)
        tl.store(to_position + place, tl.sum(to_distance, 1) * -inverse_down, mask=known)
        if SCALES:
            to_scale = tl.sum(to_distance * distance_down, 1) * -inverse_down
            tl.store(to_sigma + place, to_scale * sign_down, mask=known)
