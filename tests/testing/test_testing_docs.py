"""docs/testing.md: its examples, as they stand there, in a pytest of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.serving import ROOT

INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def test_every_example_of_the_page_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    examples = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = ["shop.py", "test_messages.py", "test_shop.py", "test_hosts.py", "test_server.py"]
    assert [name for name, _ in examples] == names
    assert page.count("```python") == len(examples)
    for name, code in examples:
        (tmp_path / name).write_text(code)
    (tmp_path / "pytest.ini").write_text(INI)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^7 passed", ran.stdout, re.MULTILINE), ran.stdout
