"""The program that runs ONNX graphs in a browser: two files of onnxruntime-web, of one pinned version.

It is downloaded with npm when a page is exported, or taken from a folder, and never kept in this repository.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from workbench.errors import UserError
from workbench.files import atomic_write
from workbench.runs import kept, runs_dir

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
TARBALL = f"onnxruntime-web-{VERSION}.tgz"
# The package as the npm registry states it, and the two files in it that the page needs
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = {
    "ort.wasm.bundle.min.mjs": "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    "ort-wasm-simd-threaded.wasm": "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}


def integrity(content: bytes, algorithm: str = "sha384") -> str:
    """The hash of a file as browsers and npm write it, e.g. "sha384-…"."""
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"


def runtime_files(folder: Path | None = None) -> dict[str, bytes]:
    """The runtime's files by name, checked by their hashes.

    Args:
        folder: Where they are: the package's own folder (e.g. node_modules/onnxruntime-web), a folder
            with its two files, or one with what `npm pack` wrote. Without it, npm downloads the package once;
            it is then kept among the runs.

    Raises:
        UserError: They are not there, cannot be downloaded, or are not those of the pinned version.
    """
    found = _in_folder(folder) if folder else _unpacked(kept(f"download {PACKAGE}", runs_dir() / TARBALL, _download))
    for name, content in found.items():
        if integrity(content) != FILES[name]:
            raise UserError(
                f"{name} is not that of {PACKAGE}; give --runtime a folder with that version, or leave the option out."
            )
    return found


def _in_folder(folder: Path) -> dict[str, bytes]:
    """The files in a folder that a user named."""
    if (folder / TARBALL).is_file():
        return _unpacked(folder / TARBALL)
    for place in (folder, folder / "dist"):
        if all((place / name).is_file() for name in FILES):
            return {name: (place / name).read_bytes() for name in FILES}
    raise UserError(f"--runtime {folder} holds neither {TARBALL} nor {' and '.join(FILES)}; run `npm pack {PACKAGE}`.")


def _unpacked(tarball: Path) -> dict[str, bytes]:
    """The files out of npm's package, which must be the pinned one."""
    if integrity(tarball.read_bytes(), "sha512") != INTEGRITY:
        raise UserError(f"{tarball} is not {PACKAGE} as published (its hash differs); remove it and try again.")
    with tarfile.open(tarball) as package:
        members = {name: package.extractfile(f"package/dist/{name}") for name in FILES}
        return {name: member.read() for name, member in members.items() if member}


def _download(file: Path) -> None:
    """Let npm download the package to `file`."""
    with tempfile.TemporaryDirectory() as folder, atomic_write(file) as temporary:
        command = ["npm", "pack", PACKAGE, "--silent", "--pack-destination", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise UserError(
                f"npm cannot download {PACKAGE} ({said[-1] if said else 'it says nothing'}); install npm, or give "
                f"--runtime a folder with {TARBALL}."
            ) from None
        temporary.write_bytes((Path(folder) / TARBALL).read_bytes())
