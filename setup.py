"""What a wheel holds beside its packages: the sweep files, committed tables, and the commit that it is of."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class WithSweeps(build_py):
    """Packages, and in `linksim/shipped/` what lies beside them in the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        shipped = Path(self.build_lib) / "linksim" / "shipped"
        results = [f"results/*/{name}" for name in ("table.parquet", "per_group.parquet", "run.json")]
        for pattern in ("sweeps/*.yaml", "sweeps/train/*.yaml", *results):
            for file in ROOT.glob(pattern):
                place = shipped / file.relative_to(ROOT)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)
        # The package itself needs what is not there while it is built.
        code = runpy.run_path(str(ROOT / "linksim" / "version.py"))["code_version"]()
        (shipped / "version").write_text(f"{code}\n")


setup(cmdclass={"build_py": WithSweeps})
