"""Every file of configs/cluster by what would read it: Ray, Kubernetes, docker, Slurm's shell, pip's pins."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from dockerfile_parse import DockerfileParser
from ray.autoscaler._private import util
from ray.dashboard.modules.job.cli import submit
from ray.scripts.symmetric_run import symmetric_run

from pipeline.config import Params, Paths

ROOT = Path(__file__).parents[2]
FILES = ROOT / "configs" / "cluster"
PAGE = (ROOT / "docs" / "how-to" / "cluster.md").read_text(encoding="utf-8")
LAUNCHED = {"aws.yaml", "gcp.yaml"}
KUBERNETES = "1.34"
CUSTOM = {
    "RayCluster": {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
                   "workerGroupSpecs"},
    "RayJob": {"clusterSelector", "backoffLimit", "entrypoint"},
}  # fmt: skip
"""Keys of KubeRay's custom resources (ray.io/v1 of KubeRay 1.6) that the files use: no package ships their schema."""
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def test_every_file_is_known_to_a_test_and_to_the_page() -> None:
    others = {"kuberay.yaml", "kuberay-job.yaml", "slurm.sh", "Dockerfile", "Dockerfile.dockerignore"}
    found = {path.name for path in FILES.iterdir()}
    assert found == LAUNCHED | others
    for name in found:
        assert f"configs/cluster/{name}" in PAGE, name


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    assigned = r"(?i)(secret|password|_key|_token|token|api_key)\s*[=:]\s*[\"']?[A-Za-z0-9/+]{12,}"
    assert not re.search(assigned, path.read_text(encoding="utf-8"))


# ray up


@pytest.mark.parametrize("name", sorted(LAUNCHED))
def test_rays_cluster_launcher_accepts_the_file(name: str) -> None:
    config = util.prepare_config(yaml.safe_load((FILES / name).read_text()))
    util.validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert config[commands][-1].startswith("RAY_AUTH_MODE=token ray start ")
    for image in ("head_image", "worker_image"):
        assert re.match(rf"rayproject/ray:{re.escape(ray.__version__)}-py311(-gpu)?$", config["docker"][image])
    for command in (*config["setup_commands"], *config["initialization_commands"]):
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("name", sorted(LAUNCHED))
def test_a_wrong_key_would_be_found(name: str) -> None:
    config = yaml.safe_load((FILES / name).read_text()) | {"max_worker": 8}
    with pytest.raises(Exception, match="max_worker"):
        util.validate_config(config)


def test_the_pages_job_is_one_that_ray_submits() -> None:
    (line,) = re.findall(r"^    ray (job submit (?:.*\\\n)*.*)", PAGE, re.MULTILINE)
    _, _, *arguments = shlex.split(line.replace("\\\n", " "))
    asked = submit.make_context("submit", arguments).params
    assert asked["address"] == "http://localhost:8265"
    assert asked["working_dir"] is None
    shell, flag, program = asked["entrypoint"]
    assert (shell, flag) == ("bash", "-c")
    subprocess.run(["bash", "-n", "-c", program], check=True)
    assert "stages/sweep.py" in program or "dvc repro" in program


# Kubernetes


def manifests() -> list[dict[str, Any]]:
    return [found for path in FILES.glob("kuberay*.yaml") for found in yaml.safe_load_all(path.read_text())]


def named(kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in manifests() if manifest["kind"] == kind]
    return found


def as_pod(template: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, **template}


