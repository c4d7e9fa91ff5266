"""What a real Ray is told of replicas; nothing is started."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ray.serve", reason="needs the extra `ray`")

from edgewright.serve.on_ray import Placement, application


def told(placement: Placement) -> Any:
    """The deployment that Ray would start."""
    return application(["models"], None, placement)._bound_deployment


def test_a_placement_that_may_grow_is_autoscaled_within_its_ends() -> None:
    deployment = told(Placement(replicas=2, most=5, cpus=0.5, gpus=0.25, requests=10))
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 5, 5)
    assert deployment._deployment_config.max_ongoing_requests == 10
    options = deployment._replica_config.ray_actor_options
    assert (options["num_cpus"], options["num_gpus"]) == (0.5, 0.25)


def test_a_placement_of_one_size_is_not() -> None:
    deployment = told(Placement(replicas=3, most=3))
    assert deployment._deployment_config.autoscaling_config is None
    assert deployment._deployment_config.num_replicas == 3
