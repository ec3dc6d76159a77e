"""What result files say about where their numbers come from."""

import subprocess
from pathlib import Path

import pytest

import torchdcls_results as results


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A git tree with one commit."""
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_clean_tree(tree: Path) -> None:
    assert results.git_state(tree) == {"commit": git(tree, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("name", ["file", "new"])
def test_changed_and_untracked_files_make_a_tree_dirty(tree: Path, name: str) -> None:
    (tree / name).write_text("2")
    assert results.git_state(tree)["dirty"] is True


def test_result_files_do_not_make_a_tree_dirty(tree: Path) -> None:
    (tree / "benchmarks" / "results").mkdir(parents=True)
    (tree / "benchmarks" / "results" / "a.json").write_text("{}")
    assert results.git_state(tree)["dirty"] is False


def test_no_git_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.git_state(tmp_path) == {"commit": None, "dirty": None}


@pytest.mark.parametrize("out", [["--out", "/some/where"], ["--out=/some/where"]])
def test_where_the_result_goes_is_left_out_of_its_command(out: list[str]) -> None:
    assert results.repeatable(["construction", *out, "--turns", "3"]) == ["construction", "--turns", "3"]


@pytest.mark.parametrize("data", [["--data", "/home/me/birds"], ["--data=/home/me/birds"]])
def test_paths_are_left_out_of_the_command(data: list[str]) -> None:
    assert " ".join(results.repeatable(["compare", *data])).replace("=", " ") == "compare --data birds"


def test_a_checkout_is_found() -> None:
    assert Path(__file__).parents[1] == results._CHECKOUT


def test_an_installed_copy_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_CHECKOUT", tmp_path)
    fields = results.environment("make", ["torch"])
    assert (fields["commit"], fields["dirty"]) == (None, None)


def test_a_single_value_has_no_interval() -> None:
    assert results.mean_and_interval([3.0], ".1f") == "3.0"
    assert results.mean_and_interval([1.0, 3.0, 2.0], "+z.1f") == f"+2.0 ± {4.303 / 3**0.5:.1f}"
    assert results.mean_and_interval([1.0, 3.0], least=3) == "2.00"
    assert results.mean_and_interval([-0.1, 0.0], "+z.0f").startswith("+0 ")
