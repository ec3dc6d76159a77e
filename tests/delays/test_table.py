"""Ways out: a table of synapses as a file, a matrix of whole delays, and back."""

import math
import sys

import pytest
import torch

from torchdcls.delays import (
    AxonalDelays,
    DendriticDelays,
    SynapseTable,
    SynapticDelays,
    delay_matrix,
    round_delays_,
    rounded_delays,
)

KINDS = [SynapticDelays, AxonalDelays, DendriticDelays]
kinds = pytest.mark.parametrize("kind", KINDS)
COLUMNS = ("pre", "post", "weight", "delay")


def columns(table):
    return [getattr(table, name) for name in COLUMNS]


def by_table(table, layer, input):
    """What whole delays of a table compute, row by row."""
    output = torch.zeros(input.shape[0], layer.out_features, input.shape[-1], dtype=torch.float64)
    for pre, post, weight, delay in zip(*(column.tolist() for column in columns(table)), strict=True):
        output[:, post, int(delay) :] += weight * input[:, pre, : input.shape[-1] - int(delay)].double()
    return output


@kinds
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("kernel_count", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_read_back_equal(kind, suffix, kernel_count, dtype, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    layer, other = (kind(3, 4, 6, kernel_count=kernel_count, dtype=dtype) for _ in range(2))
    table = SynapseTable.of(layer)
    table.save(tmp_path / f"synapses.{suffix}")
    read = SynapseTable.load(str(tmp_path / f"synapses.{suffix}"))
    assert all(map(torch.equal, columns(read), columns(table)))
    read.set_(other)
    assert torch.equal(other.delay, layer.delay) and torch.equal(other.weight, layer.weight)


@kinds
def test_whole_delays_compute_the_same(kind, tmp_path):
    layer = kind(3, 4, 6, kernel_count=2)
    input = torch.randn(2, 3, 9)
    with rounded_delays(layer):
        table = SynapseTable.of(layer)
        expected = layer(input).double()
    assert torch.equal(table.delay, table.delay.round())
    torch.testing.assert_close(by_table(table, layer, input), expected, rtol=1e-5, atol=1e-6)


def test_the_file_is_plain(tmp_path):
    layer = SynapticDelays(2, 1, 6, init=torch.tensor([[0.5, 3.0]]))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[0.25], [-1.0]]]))
    SynapseTable.of(layer).save(tmp_path / "synapses.csv")
    assert (tmp_path / "synapses.csv").read_text().splitlines() == [
        "pre,post,weight,delay",
        "0,0,0.25,0.5",
        "1,0,-1.0,3.0",
    ]


def test_rows_may_be_missing_and_in_any_order():
    table = SynapseTable(
        pre=torch.tensor([2, 0, 2]),
        post=torch.tensor([0, 1, 0]),
        weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
        delay=torch.tensor([5.0, 0.5, 4.0], dtype=torch.float64),
    )
    layer = SynapticDelays(3, 2, 6, kernel_count=2)
    table.set_(layer)
    expected = torch.zeros(2, 3, 2)
    expected[0, 2], expected[1, 0, 0] = torch.tensor([1.0, 3.0]), 2.0
    assert torch.equal(layer.weight, expected)
    assert layer.delay[0, 2].tolist() == [5.0, 4.0] and layer.delay[1, 0, 0] == 0.5


