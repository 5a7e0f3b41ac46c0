"""docs/cluster.md and demo/deploy: the examples run, and what the files refer to exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from asgi_ipc.cluster.settings import check_url
from asgi_ipc.launcher.clustering import VARIABLE
from tests.serving import ROOT
from tests.testing.test_testing_docs import INI

# It comes with `uvicorn[standard]`.
yaml = pytest.importorskip("yaml")

PAGE = (ROOT / "docs" / "cluster.md").read_text()
DEPLOY = ROOT / "demo" / "deploy"

# `${NAME:?what to do}` of Compose, and `$(NAME)` of Kubernetes.
VARIABLES = re.compile(r"\$\{\w+(?::\?[^}]*)?\}|\$\(\w+\)")


@cache
def options() -> frozenset[str]:
    """The options that `asgi-ipc serve` knows."""
    shown = subprocess.run(
        [sys.executable, "-m", "asgi_ipc.cli", "serve", "--help"], capture_output=True, text=True, check=True
    )
    return frozenset(re.findall(r"--[a-z0-9-]+", shown.stdout))


def check_command(command: list[str]) -> None:
    """Check the command of a node: what it serves, and its options."""
    assert command[:3] == ["asgi-ipc", "serve", "demo:app"]
    given = {word.partition("=")[0] for word in command[3:]}
    assert given <= options(), given - options()
    assert {"--node-name", "--cluster-secret-file", "--workers"} <= given
    # A password there could be read by every user of the machine.
    assert "--cluster" not in given


def test_the_examples_of_the_page_pass(tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in examples] == ["app.py", "test_app.py"]
    assert PAGE.count("```python") == len(examples)
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
    assert "1 passed" in ran.stdout


@pytest.mark.parametrize("name", ["README.md", "docs/cluster.md", "docs/security.md"])
def test_every_cluster_option_of_the_pages_exists(name: str) -> None:
    page = (ROOT / name).read_text()
    found = set(re.findall(r"--(?:cluster|node)[a-z-]*", page))
    assert found
    assert found <= options()


def test_all_links_of_the_page_lead_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert len(links) >= 8
    # Beside an installed package the sources lie apart.
    places = [ROOT / "docs", ROOT / "source" / "docs"]
    assert [link for link in links if not any(os.path.exists(_at(place, link)) for place in places)] == []


def _at(folder: Path, link: str) -> str:
    # Without a look at folders on the way, which need not be there.
    return os.path.normpath(folder / link)


def test_the_compose_file_has_a_broker_and_two_nodes_with_one_seal() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert {key for key in compose if not key.startswith("x-")} == {"services", "secrets"}
    services = compose["services"]
    broker, *nodes = services.values()
    assert broker["image"].startswith("docker.io/library/nats:")
    assert len(nodes) == 2
    known = {
        "image",
        "build",
        "command",
        "ports",
        "environment",
        "secrets",
        "depends_on",
        "stop_grace_period",
    }
    ports = set()
    for node in nodes:
        assert node.keys() <= known
        # The top of the repository, where the Dockerfile is.
        assert os.path.normpath(DEPLOY / node["build"]) == str(ROOT)
        check_command(node["command"])
        url = VARIABLES.sub("x", node["environment"][VARIABLE])
        assert check_url(url) == "nats"
        assert urlsplit(url).hostname in services
        assert set(node["depends_on"]) <= services.keys()
        (secret,) = node["secrets"]
        assert compose["secrets"][secret] == {"environment": "SEAL"}
        assert f"--cluster-secret-file=/run/secrets/{secret}" in node["command"]
        (port,) = node["ports"]
        _, outside, inside = port.split(":")
        assert f"--port={inside}" in node["command"]
        ports.add(outside)
    assert ports == {"8000", "8001"}


def manifests(kind: str) -> Iterator[dict[str, Any]]:
    """The manifests of a kind."""
    for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        if each["kind"] == kind:
            yield each


def test_the_kubernetes_file_has_what_it_refers_to() -> None:
    kinds = [each["kind"] for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())]
    assert kinds == ["Secret", "Deployment", "Service", "Deployment", "Service"]
    (secret,) = manifests("Secret")
    services = {each["metadata"]["name"]: each["spec"] for each in manifests("Service")}
    broker, app = (each["spec"] for each in manifests("Deployment"))
    assert app["replicas"] > 1
    assert broker["replicas"] == 1

    for spec in (broker, app):
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == labels
        (container,) = spec["template"]["spec"]["containers"]
        assert {"name", "image", "args", "env", "ports", "readinessProbe"} <= container.keys()
        (port,) = container["ports"]
        (service,) = (each for each in services.values() if each["selector"] == labels)
        assert service["ports"][0]["targetPort"] == port["name"]
        named = {each["name"] for each in container["env"]}
        for variable in container["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference is not None:
                assert reference["name"] == secret["metadata"]["name"]
                assert reference["key"] in secret["stringData"]
        used = {found[2:-1] for word in container["args"] for found in VARIABLES.findall(word)}
        assert used <= named

    pod = app["template"]["spec"]
    (container,) = pod["containers"]
    check_command([*container["command"], *container["args"]])
    assert f"--port={container['ports'][0]['containerPort']}" in container["args"]
    assert VARIABLE in {each["name"] for each in container["env"]}
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"]
    (item,) = volume["secret"]["items"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    assert item["key"] in secret["stringData"]
    assert f"--cluster-secret-file={mount['mountPath']}/{item['path']}" in container["args"]
    url = secret["stringData"]["url"]
    assert check_url(url) == "nats"
    assert urlsplit(url).hostname in services
    assert urlsplit(url).password == secret["stringData"]["password"]
