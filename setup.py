"""What pyproject.toml cannot say: the stored results of the benchmarks go into the wheel, for the chapters to read.

In the repository they lie in benchmarks/ alone; `stgcn_lab.datasets.load_benchmark` finds them in either place.
"""

from pathlib import Path
from shutil import copyfile, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildWithBenchmarks(build_py):
    """The package, its data, and a copy of benchmarks/ as stgcn_lab/data/benchmarks/."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the clone itself is read: a second copy there could only grow old
            return
        target = Path(self.build_lib) / "stgcn_lab" / "data" / "benchmarks"
        rmtree(target, ignore_errors=True)
        for pattern in ("*.json", "entries/*.json", "*.py"):
            for source in sorted((HERE / "benchmarks").glob(pattern)):
                copy = target / source.relative_to(HERE / "benchmarks")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copyfile(source, copy)


setup(cmdclass={"build_py": BuildWithBenchmarks})