def rows(pre=0, post=0, weight=1.0, delay=1.0, count=1):
    whole, real = {"dtype": torch.int64}, {"dtype": torch.float64}
    return [
        torch.as_tensor(pre, **whole).expand(count),
        torch.as_tensor(post, **whole).expand(count),
        torch.as_tensor(weight, **real).expand(count),
        torch.as_tensor(delay, **real).expand(count),
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (rows(pre=3), r"pre: expected neurons 0 to 2, got 3"),
        (rows(post=2), r"post: expected neurons 0 to 1, got 2"),
        (rows(count=2), r"pre, post: expected up to kernel_count=1 rows for each pair, got 2 for one"),
        (rows(delay=6.5), r"delay: expected delays from 0 to max_delay=6 steps, got 6.5"),
        (
            rows(post=torch.tensor([0, 1]), delay=torch.tensor([1.0, 2.0]), count=2),
            r"delay: expected synapses that share a delay, as those of AxonalDelays, got others",
        ),
    ],
)
def test_tables_of_other_layers(values, said):
    layer = AxonalDelays(3, 2, 6)
    before = layer.weight.clone(), layer.delay.clone()
    with pytest.raises(ValueError, match=f"^{said}"):
        SynapseTable(*values).set_(layer)
    assert torch.equal(layer.weight, before[0]) and torch.equal(layer.delay, before[1])


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        (rows(pre=-1), ValueError, "pre: expected finite numbers of at least 0, got others"),
        (rows(delay=-1.0), ValueError, "delay: expected finite numbers of at least 0, got others"),
        (rows(delay=math.nan), ValueError, "delay: expected finite numbers of at least 0, got others"),
        (rows(weight=math.inf), ValueError, "weight: expected finite numbers, got others"),
        (
            [*rows()[:3], rows(count=2)[3]],
            ValueError,
            "delay: expected torch.float64 of 1 rows, got torch.float64 of 2",
        ),
        ([rows()[0].float(), *rows()[1:]], ValueError, "pre: expected torch.int64 of 1 rows, got torch.float32 of 1"),
        ([*rows()[:3], [1.0]], TypeError, "delay: expected a torch.Tensor, got list"),
    ],
)
def test_wrong_columns(values, error, said):
    with pytest.raises(error, match=f"^{said}"):
        SynapseTable(*values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pre,post,weight\n0,0,1\n", "path: expected columns pre, post, weight, delay, got none of delay in"),
        ("", "path: expected columns pre, post, weight, delay, got none of pre, post, weight, delay in"),
        ("pre,post,weight,delay\n0,0,heavy,1\n", "weight: expected float in every row of .*, got 'heavy'"),
        ("pre,post,weight,delay\n0.5,0,1,1\n", "pre: expected int in every row of .*, got '0.5'"),
        ("pre,post,weight,delay\n0,0,1\n", "delay: expected float in every row of .*, got None"),
        ("pre,post,weight,delay\n0,0,1,nan\n", "delay: expected finite numbers of at least 0, got others"),
    ],
)
def test_wrong_files(text, said, tmp_path):
    (tmp_path / "synapses.csv").write_text(text)
    with pytest.raises(ValueError, match=f"^{said}"):
        SynapseTable.load(tmp_path / "synapses.csv")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_that_are_no_table(suffix, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / f"synapses.{suffix}").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"^path: expected a table, '.*' cannot be read \("):
        SynapseTable.load(tmp_path / f"synapses.{suffix}")


def test_other_columns_and_an_empty_table(tmp_path):
    (tmp_path / "synapses.csv").write_text("name,delay,pre,weight,post\nx,1.5,2,0.5,1\n")
    assert [column.tolist() for column in columns(SynapseTable.load(tmp_path / "synapses.csv"))] == [
        [2],
        [1],
        [0.5],
        [1.5],
    ]
    (tmp_path / "empty.csv").write_text("pre,post,weight,delay\n")
    layer = SynapticDelays(3, 2, 6)
    SynapseTable.load(tmp_path / "empty.csv").set_(layer)
    assert layer.weight.count_nonzero() == 0


def test_numbers_of_parquet_files_are_not_cut(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"pre": [0.5], "post": [0], "weight": [1.0], "delay": [1.0]})
    parquet.write_table(table, tmp_path / "synapses.parquet")
    with pytest.raises(ValueError, match=r"^pre: expected int in every row of .*, got 0.5"):
        SynapseTable.load(tmp_path / "synapses.parquet")


def test_wrong_suffixes_and_layers(tmp_path, monkeypatch):
    table = SynapseTable.of(SynapticDelays(3, 2, 6))
    for call in (lambda: table.save("synapses.txt"), lambda: SynapseTable.load("synapses.txt")):
        with pytest.raises(ValueError, match=r"^path: expected a name that ends in '.csv' or '.parquet', got"):
            call()
    for call in (SynapseTable.of, table.set_, delay_matrix):
        with pytest.raises(TypeError, match=r"^layer: expected a layer of torchdcls.delays, got torch.nn.*Linear$"):
            call(torch.nn.Linear(3, 2))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"^a Parquet file needs .* delays extra \(pyarrow is missing\): pip"):
        table.save(tmp_path / "synapses.parquet")


@kinds
def test_delay_matrix(kind):
    layer = kind(3, 4, 6)
    with torch.no_grad():
        layer.position.view(-1)[0] = 50
    before = layer.delay.clone()
    matrix = delay_matrix(layer)
    assert matrix.shape == (4, 3) and matrix.dtype == torch.int64
    assert torch.equal(layer.delay, before)
    input = torch.randn(2, 3, 9)
    expected = sum(
        layer.weight[:, pre, 0].unsqueeze(-1)
        * torch.stack([torch.nn.functional.pad(input[:, pre], (d, 0))[:, :9] for d in matrix[:, pre].tolist()], 1)
        for pre in range(3)
    )
    round_delays_(layer)
    torch.testing.assert_close(layer(input), expected)
    other = SynapticDelays(3, 4, 6)
    other.delay = matrix
    assert torch.equal(delay_matrix(other), matrix)
    matrix.fill_diagonal_(9)  # memory of its own for each pair
    assert (matrix == 9).sum() == 3


def test_delay_matrix_of_several_delays():
    with pytest.raises(ValueError, match=r"^layer: expected one delay for each pair of neurons, got kernel_count=2"):
        delay_matrix(SynapticDelays(3, 2, 6, kernel_count=2))
