"""What is raised when a model cannot be written to a file."""


class ExportError(ValueError):
    """The model cannot be written in this format, or the file does not compute what the model does."""


def reason(error: BaseException) -> str:
    """The error in one line: its type and the first line that it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
