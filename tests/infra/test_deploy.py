"""The files of `infra/deploy/` as far as they can be checked without Docker, Kubernetes, AWS and Slurm."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from infra.cli import app
from pipelines.recipe import Extract

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "infra" / "deploy"
GUIDE = ROOT / "docs" / "deploy.md"
GIB = 1 << 30
# docs/scale.md: a worker peaks at 0.5-0.6 GB and is planned with 1.5 GiB; its parser child has a ceiling of its own.
SLOT_BYTES = int(1.5 * GIB) + Extract(engine="trafilatura").limits.memory_bytes


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def typed() -> list[str]:
    """Every command of the guide: the lines of its `console` blocks that begin with `$ `, continuations joined."""
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:] for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def programs(command: str) -> list[list[str]]:
    """The words of each simple command of a shell line, redirections left out."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if set(word) <= set("();|&"):
            found.append([])
            redirected = False
        elif word[0] in "<>":
            found[-1] = found[-1][:-1] if found[-1][-1] == "2" else found[-1]
            redirected = True
        elif not redirected:
            found[-1].append(word)
    return [words for words in found if words]


def slurm_commands() -> list[str]:
    """What `slurm.sh` runs, its options filled in."""
    script = (DEPLOY / "slurm.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    (options,) = re.findall(r"^of_ray=\((.*?)\)$", script, re.DOTALL | re.MULTILINE)
    said = script.replace('"${of_ray[@]}"', options.replace("\n", " "))
    said = said.replace('"${again[@]}"', "--take-over").replace('"$@"', "")
    said = said.replace("$SLURM_CPUS_PER_TASK", "16")
    return re.findall(r"(?:gristmill run|ray (?:start|health-check|list)) [-\"][^\n]*|ray list [^\n]*", said)


def shell_lines() -> list[str]:
    config = documents("ray-up-aws.yaml")[0]
    started = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    return [*typed(), documents("kuberay/rayjob.yaml")[0]["spec"]["entrypoint"], *slurm_commands(), *started]


def invocations(program: str) -> list[list[str]]:
    """The arguments of every call of `program` in the files and the guide, commands in quotes included."""
    calls = [words for line in shell_lines() for words in programs(line)]
    quoted = [part for words in calls for word in words if word.startswith(f"{program} ") for part in programs(word)]
    return [words[1:] for words in (*calls, *quoted) if words[0] == program]


def test_every_gristmill_command_parses_against_the_command_line() -> None:
    group: Any = typer.main.get_command(app)
    lines = invocations("gristmill")
    assert {"run", "submit", "jobs", "logs", "cancel", "resume"} <= {words[0] for words in lines}
    for name, *arguments in lines:
        assert name in group.commands, f"gristmill {name}"
        group.commands[name].make_context(name, list(arguments))


def test_every_ray_command_parses_against_the_installed_ray() -> None:
    from ray.scripts.scripts import cli

    lines = invocations("ray")
    assert {"start", "health-check", "list", "up", "exec", "down"} <= {words[0] for words in lines}
    for name, *arguments in lines:
        cli.commands[name].make_context(name, list(arguments))


def test_the_guide_names_files_that_exist_and_every_file_is_in_the_guide() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    named = set(re.findall(r"infra/deploy/[\w./-]*\w", text))
    assert [path for path in named if not (ROOT / path).exists()] == []
    files = {str(path.relative_to(ROOT)) for path in DEPLOY.rglob("*") if path.is_file()}
    assert files - named == set()


SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:(?:secret_access_key|password|auth_token|auth-token)\s*[:=]\s*[\"']?[\w/+]{8,})"
)


@pytest.mark.parametrize("path", [*sorted(p for p in DEPLOY.rglob("*") if p.is_file()), GUIDE], ids=lambda p: p.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert SECRET.findall(path.read_text(encoding="utf-8")) == []


def test_the_search_for_secrets_finds_them() -> None:
    assert SECRET.search("AWS_SECRET_ACCESS_KEY=abcdefgh12345678")
    assert SECRET.search("RAY_AUTH_TOKEN: 0123456789abcdef")


# The image.


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in plain.splitlines() if line.strip()]


def test_the_image_stands_on_pinned_pythons_of_the_projects_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (oldest,) = re.findall(r">=(\d+\.\d+)", project["requires-python"])
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert set(bases) == {f"python:{oldest}-slim-bookworm"}


def test_what_the_image_copies_exists_and_the_build_may_see_it() -> None:
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    sources = [source for one in copied for source in one]
    assert "requirements.lock" in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    seen = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in seen
    assert {line[1:] for line in seen if line.startswith("!")} == set(sources)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], wheel["hooks"]["custom"]["path"], "pyproject.toml"} <= set(sources)


def test_the_image_takes_the_lock_fetches_the_models_and_proves_itself_without_root() -> None:
    steps = instructions()
    runs = [rest for name, rest in steps if name == "RUN"]
    assert any("--requirement requirements.lock" in run for run in runs)
    assert any("python -m infra.fetch" in run and "--no-deps" in run for run in runs)
    ((place, user),) = [(place, rest) for place, (name, rest) in enumerate(steps) if name == "USER"]
    assert int(user.split(":")[0]) > 0
    assert any(name == "RUN" and "gristmill doctor" in rest for name, rest in steps[place:])
    assert not any(name == "ENTRYPOINT" for name, _ in steps)  # `ray up` and KubeRay bring a command of their own


