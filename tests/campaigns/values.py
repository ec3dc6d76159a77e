"""Special values of weights, positions and sigmas: kernels and gradients against the formula in float64."""

import itertools
import random
from collections.abc import Iterator

from .case import Case

CASES = 1500
WORST = "rounding units beyond the plain error"

_SIZES = [
    *[((5,), (0,)), ((4,), (0,))],
    *[((3, 4), (0, 1)), ((4, 3), (0,)), ((2, 5), (1,)), ((1, 6), (0, 1))],
    *[((2, 3, 2), (0, 1, 2)), ((3, 2, 2), (0, 2)), ((6, 3, 1), (2,)), ((2, 2, 3), (1,))],
]
_DTYPES = ("float32", "float64", "bfloat16")
_NAMES = (("weight",), ("position",), ("sigma",), ("position", "sigma"))


def run(cases: int, seed: int) -> Iterator[Case]:
    """A layer's parameters with one special value, kernel and gradients against the formula in float64.

    Layers of 1 to 3 axes, plain and transposed, of every profile and one of compact support, in three dtypes. Where
    float64 has a finite number that the dtype can hold, the layer must have it, up to rounding.
    """
    import torch

    import torchdcls
    from tests.cases import COMPACT, SPECIAL_VALUES, SPECIAL_WEIGHTS, SPREADS, Elements, special_fault, with_special

    draw = random.Random(seed)
    spreads = {**SPREADS, "compact": COMPACT}
    every = [
        (spread, names, value, sizes, dtype)
        for spread, names in itertools.product(spreads, _NAMES)
        if "sigma" not in names or spreads[spread].start is not None
        for value in (SPECIAL_WEIGHTS if names == ("weight",) else SPECIAL_VALUES)
        for sizes, dtype in itertools.product(_SIZES, _DTYPES)
    ]
    for spread, names, value, (size, learned), dtype in draw.sample(every, min(cases, len(every))):
        kind = f"{dtype}, {len(size)}-D, {' and '.join(names)}"
        transposed = draw.random() < 0.3
        number = draw.randrange(2**31)
        name = f"{spread} {size} {learned} {value}{' transposed' if transposed else ''} seed {number}"
        torch.manual_seed(number)
        layer = getattr(torchdcls, f"Dcls{'Transpose' if transposed else ''}{len(size)}d")(
            *(2, 2, 1 if all(size[dim] == 1 for dim in learned) else 3),
            dilated_kernel_size=size,
            groups=2,
            interpolation=spreads[spread].interpolation,
            learned_dims=learned,
            position_init=("uniform", 3.0),
            dtype=getattr(torch, dtype),
        )
        if layer.sigma is not None:
            torch.nn.init.normal_(layer.sigma, std=0.5)
        leaves = {leaf: getattr(layer, leaf) for leaf in ("weight", "position", "sigma")}
        elements = Elements(spreads[spread], size, learned, **leaves)
        fault, worst = special_fault(with_special(elements, names, SPECIAL_VALUES[value]))
        yield Case(kind, name, fault, worst)
