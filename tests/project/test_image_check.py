"""`make image-check`: what of this machine's pip settings goes into the build of the image."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

from tests.serving import ROOT


def test_what_a_pip_setting_names_is_there_in_the_build_or_the_setting_stays_behind(tmp_path: Path) -> None:
    constraints, wheels, index = tmp_path / "constraints.txt", tmp_path / "wheels", tmp_path / "index"
    constraints.touch()
    wheels.mkdir()
    (index / "simple").mkdir(parents=True)
    settings = {
        "global.constraint": f"{constraints}",
        "global.find-links": f"https://example.org/wheels {wheels}",
        "global.extra-index-url": f"file://{index}/simple/",
        "global.cert": f"{tmp_path}/not there.pem",
        "install.target": f"{tmp_path}",
        "global.log": "/var/log/pip.log",
        "global.timeout": "15",
        ":env:.timeout": "180",
        ":env:.no-binary": f"{tmp_path}/not-there",
    }
    conf = tmp_path / "pip.conf"
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts/image_check/probe.py"), "pip-conf", str(conf)],
        input="".join(f"{name}={value!r}\n" for name, value in settings.items()),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.splitlines() == [f"{path}:{path}:ro" for path in (constraints, index, wheels)]
    read = configparser.RawConfigParser()
    read.read(conf)
    assert {section: dict(read[section]) for section in read.sections()} == {
        "global": {
            "constraint": f"{constraints}",
            "find-links": f"https://example.org/wheels {wheels}",
            "extra-index-url": f"file://{index}/simple/",
            "timeout": "180",
        }
    }
    for name in ("global.cert", "install.target", "global.log", "global.no-binary"):
        assert f"{name} = " in ran.stderr