def templates() -> list[dict[str, Any]]:
    spec = named("RayCluster")["spec"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


def test_kubernetes_accepts_the_claim_and_the_pods() -> None:
    for manifest in (named("PersistentVolumeClaim"), *map(as_pod, templates())):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    wrong = as_pod(templates()[0])
    wrong["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("kind", CUSTOM)
def test_kuberays_resources_have_known_keys(kind: str) -> None:
    manifest = named(kind)
    assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["spec"].keys() <= CUSTOM[kind]


def test_the_cluster_wants_its_token_and_grows_by_itself() -> None:
    spec = named("RayCluster")["spec"]
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in spec["workerGroupSpecs"]:
        assert group.keys() == GROUP
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for params in (spec["headGroupSpec"]["rayStartParams"], *(g["rayStartParams"] for g in spec["workerGroupSpecs"])):
        assert all(isinstance(value, str) for value in params.values())


def test_pods_are_not_root_and_their_secrets_are_kubernetes_own() -> None:
    (claim,) = [m["metadata"]["name"] for m in manifests() if m["kind"] == "PersistentVolumeClaim"]
    for template in templates():
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert [v["persistentVolumeClaim"]["claimName"] for v in template["spec"]["volumes"]] == [claim]
        for container in template["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "env" not in container
            assert container["envFrom"] == [{"secretRef": {"name": "gradient-dynamics", "optional": True}}]
            assert {mount["name"] for mount in container["volumeMounts"]} == {"trials"}


def test_the_job_runs_on_that_cluster_and_its_programs_exist() -> None:
    job = named("RayJob")["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": named("RayCluster")["metadata"]["name"]}
    subprocess.run(["bash", "-n", "-c", job["entrypoint"]], check=True)
    for script in re.findall(r"python (\S+)", job["entrypoint"]):
        assert (ROOT / script).is_file()


# docker


def test_the_image_is_pinned_not_root_and_copies_what_is_there(tmp_path: Path) -> None:
    dockerfile = DockerfileParser(str(tmp_path))  # it would write a path that is there already
    dockerfile.content = (FILES / "Dockerfile").read_text()
    bases = {image.split(" ")[0] for image in dockerfile.parent_images}
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base) for base in bases), bases
    steps = [(step["instruction"], step["value"]) for step in dockerfile.structure]
    users = [value for name, value in steps if name == "USER"]
    assert users == ["1000"]
    assert steps.index(("USER", "1000")) > max(i for i, (name, _) in enumerate(steps) if name == "RUN")
    (allowed, *_) = [(FILES / "Dockerfile.dockerignore").read_text().splitlines()]
    assert allowed[0] == "*"
    for name, value in steps:
        if name == "COPY" and "--from" not in value:
            for source in [word for word in value.split()[:-1] if not word.startswith("--")]:
                assert (ROOT / source).exists(), source
                assert f"!{source.split('/')[0]}" in allowed, source
        assert not (name in {"ENV", "ARG"} and re.search(r"(?i)key|secret|token", value))
    installs = [value for name, value in steps if name == "RUN" and "pip install" in value]
    assert all("--constraint constraints.txt" in value for value in installs)
    assert all("rm -rf /var/lib/apt/lists/*" in value for name, value in steps if "apt-get install" in value)


def test_all_that_the_image_installs_is_pinned() -> None:
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]}
    assert {"ray", "torch", "aiohttp-cors", "opencensus", "virtualenv", "boto3", "polars"} <= pinned


# Slurm


def test_the_slurm_script_is_sound() -> None:
    script = FILES / "slurm.sh"
    shellcheck = Path(sys.executable).parent / "shellcheck"
    said = subprocess.run([shellcheck, "--severity=style", script], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    lines = script.read_text().splitlines()
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert directives
    assert max(directives) < first_command  # Slurm reads none after that
    assert "#SBATCH --exclusive" in lines  # `ray symmetric-run` ends all Ray processes of a node


STAND_INS = {
    "scontrol": """
[ "$*" = "show hostnames node-[7-8]" ] && printf 'node-7\\nnode-8\\n'
""",
    "srun": """
tasks=0; while [[ $1 == --* ]]; do case $1 in --ntasks=*) tasks=${1#*=};; esac; shift; done
for ((SLURM_PROCID = 0; SLURM_PROCID < tasks; SLURM_PROCID++)); do export SLURM_PROCID; "$@" || exit; done
""",
    "hostname": """
[ "$*" = --ip-address ] && echo 10.0.0.7 fd00::7
""",
    "ray": """
printf '%s\\n' "$RAY_AUTH_MODE $SLURM_PROCID $*" >> "$CALLS"
[[ $1 == symmetric-run && $SLURM_PROCID == 0 ]] || exit 0
while [[ $1 != -- ]]; do shift; done
shift; "$@"
""",
}
"""What the programs of a cluster do with this script: a task per node, Ray's program on the first one."""


def test_the_slurm_script_sweeps_on_every_node(project: tuple[Paths, Params], tmp_path: Path) -> None:
    root, bin_folder, calls = project[0].root, tmp_path / "bin", tmp_path / "calls"
    bin_folder.mkdir()
    for name, program in {**STAND_INS, "python": f'\nexec {sys.executable} "$@"\n'}.items():
        (bin_folder / name).write_text(f"#!/bin/bash{program}")
        (bin_folder / name).chmod(0o755)
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "activate").write_text(f"export PATH={bin_folder}:$PATH\n")
    (root / "stages").symlink_to(ROOT / "stages")
    slurm = {"SUBMIT_DIR": root, "JOB_NODELIST": "node-[7-8]", "JOB_NUM_NODES": 2, "CPUS_PER_TASK": 16, "JOB_ID": 31234}
    environment = {
        **os.environ,
        **{f"SLURM_{name}": str(value) for name, value in slurm.items()},
        "CALLS": str(calls),
        "HOME": str(tmp_path),
        "SLURM_PROCID": "",
    }
    command = ["bash", FILES / "slurm.sh", "cells", "--dry-run"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 settings" in done.stdout
    token, *nodes = calls.read_text().splitlines()
    assert token == "token  get-auth-token --generate"
    assert [line.split()[:2] for line in nodes] == [["token", "0"], ["token", "1"]]
    _, _, _, *arguments = shlex.split(nodes[0])
    asked = symmetric_run.make_context("symmetric-run", arguments).params
    assert asked["address"] == "10.0.0.7:21234"
    assert asked["min_nodes"] == 2
    assert list(asked["ray_args_and_entrypoint"][:2]) == ["--num-cpus", "16"]
    assert "RAY_ADDRESS=10.0.0.7:21234" in arguments
