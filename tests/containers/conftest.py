import shutil

import pytest

from tests.containers import engine as podman


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    assert shutil.which("podman"), "podman is missing; scripts/test.sh names the packages that it installs"
    return podman.Engine(tmp_path_factory.mktemp("podman"))


@pytest.fixture(scope="session")
def base_image(engine, record_testsuite_property):
    """The official Python image, or a stand-in that is called one."""
    base = podman.find_base(engine)
    record_testsuite_property("base image", base)
    done = engine.run(["podman", "run", "--rm", "--network=none", base, "python", "-c", "print('runs')"])
    assert done.stdout.strip() == "runs", f"podman is here, but cannot run a container on this machine:\n{done.stderr}"
    return base


@pytest.fixture(scope="session")
def images(engine, base_image):
    """A function that gives the full name of an image, built of this checkout and gone afterwards."""
    with podman.interest() as others:
        podman.build(engine, base_image)
        yield podman.image
    podman.forget(engine, others)
