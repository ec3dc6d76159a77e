"""Build hooks: `csrc/` is compiled into the wheel, if that is possible, and README.md gets whole addresses."""

import os
import platform
import re
import runpy
import sys
import sysconfig
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

LIBRARY = "torchdcls/ops/native/_kernels.so"  # on every system: that is where it is looked for


class Readme(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        """Makes links and pictures of README.md those of the repository: a package index has neither."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = metadata["urls"]["Repository"]
        text = re.sub(r"(!\[[^\]]*\]\()(?!https:)", rf"\1{repository}/raw/main/", text)
        text = re.sub(r"(?<!!)(\[[^\]]*\]\()(?!https:)", rf"\1{repository}/blob/main/", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


class CompiledKernels(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Puts the library into the wheel; an editable installation has it in the source tree."""
        self.folder = tempfile.TemporaryDirectory()
        editable = version == "editable"
        library = Path(self.root, "src", LIBRARY) if editable else Path(self.folder.name, "library")
        library.parent.mkdir(exist_ok=True)
        library.unlink(missing_ok=True)
        try:
            runpy.run_path(str(Path(self.root, "csrc", "build.py")))["compile_library"](library)
        except RuntimeError as error:
            self.app.display_warning(f"torchdcls without compiled CPU kernels: {textwrap.shorten(str(error), 300)}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"
        if not editable:
            build_data["force_include"][str(library)] = LIBRARY

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.folder.cleanup()


def _platform() -> str:
    """The platform of a wheel for the machine that compiles: the library needs no particular Python."""
    if sys.platform != "darwin":
        return sysconfig.get_platform().replace("-", "_").replace(".", "_")
    # Of macOS, Python names the release and the processors that it was built for itself.
    release = os.environ.get("MACOSX_DEPLOYMENT_TARGET") or platform.mac_ver()[0]
    major, minor = release.split(".")[:2]
    return f"macosx_{major}_{minor if major == '10' else 0}_{platform.machine()}"
