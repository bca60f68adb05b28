"""The ValidatingAdmissionPolicies of the chart: they let through what the services render, and
nothing that a stolen account could gain by.

A real server is asked by tests/real/test_chart_policies.py.
"""

from functools import cache

import pytest

from aim_testing.policies.cases import (
    ADMITTED,
    CACHER,
    CHART,
    DIGEST,
    EVERYWHERE,
    REJECTED,
    Case,
    container_of,
    edited,
    golden,
)
from aim_testing.policies.double import POLICY, policies, resource_of, violated
from aimlab.apiserver.access import account
from aimlab.apiserver.policies import Write, denials
from aimlab.testing.charts import NAMESPACE, render


@pytest.mark.parametrize("case", ADMITTED, ids=lambda case: case.name)
def test_what_a_service_writes_is_admitted(case: Case) -> None:
    assert violated(case) == set()


@cache
def rules_against(number: int) -> set[tuple[str, str]]:
    """The rules that reject this case of REJECTED."""
    return violated(REJECTED[number])


@pytest.mark.parametrize(
    "number", range(len(REJECTED)), ids=lambda number: str(REJECTED[number].name)
)
def test_what_no_service_writes_is_rejected(number: int) -> None:
    assert rules_against(number) != set()


ALL_IN_ONE = ("aim-control-plane", "--set=allInOne=true")
"""One account writes what each service would, under the rules of each."""


def test_one_process_writes_what_the_services_do_and_no_more() -> None:
    assert {case.name: violated(case, *ALL_IN_ONE) for case in ADMITTED} == {
        case.name: set() for case in ADMITTED
    }
    assert [case.name for case in REJECTED if not violated(case, *ALL_IN_ONE)] == []


def test_each_rule_rejects_something_that_no_other_rule_does() -> None:
    rules = {
        (policy["metadata"]["name"], each["message"])
        for policy in policies()
        for each in policy["spec"]["validations"]
    }
    found = [rules_against(number) for number in range(len(REJECTED))]
    alone = [rules for rules in found if len(rules) == 1]
    assert rules - set().union(*alone) == set()


@pytest.mark.parametrize(
    "chosen",
    [
        "mirror.example:5000/a.b/x",
        f"mirror.example:5000/a.b/x:1@{DIGEST}",
        "downloader",
        "downloader:1",
    ],
)
def test_a_downloader_image_named_by_the_chart_is_admitted(chosen: str) -> None:
    body = golden("cacher", "download-job")
    found = policies(f"--set-string=services.cacher.env.AIM_DOWNLOADER_IMAGE={chosen}")
    jobs = next(policy for policy in found if policy["metadata"]["name"] == "aim-cacher-jobs")

    def passes(image: str) -> bool:
        container_of(body)["image"] = image
        write = Write(
            resource_of(body), "CREATE", "ml", "x", account(NAMESPACE, CACHER), body, None
        )
        return list(denials(jobs, write)) == []

    repository = chosen.partition("@")[0].removesuffix(":1")
    assert (passes(chosen), passes(f"{repository}:2")) == (True, True)
    assert not any(
        passes(other)
        for other in (
            f"{repository}:5000/x",
            f"x{repository}",
            "ghcr.io/silogen/aim-downloader:0.1.0",
        )
    )


@pytest.mark.parametrize("who", ["aim-watcher", "aim-statuswriter", "another-user"])
def test_writes_of_others_are_not_looked_at(who: str) -> None:
    attack = edited("discovery", "discovery-job", EVERYWHERE["host-path"])
    assert violated(Case("host-path", who, attack)) == set()


def test_every_policy_is_bound_and_denies() -> None:
    bodies = render(CHART)
    bound = {
        body["spec"]["policyName"]: body["spec"]["validationActions"]
        for body in bodies
        if body["kind"] == f"{POLICY}Binding"
    }
    assert bound == {policy["metadata"]["name"]: ["Deny"] for policy in policies()}
    assert {policy["spec"]["failurePolicy"] for policy in policies()} == {"Fail"}


@pytest.mark.parametrize(
    "arguments",
    [("--set=admissionPolicy.enabled=false",), ("--kube-version=1.29.0",)],
    ids=["off", "kubernetes-1.29"],
)
def test_there_are_none_where_they_are_off_or_unknown(arguments: tuple[str, ...]) -> None:
    assert policies(*arguments) == ()


def test_a_cluster_that_lacks_the_kind_gets_none() -> None:
    """Its discovery document counts, not its version."""
    assert policies("--api-versions=apps/v1/Deployment") == ()
    policy_kind = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
    both = f"--api-versions=apps/v1/Deployment,{policy_kind}"
    assert policies(both, "--kube-version=1.29.0") != ()