def test_the_image_wants_a_token_and_says_where_home_is() -> None:
    (variables,) = [rest for name, rest in instructions() if name == "ENV"]
    said = dict(pair.split("=", 1) for pair in variables.split())
    assert said["RAY_AUTH_MODE"] == "token"
    assert said["HOME"].startswith("/home/")
    assert not [name for name in said if re.search("TOKEN|SECRET|PASSWORD|ACCESS_KEY", name)]


# Kubernetes. Those fields of KubeRay's API reference (docs.ray.io, ray.io/v1, release 1.6.2) that are used here.

CLUSTER_FIELDS = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {
    "headGroupSpec": {"serviceType", "rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
JOB_FIELDS = {"entrypoint", "submissionMode", "backoffLimit", "rayClusterSpec"}
JOB_FIELDS |= {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}


def cluster_spec() -> dict[str, Any]:
    (cluster,) = documents("kuberay/raycluster.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec: dict[str, Any] = cluster["spec"]
    return spec


def pods() -> list[dict[str, Any]]:
    spec = cluster_spec()
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def quantity(text: str) -> int:
    return int(text.removesuffix("Gi")) * GIB


def test_the_cluster_uses_fields_that_kuberay_knows_and_asks_for_a_token() -> None:
    import ray

    spec = cluster_spec()
    assert set(spec) == CLUSTER_FIELDS
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == ray.__version__
    assert set(spec["headGroupSpec"]) == GROUP_FIELDS["headGroupSpec"]
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in spec["workerGroupSpecs"]:
        assert set(group) == GROUP_FIELDS["workerGroupSpecs"]
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]  # nothing scales it
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_job_runs_on_the_same_cluster_and_leaves_none_behind() -> None:
    (job,) = documents("kuberay/rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) == JOB_FIELDS
    assert job["spec"]["rayClusterSpec"] == cluster_spec()
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["gristmill", "run"]
    assert words[words.index("--address") + 1] == "auto"


def test_pods_are_confined_and_have_an_identity_but_no_secret() -> None:
    names = {document["metadata"]["name"] for document in documents("kuberay/access.yaml")}
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] in names
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        given = [entry for entry in container["env"] if "value" in entry]
        assert not [entry for entry in given if re.search("TOKEN|SECRET|PASSWORD|KEY", entry["name"])]
        assert all(set(source) == {"secretRef"} for source in container["envFrom"])
    assert "Secret" not in {document["kind"] for document in documents("kuberay/access.yaml")}


def test_a_worker_pod_has_memory_for_every_slot_and_its_parser() -> None:
    for group in cluster_spec()["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        asked, most = container["resources"]["requests"], container["resources"]["limits"]
        slots = int(group["rayStartParams"]["num-cpus"])
        assert asked == most
        assert int(asked["cpu"]) == slots
        assert quantity(asked["memory"]) >= slots * SLOT_BYTES + GIB


def test_rays_ports_are_closed_to_all_but_the_namespace_and_the_operator() -> None:
    (policy,) = [one for one in documents("kuberay/access.yaml") if one["kind"] == "NetworkPolicy"]
    spec = policy["spec"]
    assert spec["podSelector"] == {}
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    own, operator = spec["ingress"]
    assert own == {"from": [{"podSelector": {}}]}
    (source,) = operator["from"]
    assert set(source) == {"namespaceSelector", "podSelector"}
    assert all(selector["matchLabels"] for selector in source.values())
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    (outside,) = [rule for rule in spec["egress"] if "ipBlock" in rule["to"][0]]
    assert "169.254.0.0/16" in outside["to"][0]["ipBlock"]["except"]


# The autoscaler on AWS.


def launcher() -> dict[str, Any]:
    (config,) = documents("ray-up-aws.yaml")
    return config


def test_the_launchers_file_passes_rays_own_checks() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(launcher())
    validate_config(config)
    assert config["head_node_type"] == "head"
    assert config["available_node_types"]["head"]["max_workers"] == 0


def test_aws_would_understand_every_node() -> None:
    session = pytest.importorskip("botocore.session", reason="botocore comes with the extra s3").get_session()
    from botocore.validate import ParamValidator

    shape = session.get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, node in launcher()["available_node_types"].items():
        report = ParamValidator().validate({**node["node_config"], "MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), (name, report.generate_report())


def test_workers_are_spot_machines_with_a_role_behind_a_group_of_ones_own() -> None:
    types = launcher()["available_node_types"]
    for name, node in types.items():
        config = node["node_config"]
        assert ("InstanceMarketOptions" in config) == (name != "head")
        assert "instance-profile/" in config["IamInstanceProfile"]["Arn"]
        assert config["SecurityGroupIds"]  # without it Ray makes a group that opens port 22 to 0.0.0.0/0
        assert config["MetadataOptions"]["HttpTokens"] == "required"
    assert types["head"]["resources"]["CPU"] == 0


def test_every_node_has_the_token_by_file_and_asks_for_it() -> None:
    config = launcher()
    (mount,) = config["file_mounts"].items()
    assert mount == ("/home/gristmill/.ray/auth_token", "~/.ray/auth_token")
    (variables,) = [rest for name, rest in instructions() if name == "ENV"]
    assert f"HOME={Path(mount[0]).parent.parent}" in variables.split()
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]


def test_the_launchers_commands_are_shell() -> None:
    config = launcher()
    lines = [line for name, value in config.items() if name.endswith("_commands") for line in value]
    assert len(lines) > 5
    for line in lines:
        subprocess.run(["bash", "-n", "-c", line], check=True)
