"""Build the wheel and the sdist, and check them as a user gets them: python tools/check_wheel.py.

The wheel is installed into a new environment that borrows only the dependencies of the running one, so that nothing
of this checkout can be imported. The sdist has to hold every tracked file.
"""

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENT = """\
import numpy as np

import septum

model: septum.Model = septum.load("nuclei")
labels: np.ndarray = model.predict(np.zeros((64, 64))).labels
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", work / "dist", ROOT]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (sdist,) = (work / "dist").glob("*.tar.gz")
        (wheel,) = (work / "dist").glob("*.whl")
        check_contents(sdist, wheel)
        environment = work / "venv"
        venv.create(environment, symlinks=sys.platform != "win32")
        programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
        # the folder's own .pth files are not read from here: no editable installation shows through
        (site_packages,) = environment.glob("[Ll]ib/**/site-packages")
        (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        pip = [sys.executable, "-m", "pip", "--python", programs / "python", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", wheel], check=True)
        check_commands(programs, work)
        subprocess.run([programs / "python", "-I", __file__, "--installed"], cwd=work, check=True)
        check_types(programs, work)
        print(f"{sdist.name} and {wheel.name}: built, installed and used without problems")


def check_contents(sdist: Path, wheel: Path) -> None:
    """The sdist holds all that git tracks, tests included; the wheel holds the package and nothing else."""
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = set(listed.stdout.splitlines()) - packed
    assert not missing, f"{sdist.name} lacks {sorted(missing)}"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"septum", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}, f"{wheel.name} holds {tops}"
    package = {name.removeprefix("src/") for name in listed.stdout.splitlines() if name.startswith("src/")}
    assert package <= names, f"{wheel.name} lacks {sorted(package - names)}"


def check_commands(programs: Path, work: Path) -> None:
    """The command is installed, and predicts, scores and reports with what the wheel brings."""
    for words in (["--help"], ["predict", "--help"]):
        subprocess.run([programs / "septum", *words], cwd=work, check=True, stdout=subprocess.DEVNULL)
    copy = "import shutil, sys, importlib.resources as r; d = r.files('stardist') / 'data' / 'images'\n"
    copy += "for n in ('img2d', 'mask2d'): shutil.copy(d / f'{n}.tif', f'{n}.tif')"
    subprocess.run([programs / "python", "-I", "-c", copy], cwd=work, check=True)
    for words in (
        ["predict", "nuclei", "img2d.tif", "--output", "out"],
        ["evaluate", "out/img2d_labels.tif", "mask2d.tif", "--report", "errors.html"],
    ):
        subprocess.run([programs / "septum", *words], cwd=work, check=True, capture_output=True)
    assert "<html" in (work / "errors.html").read_text(encoding="utf-8")


def check_types(programs: Path, work: Path) -> None:
    """A program that uses Septum passes mypy's strict checks, and a wrong one does not: the types are really there."""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", programs / "python"]
    for name, code, expected in (
        ("right.py", CLIENT, "Success"),
        ("wrong.py", f"{CLIENT}number: int = model\n", "Incompatible types in assignment"),
    ):
        (work / name).write_text(code)
        done = subprocess.run([*mypy, name], cwd=work, capture_output=True, text=True, check=False)
        assert expected in done.stdout, f"mypy on\n{code}\n{done.stdout}{done.stderr}"


def check_installed() -> None:
    """Inside the new environment: the version, every module, the demo's data, the networks that ship."""
    import importlib
    import importlib.metadata
    import pkgutil

    import septum
    from septum.experiments.demo import nuclei
    from septum.model.model import shipped

    assert Path(sys.prefix) in Path(septum.__file__).parents, f"{septum.__file__} is not the installed package"
    assert importlib.metadata.version("septum") == septum.__version__
    for module in pkgutil.walk_packages(septum.__path__, "septum."):
        if module.name != "septum.__main__":
            importlib.import_module(module.name)
    for name in septum.__all__:
        getattr(septum, name)
    image, labels = nuclei()
    assert (image.shape, len(set(labels.flat) - {0})) == ((1, 512, 512), 125)
    assert shipped()
    for name in shipped():
        septum.load(name)


if __name__ == "__main__":
    check_installed() if sys.argv[1:] == ["--installed"] else main()
